//! One question to one name server (RFC 1035, section 4.2): over UDP, and over TCP if the response
//! does not fit or does not come.
//!
//! Nothing is cached between questions, so a change is seen immediately.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::DnsError;
use crate::host::HostName;

/// The port of name servers.
pub(super) const PORT: u16 = 53;

/// How many times a question is sent over UDP, which loses some.
const DATAGRAMS: u32 = 2;

/// How many times it is sent in all.
pub(super) const TRIES: u32 = DATAGRAMS + 1;

/// The largest response over UDP, whatever the server thinks.
const LONGEST_DATAGRAM: usize = 4096;

/// A server's response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) message: Message,
    /// The message as it came, for its signature.
    pub(super) bytes: Vec<u8>,
}

/// Why there is no response. Follows the server's name: "does not answer within 2 s".
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum NoAnswer {
    #[error("does not answer within {} s", .0.as_secs_f64())]
    Late(Duration),
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("sent an invalid response: {0}")]
    Nonsense(String),
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// A name in wire format.
pub(super) fn wire(name: &HostName) -> Result<Name, DnsError> {
    Name::from_ascii(format!("{name}.")).map_err(|error| {
        DnsError::Refused(format!("no name server can be asked for {name}: {error}"))
    })
}

/// A question for all records of a type.
pub(super) fn question(name: Name, kind: RecordType, recursion: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = recursion;
    message.add_query(Query::query(name, kind));
    message
}

/// Sends a message and waits for the response, up to `patience` for each try.
pub(super) async fn query_server(
    server: SocketAddr,
    question: &Message,
    patience: Duration,
) -> Result<Answer, NoAnswer> {
    let sent = question
        .to_vec()
        .map_err(|error| NoAnswer::Nonsense(format!("the question is too long: {error}")))?;
    let late = match over_udp(server, question, &sent, patience).await {
        Ok(answer) if answer.message.truncation => false,
        Err(NoAnswer::Late(_)) => true,
        answer => return answer,
    };
    match timeout(patience, over_tcp(server, question, &sent)).await {
        Ok(Ok(answer)) => Ok(answer),
        // A refused TCP connection says less than the silence over UDP.
        Ok(Err(trouble)) if !late => Err(trouble),
        Ok(Err(_)) | Err(_) => Err(NoAnswer::Late(patience)),
    }
}

async fn over_udp(
    server: SocketAddr,
    question: &Message,
    sent: &[u8],
    patience: Duration,
) -> Result<Answer, NoAnswer> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Packets from others are dropped then, and a closed port is reported.
    socket.connect(server).await?;
    for _ in 0..DATAGRAMS {
        socket.send(sent).await?;
        // The response to the first may come after the second is sent.
        if let Ok(answer) = timeout(patience, receive(&socket, question)).await {
            return answer;
        }
    }
    Err(NoAnswer::Late(patience))
}

async fn receive(socket: &UdpSocket, question: &Message) -> Result<Answer, NoAnswer> {
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        // A forger may send anything: only a response to the question ends the wait.
        if let Some(answer) = read_answer(bytes)
            .ok()
            .filter(|answer| answer.is_to(question))
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Message, sent: &[u8]) -> Result<Answer, NoAnswer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(sent.len())
        .map_err(|_| NoAnswer::Nonsense("the question is too long".to_owned()))?;
    stream
        .write_all(&[&length.to_be_bytes()[..], sent].concat())
        .await?;
    let mut bytes = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut bytes).await?;
    let answer = read_answer(&bytes)?;
    if answer.is_to(question) {
        Ok(answer)
    } else {
        Err(NoAnswer::Nonsense("it is to another question".to_owned()))
    }
}

fn read_answer(bytes: &[u8]) -> Result<Answer, NoAnswer> {
    match Message::from_vec(bytes) {
        Ok(message) => Ok(Answer {
            message,
            bytes: bytes.to_vec(),
        }),
        Err(error) => Err(NoAnswer::Nonsense(error.to_string())),
    }
}

impl Answer {
    fn is_to(&self, question: &Message) -> bool {
        let message = &self.message;
        // An error, and any response to an update, may omit the question (RFC 2136, section 3.8).
        let may_be_bare =
            message.op_code == OpCode::Update || message.response_code != ResponseCode::NoError;
        message.id == question.id
            && message.message_type == MessageType::Response
            && message.op_code == question.op_code
            && (message.queries == question.queries || (may_be_bare && message.queries.is_empty()))
    }
}

/// The value of a TXT record, its parts joined.
pub(super) fn text(data: &RData) -> Option<String> {
    let RData::TXT(txt) = data else {
        return None;
    };
    Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned())
}

/// A response code as people know it.
pub(super) fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        ResponseCode::NotZone => "NOTZONE".to_owned(),
        other => format!("with the code {}", u16::from(other)),
    }
}
