//! Everything that the library door is for, in a few lines each, against real CAs. The environment
//! says where they are.

#![cfg(test)]

#[expect(dead_code, reason = "its main function is not called here")]
mod custom_storage;

use std::env::var;
use std::io::{Read as _, Write as _};
use std::net::TcpStream as Blocking;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use openssl::ssl::{Ssl, SslConnector, SslMethod};
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use snigate::dns::{DnsError, DnsProvider, TxtRecord};
use snigate::event::EventKind;
use snigate::host::HostName;
use snigate::storage::MemoryStorage;
use snigate::{AcmeIssuer, AcmeIssuerBuilder, DnsSettings, Engine, EngineHandle, OnDemand};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

use custom_storage::Database;

fn environment(ca: &str, what: &str) -> String {
    var(format!("{ca}_{what}")).unwrap()
}

fn issuer(ca: &str) -> AcmeIssuerBuilder {
    AcmeIssuer::builder()
        .directory(&environment(ca, "DIRECTORY"))
        .root_certificates(environment(ca, "ROOTS"))
}

async fn covered(engine: &EngineHandle) {
    let covered = tokio::time::timeout(Duration::from_secs(90), engine.wait_until_covered());
    covered.await.expect("a certificate in time");
}

/// What a client gets that believes nobody but the CA.
fn get(ca: &str, host: &str) -> Result<String, String> {
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_ca_file(environment(ca, "ROOT")).unwrap();
    let stream = Blocking::connect(environment(ca, "ADDRESS")).map_err(|error| error.to_string())?;
    let mut tls = builder
        .build()
        .connect(host, stream)
        .map_err(|error| error.to_string())?;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    // The end of TLS may be missing.
    let _ = tls.read_to_string(&mut response);
    Ok(response)
}

fn until_got(ca: &str, host: &str) -> String {
    for _ in 0..600 {
        if let Ok(response) = get(ca, host) {
            return response;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    get(ca, host).expect("it is served in time")
}

#[test]
fn the_own_storage_keeps_the_contract() {
    use snigate::storage::conformance::{Backend, assert_conformance};

    let database = Database::default();
    assert_conformance(&Backend {
        one: Arc::new(database.clone()),
        other: Arc::new(database.clone()),
        usurp: &|key| drop(database.0.lock().unwrap().leases.remove(key)),
    });
}

/// By tokio, with an own storage, a decision function and an event callback.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_served_by_tokio() {
    let events: Arc<Mutex<Vec<EventKind>>> = Arc::default();
    let kept = Arc::clone(&events);
    let database = Database::default();
    let engine = Engine::builder()
        .storage(database.clone())
        .issuer("ca", issuer("TOKIO"))
        .manage(["a.test"])
        .on_demand(OnDemand::decide(|name| async move { name.as_str() == "customer.test" }))
        .on_event(move |event| kept.lock().unwrap().push(event.kind))
        .start()
        .await
        .unwrap();
    let acceptor = engine.acceptor().unwrap();
    let listener = TcpListener::bind(environment("TOKIO", "ADDRESS")).await.unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut tls = SslStream::new(Ssl::new(acceptor.context()).unwrap(), stream).unwrap();
            tokio::spawn(async move {
                if Pin::new(&mut tls).accept().await.is_ok() {
                    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n\r\nby tokio").await;
                    let _ = tls.shutdown().await;
                }
            });
        }
    });
    covered(&engine).await;
    let client = tokio::task::spawn_blocking(|| {
        assert!(get("TOKIO", "a.test").unwrap().ends_with("by tokio"));
        assert!(until_got("TOKIO", "customer.test").ends_with("by tokio"));
        assert!(get("TOKIO", "stranger.test").is_err());
    });
    client.await.unwrap();
    engine.stop().await;
    server.abort();
    assert!(events.lock().unwrap().contains(&EventKind::CertificateObtained));
    assert!(!database.0.lock().unwrap().values.is_empty());
}

struct Proxy(String);

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&*self.0, false, String::new())))
    }
}

#[test]
fn certificates_are_served_by_pingora() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let provider = DnsSettings::own(TestServer(environment("PINGORA", "DNS")));
    let provider = provider.without_propagation_check();
    let engine = Engine::builder()
        .storage(MemoryStorage::default())
        .issuer("ca", issuer("PINGORA").check_caa(false).dns01(provider))
        .manage(["a.test"])
        .start();
    let engine = runtime.block_on(engine).unwrap();
    let server = Server::new_with_opt_and_conf(None, ServerConf::default());
    let proxy = Proxy(var("ORIGIN").unwrap());
    let mut service = http_proxy_service(&server.configuration, proxy);
    let settings = engine.tls_settings().unwrap();
    service.add_tls_with_settings(&environment("PINGORA", "ADDRESS"), None, settings);
    std::thread::spawn(move || {
        let mut server = server;
        server.add_service(service);
        server.run_forever();
    });
    assert!(until_got("PINGORA", "a.test").ends_with("the origin"));
    runtime.block_on(engine.stop());
}

/// Sets records in the CA's own name server.
struct TestServer(String);

impl TestServer {
    async fn post(&self, path: &str, body: String) -> Result<(), DnsError> {
        let away = |error: std::io::Error| DnsError::Unreachable(error.to_string());
        let length = body.len();
        let request = format!("POST {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
        let mut stream = tokio::net::TcpStream::connect(&self.0).await.map_err(away)?;
        stream.write_all(request.as_bytes()).await.map_err(away)?;
        let mut response = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut response)
            .await
            .map_err(away)?;
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
        let (name, value) = (&record.name, &record.value);
        let body = format!(r#"{{ "host": "{name}.", "value": "{value}" }}"#);
        self.post("/set-txt", body).await
    }

    async fn remove(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        let body = format!(r#"{{ "host": "{}." }}"#, record.name);
        self.post("/clear-txt", body).await
    }
}

#[tokio::test]
async fn an_own_dns_provider_proves_a_wildcard() {
    let provider = DnsSettings::own(TestServer(environment("TOKIO", "DNS")));
    let ca = issuer("TOKIO").check_caa(false);
    let engine = Engine::builder()
        .storage(MemoryStorage::default())
        .issuer("ca", ca.dns01(provider.without_propagation_check()))
        .manage(["*.wild.test"])
        .start()
        .await
        .unwrap();
    covered(&engine).await;
    engine.stop().await;
}
