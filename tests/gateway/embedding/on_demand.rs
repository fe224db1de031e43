//! Names that a function of the program allows, in handshakes without Pingora.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::x509::X509;
use snigate::storage::MemoryStorage;
use snigate::{Engine, EngineHandle, LocalCa, OnDemand};

use super::{pebble_issuer, root, serve, served, start, stop};
use crate::support::{Pebble, Port};

fn local_root(engine: &EngineHandle) -> X509 {
    let root = engine.local_root("internal").expect("a local CA");
    X509::from_pem(root.as_bytes()).expect("PEM")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_allows_and_refuses_names() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let asks = Arc::clone(&asked);
    let decide = OnDemand::decide(move |name| {
        asks.lock().expect("whole").push(name.to_string());
        async move {
            match name.as_str() {
                "broken.test" => Err("the database is away"),
                name => Ok(name.starts_with("good.")),
            }
        }
    });
    let engine = start(
        Engine::builder()
            .storage(MemoryStorage::default())
            .issuer("internal", LocalCa::builder())
            .on_demand(decide),
    )
    .await;
    let port = Port::take();
    let server = serve(&port, engine.acceptor().expect("an acceptor")).await;
    let root = local_root(&engine);
    for _ in 0..2 {
        let good = served(port.address(), "good.test", &root).await;
        assert_eq!(good, Ok(vec!["good.test".into()]));
        for host in ["bad.test", "broken.test"] {
            let refused = served(port.address(), host, &root).await;
            let refused = refused.expect_err("no certificate");
            assert!(refused.contains("unrecognized name"), "{refused}");
        }
    }
    stop(&engine).await;
    server.abort();
    // A decision is remembered. An error is none.
    let expected = ["good.test", "bad.test", "broken.test", "broken.test"];
    assert_eq!(*asked.lock().expect("whole"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_asked_while_the_client_waits() {
    let port = Port::take();
    let pebble = Pebble::builder().tls_port(port.number()).start();
    let engine = start(
        Engine::builder()
            .storage(MemoryStorage::default())
            .issuer("ca", pebble_issuer(&pebble))
            .on_demand(
                OnDemand::decide(|_| async { true })
                    .allow(["*.a.test"])
                    .max_wait(Duration::from_secs(60)),
            ),
    )
    .await;
    let server = serve(&port, engine.acceptor().expect("an acceptor")).await;
    let root = root(&pebble);
    let waited = served(port.address(), "b.a.test", &root).await;
    assert_eq!(waited, Ok(vec!["b.a.test".into()]));
    let refused = served(port.address(), "b.test", &root).await;
    assert!(refused.is_err(), "it is not allowed");
    stop(&engine).await;
    server.abort();
}

/// Its only thread cannot wait for what it does itself.
#[tokio::test]
async fn a_runtime_of_one_thread_serves_what_is_there() {
    let engine = start(
        Engine::builder()
            .storage(MemoryStorage::default())
            .issuer("internal", LocalCa::builder())
            .on_demand(OnDemand::names(["*.a.test"])),
    )
    .await;
    let port = Port::take();
    let server = serve(&port, engine.acceptor().expect("an acceptor")).await;
    let root = local_root(&engine);
    let mut last = Err("never asked".to_owned());
    for _ in 0..100 {
        last = served(port.address(), "b.a.test", &root).await;
        if last.is_ok() {
            break;
        }
    }
    assert_eq!(last, Ok(vec!["b.a.test".into()]));
    stop(&engine).await;
    server.abort();
}
