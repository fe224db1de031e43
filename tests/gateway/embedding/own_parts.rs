//! Issuers, DNS providers and solvers of the program's own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;
use snigate::challenge::{Challenge, ChallengeSolver};
use snigate::dns::{DnsError, DnsProvider, TxtRecord};
use snigate::host::HostName;
use snigate::issuer::{Failure, FailureClass, Issued, Issuer, Request};
use snigate::storage::MemoryStorage;
use snigate::{ChallengeType, DnsSettings, Engine, ManagedCertificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{covered, pebble_issuer, serve, served, start, stop};
use crate::support::{Ca, Pebble, Port};

/// A CA in this process.
struct Own {
    name: Arc<str>,
    ca: Ca,
    asked: Arc<Mutex<Vec<String>>>,
    stored: Arc<AtomicUsize>,
    fails: bool,
}

impl Own {
    fn new(name: &str, fails: bool) -> Self {
        Self {
            name: name.into(),
            ca: Ca::new("Own"),
            asked: Arc::default(),
            stored: Arc::default(),
            fails,
        }
    }
}

#[async_trait]
impl Issuer for Own {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ca(&self) -> &str {
        "own.example"
    }

    async fn issue(&self, request: &Request) -> Result<Issued, Failure> {
        self.asked.lock().expect("whole").push(request.domain());
        if self.fails {
            let why = "it does not want to";
            return Err(Failure::new(FailureClass::Network, why));
        }
        let names: Vec<String> = request.names.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let pair = self.ca.leaf(&names).make();
        Ok(Issued {
            chain: pair.chain.into_bytes(),
            key: pair.key.into_bytes().into(),
        })
    }

    async fn on_stored(&self, _: &Request) {
        self.stored.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_issuer_is_asked_and_what_it_gives_is_kept() {
    let storage = MemoryStorage::default();
    let (failing, own) = (Own::new("failing", true), Own::new("own", false));
    let root = own.ca.certificate().clone();
    let (first, asked, stored) = (
        Arc::clone(&failing.asked),
        Arc::clone(&own.asked),
        Arc::clone(&own.stored),
    );
    let names = ManagedCertificate::new(["a.test", "*.a.test"]).issuers(["failing", "own"]);
    let engine = start(
        Engine::builder()
            .storage(storage.clone())
            .issuer("failing", failing)
            .issuer("own", own)
            .certificate(names.clone()),
    )
    .await;
    covered(&engine).await;
    let port = Port::take();
    let server = serve(&port, engine.acceptor().expect("an acceptor")).await;
    let names_of = served(port.address(), "b.a.test", &root).await;
    assert_eq!(names_of, Ok(vec!["a.test".into(), "*.a.test".into()]));
    stop(&engine).await;
    server.abort();
    assert_eq!(*first.lock().expect("whole"), ["a.test"]);
    assert_eq!(*asked.lock().expect("whole"), ["a.test"]);
    assert_eq!(stored.load(Ordering::SeqCst), 1);

    // It is read from the storage at the next start, and nobody is asked.
    let again = Own::new("own", false);
    let asked = Arc::clone(&again.asked);
    let engine = start(
        Engine::builder()
            .storage(storage)
            .issuer("failing", Own::new("failing", true))
            .issuer("own", again)
            .certificate(names),
    )
    .await;
    assert!(engine.covers("*.a.test"));
    stop(&engine).await;
    assert!(asked.lock().expect("whole").is_empty());
}

/// Sets records in the CA's own name server.
struct TestServer {
    url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl TestServer {
    fn post(&self, path: &str, body: &serde_json::Value) -> Result<(), DnsError> {
        let url = format!("{}{path}", self.url);
        let reply = crate::support::curl(&url)
            .args(["--data", &body.to_string()])
            .try_send()
            .map_err(DnsError::Unreachable)?;
        assert_eq!(reply.status, 200, "{}", reply.text());
        Ok(())
    }
}

#[async_trait]
impl DnsProvider for TestServer {
    fn name(&self) -> &str {
        "test-server"
    }

    fn needs_zone(&self) -> bool {
        false
    }

    async fn add(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.log
            .lock()
            .expect("whole")
            .push(format!("add {}", record.name));
        let host = format!("{}.", record.name);
        self.post("/set-txt", &json!({ "host": host, "value": record.value }))
    }

    async fn remove(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.log
            .lock()
            .expect("whole")
            .push(format!("remove {}", record.name));
        let host = format!("{}.", record.name);
        self.post("/clear-txt", &json!({ "host": host }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_dns_provider_proves_a_wildcard_and_cleans_up() {
    let pebble = Pebble::builder().start();
    let log = Arc::default();
    let provider = TestServer {
        url: pebble.resolver_url(),
        log: Arc::clone(&log),
    };
    let engine = start(
        Engine::builder()
            .storage(MemoryStorage::default())
            .issuer(
                "ca",
                pebble_issuer(&pebble)
                    .check_caa(false)
                    .dns01(DnsSettings::own(provider).without_propagation_check()),
            )
            .manage(["*.a.test"]),
    )
    .await;
    covered(&engine).await;
    stop(&engine).await;
    let name = "_acme-challenge.a.test";
    let expected = [format!("add {name}"), format!("remove {name}")];
    assert_eq!(*log.lock().expect("whole"), expected);
}

/// Answers http-01 from a server of the program's own.
struct WebSolver {
    answers: Arc<Mutex<HashMap<String, String>>>,
    presented: Arc<AtomicUsize>,
}

#[async_trait]
impl ChallengeSolver for WebSolver {
    fn kind(&self) -> ChallengeType {
        ChallengeType::Http01
    }

    async fn present(&self, challenge: &Challenge) -> Result<(), Failure> {
        self.presented.fetch_add(1, Ordering::SeqCst);
        let (token, answer) = (challenge.token.clone(), challenge.key_authorization.clone());
        self.answers.lock().expect("whole").insert(token, answer);
        Ok(())
    }

    async fn clean_up(&self, challenge: &Challenge) {
        self.answers.lock().expect("whole").remove(&challenge.token);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_solver_goes_before_the_engines() {
    let port = Port::take();
    let pebble = Pebble::builder().http_port(port.number()).start();
    let answers: Arc<Mutex<HashMap<String, String>>> = Arc::default();
    let presented = Arc::default();
    let solver = WebSolver {
        answers: Arc::clone(&answers),
        presented: Arc::clone(&presented),
    };
    let listener = TcpListener::bind(port.address())
        .await
        .expect("a free port");
    let visible = Arc::clone(&answers);
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let token = path.rsplit('/').next().unwrap_or_default();
            let answer = visible.lock().expect("whole").get(token).cloned();
            let body = answer.unwrap_or_default();
            let response = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    let issuer = pebble_issuer(&pebble).challenges([ChallengeType::Http01]);
    let engine = start(
        Engine::builder()
            .storage(MemoryStorage::default())
            .issuer("ca", issuer)
            .challenge_solver(solver)
            .manage(["a.test"]),
    )
    .await;
    covered(&engine).await;
    stop(&engine).await;
    server.abort();
    assert!(presented.load(Ordering::SeqCst) > 0);
    assert!(
        answers.lock().expect("whole").is_empty(),
        "it is cleaned up"
    );
}
