//! What a CA limits, against a CA that does nothing else: pebble has no limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::X509;
use snigate::config::model::Profile;
use snigate::event::EventKind;
use snigate::schedule::{FailureClass, Scope};

use super::fixture::{Fixture, WebSolver, config};
use crate::support::{Ca, Port};

/// What it answers a new order with: status, headers, body.
#[derive(Clone, Copy)]
struct Refusal(&'static str, &'static str, &'static str);

/// A CA that takes accounts and refuses orders.
struct GrumpyCa {
    port: Port,
    root: tempfile::NamedTempFile,
    /// The orders that it was asked for.
    orders: Arc<Mutex<Vec<String>>>,
}

impl GrumpyCa {
    fn start(refusal: Refusal) -> Self {
        let port = Port::take();
        let ca = Ca::new("Grumpy");
        let leaf = ca.leaf(&["127.0.0.1"]).make();
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder
            .set_certificate(&X509::from_pem(leaf.chain.as_bytes()).unwrap())
            .unwrap();
        let key = PKey::private_key_from_pem(leaf.key.as_bytes()).unwrap();
        builder.set_private_key(&key).unwrap();
        let acceptor = Arc::new(builder.build());
        let listener = TcpListener::bind(port.address()).unwrap();
        let base = format!("https://{}", port.address());
        let orders: Arc<Mutex<Vec<String>>> = Arc::default();
        let asked = Arc::clone(&orders);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (acceptor, base) = (Arc::clone(&acceptor), base.clone());
                let asked = Arc::clone(&asked);
                thread::spawn(move || {
                    if let Ok(stream) = acceptor.accept(stream.unwrap()) {
                        serve(BufReader::new(stream), &base, refusal, &asked);
                    }
                });
            }
        });
        let mut root = tempfile::NamedTempFile::new().unwrap();
        root.write_all(ca.pem().as_bytes()).unwrap();
        Self { port, root, orders }
    }

    fn fixture(&self) -> Fixture {
        let directory = format!("https://{}/directory", self.port.address());
        let mut config = config(directory, self.root.path());
        config.order.profile = Some(Profile {
            name: "short".to_owned(),
            required: false,
        });
        Fixture::new(config, vec![WebSolver::start()])
    }

    fn orders(&self) -> usize {
        self.orders.lock().unwrap().len()
    }
}

fn serve(
    mut stream: BufReader<SslStream<std::net::TcpStream>>,
    base: &str,
    refusal: Refusal,
    asked: &Mutex<Vec<String>>,
) {
    let mut nonce = 0;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut head), Ok(read) if read > 0) {
                return;
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").map_or(0, |(_, rest)| {
            rest.lines().next().unwrap().trim().parse().unwrap()
        });
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let Refusal(status, headers, text) = match path {
            "/directory" => Refusal(
                "200 OK",
                "",
                r#"{"newNonce":"BASE/nonce","newAccount":"BASE/account","newOrder":"BASE/order"}"#,
            ),
            "/nonce" => Refusal("200 OK", "", ""),
            "/account" => Refusal("201 Created", "location: BASE/account/1\r\n", "{}"),
            _ => {
                asked
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&body).into_owned());
                refusal
            }
        };
        nonce += 1;
        let (headers, text) = (headers.replace("BASE", base), text.replace("BASE", base));
        let reply = format!(
            "HTTP/1.1 {status}\r\nreplay-nonce: {nonce}\r\ncontent-length: {}\r\n{headers}\r\n{text}",
            text.len()
        );
        stream.get_mut().write_all(reply.as_bytes()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_a_domain_stops_its_names_and_no_others() {
    let ca = GrumpyCa::start(Refusal(
        "429 Too Many Requests",
        "retry-after: 3600\r\n",
        r#"{"type":"urn:ietf:params:acme:error:rateLimited",
            "detail":"too many certificates (50) already issued for \"a.test\" in the last 168h"}"#,
    ));
    let fixture = ca.fixture();
    let mut events = fixture.events.subscribe();
    let failure = fixture.issue(&["www.a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::RateLimited, "{failure}");
    assert_eq!(failure.scope, Some(Scope::Domain("a.test".to_owned())));
    let until = failure.retry_after.unwrap();
    assert_eq!(ca.orders(), 1);
    // Its neighbour is not asked for, and learns until when.
    let failure = fixture.issue(&["mail.a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::RateLimited, "{failure}");
    assert_eq!(failure.retry_after, Some(until));
    assert_eq!(ca.orders(), 1, "the CA was not asked");
    // Another process knows.
    let next = Fixture::on(
        Arc::clone(&fixture.storage),
        {
            let directory = format!("https://{}/directory", ca.port.address());
            config(directory, ca.root.path())
        },
        vec![WebSolver::start()],
    );
    let failure = next.issue(&["c.a.test"]).await.err().unwrap();
    assert_eq!(failure.scope, Some(Scope::Domain("a.test".to_owned())));
    assert_eq!(ca.orders(), 1);
    fixture.issue(&["b.test"]).await.err().unwrap();
    assert_eq!(ca.orders(), 2, "others are asked for");
    // It has no profiles, and was asked for none.
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let is_limit = event.kind == EventKind::CaLimited;
        assert!(is_limit || event.kind == EventKind::CertificateProgress);
        told.push(event.message.clone());
    }
    assert!(
        told.iter()
            .any(|message| message.contains("profile \"short\"")),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_account_stops_all_names() {
    let ca = GrumpyCa::start(Refusal(
        "429 Too Many Requests",
        "retry-after: 60\r\n",
        r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many new orders"}"#,
    ));
    let fixture = ca.fixture();
    fixture.issue(&["a.test"]).await.err().unwrap();
    let failure = fixture.issue(&["b.test"]).await.err().unwrap();
    assert_eq!(
        (failure.class, failure.scope),
        (FailureClass::RateLimited, Some(Scope::Account))
    );
    assert!(
        failure.message.contains("too many new orders"),
        "what the CA said"
    );
    assert_eq!(ca.orders(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_shown_with_the_page_to_end_it() {
    let ca = GrumpyCa::start(Refusal(
        "429 Too Many Requests",
        "",
        r#"{"type":"urn:ietf:params:acme:error:rateLimited",
            "detail":"Your account is temporarily prevented from requesting certificates for a.test and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=x.y.z"}"#,
    ));
    let failure = ca.fixture().issue(&["a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Paused, "{failure}");
    assert_eq!(
        failure.url.as_deref(),
        Some("https://portal.letsencrypt.org/sfe/v1/unpause?jwt=x.y.z")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_overloaded_says_when_to_come_back() {
    let ca = GrumpyCa::start(Refusal(
        "503 Service Unavailable",
        "retry-after: 30\r\n",
        "<html>no JSON</html>",
    ));
    let fixture = ca.fixture();
    let failure = fixture.issue(&["a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Network, "{failure}");
    assert!(failure.retry_after.is_some());
    assert!(failure.message.contains("503"), "{failure}");
}
