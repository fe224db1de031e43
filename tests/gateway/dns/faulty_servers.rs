//! Servers that are slow, broken or dishonest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record};
use snigate::config::model::{self, NameServer, Tsig, TsigAlgorithm};
use snigate::dns::lookup::{LookupOptions, Lookups};
use snigate::dns::{DnsError, DnsProvider, Rfc2136Provider, TxtRecord};
use snigate::secret::Secret;

use super::{lookups, name};
use crate::support::{Port, TSIG_KEY};

/// How a question came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
}

/// A server that answers as scripted, with any number of messages. It lives as long as the test.
fn server(answer: impl Fn(Over, &Message) -> Vec<Message> + Clone + Send + 'static) -> Port {
    let port = Port::take();
    let udp = UdpSocket::bind(port.address()).expect("a port");
    let tcp = TcpListener::bind(port.address()).expect("a port");
    let over_udp = answer.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            for message in over_udp(Over::Udp, &question) {
                let bytes = message.to_vec().expect("an answer");
                udp.send_to(&bytes, from).expect("sent");
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.expect("a connection");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            let mut bytes = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut bytes).expect("a question");
            let question = Message::from_vec(&bytes).expect("a question");
            for message in answer(Over::Tcp, &question) {
                let bytes = message.to_vec().expect("an answer");
                let length = u16::try_from(bytes.len()).expect("a length");
                stream.write_all(&length.to_be_bytes()).expect("sent");
                stream.write_all(&bytes).expect("sent");
            }
        }
    });
    port
}

/// The answer of this code, without a record.
fn code(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::new(question.id, MessageType::Response, question.op_code);
    answer.metadata.response_code = code;
    answer.metadata.authoritative = true;
    answer.add_queries(question.queries.iter().cloned());
    answer
}

/// The answer that the name has this text.
fn txt(question: &Message, value: &str) -> Message {
    let mut answer = code(question, ResponseCode::NoError);
    let name = question.queries[0].name().clone();
    let data = RData::TXT(TXT::new(vec![value.to_owned()]));
    answer.add_answer(Record::from_rdata(name, 60, data));
    answer
}

/// Look-ups that ask this server alone.
fn asking(server: &Port) -> Lookups {
    Lookups::new(LookupOptions {
        servers: vec![server.address()],
        resolvers: vec![server.address()],
        patience: Duration::from_millis(300),
    })
}

#[tokio::test]
async fn what_fits_into_no_datagram_comes_over_tcp() {
    let server = server(|over, question| {
        let mut answer = txt(question, "whole");
        if over == Over::Udp {
            answer = answer.truncate();
        }
        vec![answer]
    });
    let texts = asking(&server).txt(&name("long.test")).await;
    assert_eq!(texts, Ok(vec!["whole".to_owned()]));
}

#[tokio::test]
async fn a_server_that_is_silent_over_udp_is_asked_over_tcp() {
    let server = server(|over, question| match over {
        Over::Udp => Vec::new(),
        Over::Tcp => vec![txt(question, "at last")],
    });
    let texts = asking(&server).txt(&name("slow.test")).await;
    assert_eq!(texts, Ok(vec!["at last".to_owned()]));
}

#[tokio::test]
async fn what_does_not_answer_the_question_is_not_believed() {
    let server = server(|_, question| {
        let mut foreign = txt(question, "another id");
        foreign.metadata.id = question.id.wrapping_add(1);
        let mut other = txt(question, "another question");
        other.queries[0].set_name("other.test.".parse().expect("a name"));
        let mut bare = txt(question, "no question");
        bare.queries.clear();
        let mut echo = txt(question, "no answer");
        echo.metadata.message_type = MessageType::Query;
        let mut operation = txt(question, "another operation");
        operation.metadata.op_code = OpCode::Notify;
        let own = txt(question, "own");
        vec![foreign, other, bare, echo, operation, own]
    });
    let texts = asking(&server).txt(&name("true.test")).await;
    assert_eq!(texts, Ok(vec!["own".to_owned()]));
}

#[tokio::test]
async fn records_of_other_names_in_an_answer_do_not_count() {
    let server = server(|_, question| {
        let mut answer = txt(question, "own");
        let data = RData::TXT(TXT::new(vec!["of another".to_owned()]));
        let other = "other.test.".parse().expect("a name");
        answer.add_answer(Record::from_rdata(other, 60, data));
        vec![answer]
    });
    let texts = asking(&server).txt(&name("true.test")).await;
    assert_eq!(texts, Ok(vec!["own".to_owned()]));
}

#[tokio::test]
async fn the_next_resolver_is_asked_where_one_cannot_tell() {
    let broken = server(|_, question| vec![code(question, ResponseCode::ServFail)]);
    let silent = server(|_, _| Vec::new());
    let good = server(|_, question| vec![txt(question, "found")]);
    let [broken, silent, good] = [broken, silent, good].map(|port| (port.address(), port));
    let dns = lookups(&[broken.0, silent.0, good.0]);
    let texts = dns.txt(&name("www.test")).await;
    assert_eq!(texts, Ok(vec!["found".to_owned()]));

    let dns = lookups(&[broken.0, silent.0]);
    assert_eq!(
        dns.txt(&name("www.test")).await,
        Err(DnsError::Unreachable(format!(
            "no resolver returned the TXT records of www.test: {} answers SERVFAIL; {} does not \
             answer within 0.3 s",
            broken.0, silent.0
        )))
    );
}

fn provider(server: SocketAddr) -> Rfc2136Provider {
    let config = model::Rfc2136 {
        server: NameServer::Ip(server),
        tsig: Some(Tsig {
            name: name(TSIG_KEY.name),
            algorithm: TsigAlgorithm::HmacSha256,
            secret: Secret::new(TSIG_KEY.secret.to_owned()),
        }),
    };
    Rfc2136Provider::new("main", &config, 60).expect("a key")
}

async fn added(server: &Port) -> DnsError {
    let record = TxtRecord {
        name: name("_acme-challenge.www.test"),
        value: "token".to_owned(),
    };
    let (dns, zone) = (provider(server.address()), name("www.test"));
    dns.add(&zone, &record).await.expect_err("it is not done")
}

#[tokio::test]
async fn an_update_is_only_done_where_its_answer_is_signed() {
    let forger = server(|_, question| vec![code(question, ResponseCode::NoError)]);
    let error = added(&forger).await;
    let said = format!(
        "the response of the name server {} is not signed with our key: ",
        forger.address()
    );
    assert!(error.to_string().starts_with(&said), "{error}");

    // It takes no update for a while, or never will.
    let busy = server(|_, question| vec![code(question, ResponseCode::ServFail)]);
    let error = added(&busy).await;
    assert!(matches!(&error, DnsError::Unreachable(_)), "{error}");
    let simple = server(|_, question| vec![code(question, ResponseCode::NotImp)]);
    let error = added(&simple).await;
    assert!(
        matches!(&error, DnsError::Refused(text) if text.contains("accept dynamic updates")),
        "{error}"
    );
}
