//! What the builder starts, and how it ends.

use std::sync::{Arc, Mutex};

use snigate::clock::{ManualClock, UnixTime};
use snigate::event::EventKind;
use snigate::storage::{FileStorage, Key, MemoryStorage, Storage};
use snigate::{Engine, LocalCa, ManagedCertificate};
use tokio::runtime::Handle;

use super::{covered, engine_at, pebble_issuer, root, serve, served, start, stop};
use crate::support::{Ca, Pebble, Port, within};

/// Waits until no more tasks live than `count`.
fn wait_for_tasks(count: usize) {
    let handle = Handle::current();
    within(crate::support::PATIENCE, "the tasks to end", || {
        (handle.metrics().num_alive_tasks() <= count).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_obtained_served_and_kept() {
    let port = Port::take();
    let pebble = Pebble::builder().tls_port(port.number()).start();
    let storage = MemoryStorage::default();
    let build = || {
        Engine::builder()
            .storage(storage.clone())
            .issuer("ca", pebble_issuer(&pebble))
            .manage(["a.test"])
            .certificate(ManagedCertificate::new(["b.test", "c.test"]).issuers(["ca"]))
    };
    let engine = start(build()).await;
    let server = serve(&port, engine.acceptor().expect("an acceptor")).await;
    covered(&engine).await;
    let root = root(&pebble);
    assert_eq!(
        served(port.address(), "a.test", &root).await,
        Ok(vec!["a.test".into()])
    );
    let two = vec!["b.test".to_owned(), "c.test".to_owned()];
    assert_eq!(served(port.address(), "c.test", &root).await, Ok(two));
    assert!(served(port.address(), "d.test", &root).await.is_err());
    stop(&engine).await;
    // Handshakes continue without the loops.
    assert!(served(port.address(), "a.test", &root).await.is_ok());
    server.abort();

    // A later start has them at once: the CA is gone.
    drop((engine, pebble.directory()));
    let engine = start(build()).await;
    assert!(engine.covers("a.test") && engine.covers("b.test"));
    stop(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_every_task_and_another_start_works() {
    let directory = tempfile::tempdir().expect("a directory");
    let build = || {
        Engine::builder()
            .storage(FileStorage::new(directory.path().join("certs")))
            .issuer("internal", LocalCa::builder())
            .manage(["a.test"])
            .on_event(|_| {})
    };
    let before = Handle::current().metrics().num_alive_tasks();
    for _ in 0..2 {
        let engine = start(build()).await;
        covered(&engine).await;
        let mut events = engine.events();
        assert!(Handle::current().metrics().num_alive_tasks() > before);
        stop(&engine).await;
        // The runtime counts a task until a moment after its end.
        wait_for_tasks(before);
        assert!(events.next().await.is_none(), "the stream ends");
        stop(&engine).await;
    }
    // Dropping the handle stops them too.
    drop(start(build()).await);
    wait_for_tasks(before);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_by_callback_and_by_stream() {
    let port = Port::take();
    let pebble = Pebble::builder().tls_port(port.number()).start();
    let called: Arc<Mutex<Vec<EventKind>>> = Arc::default();
    let calls = Arc::clone(&called);
    let builder = engine_at(&pebble, &["a.test"]).on_event(move |event| {
        calls.lock().expect("whole").push(event.kind);
    });
    let engine = start(builder).await;
    let mut events = engine.events();
    let server = serve(&port, engine.acceptor().expect("an acceptor")).await;
    covered(&engine).await;
    let obtained = loop {
        let event = events.next().await.expect("the engine runs");
        if event.kind == EventKind::CertificateObtained {
            break event;
        }
    };
    assert_eq!(obtained.domain, "a.test");
    assert_eq!(obtained.issuer.as_deref(), Some("ca"));
    stop(&engine).await;
    // The callback has had all of them when the engine has stopped.
    let called = called.lock().expect("whole").clone();
    for kind in [
        EventKind::CertificateObtaining,
        EventKind::CertificateObtained,
    ] {
        assert!(called.contains(&kind), "{called:?}");
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_files_are_served_and_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let ca = Ca::new("Files");
    let (cert, key) = ca.leaf(&["a.test"]).make().write(directory.path(), "a");
    let engine = start(
        Engine::builder()
            .storage(MemoryStorage::default())
            .certificate_files(&cert, &key)
            .default_certificate("a.test"),
    )
    .await;
    let port = Port::take();
    let server = serve(&port, engine.acceptor().expect("an acceptor")).await;
    let served = || served(port.address(), "a.test", ca.certificate());
    assert_eq!(served().await, Ok(vec!["a.test".into()]));
    ca.leaf(&["a.test", "b.test"])
        .make()
        .write(directory.path(), "a");
    let both = Ok(vec!["a.test".to_owned(), "b.test".to_owned()]);
    let mut last = served().await;
    for _ in 0..300 {
        if last == both {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        last = served().await;
    }
    assert_eq!(last, both);
    stop(&engine).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_that_of_the_clock() {
    const YEAR: i64 = 365 * 86_400;
    let now = 1_900_000_000;
    let clock = Arc::new(ManualClock::at(UnixTime::from_secs(now)));
    let storage = MemoryStorage::with_clock(clock.clone());
    let engine = start(
        Engine::builder()
            .storage(storage.clone())
            .clock(clock.clone())
            .issuer("internal", LocalCa::builder().common_name("Tomorrow's CA"))
            .manage(["a.test"]),
    )
    .await;
    covered(&engine).await;
    stop(&engine).await;
    let root = engine.local_root("internal").expect("a local CA");
    let root = openssl::x509::X509::from_pem(root.as_bytes()).expect("PEM");
    let began = openssl::asn1::Asn1Time::from_unix(now + YEAR).expect("a time");
    assert!(
        root.not_before() < &*began && root.not_after() > &*began,
        "{root:?}"
    );
    let earlier = openssl::asn1::Asn1Time::from_unix(now - YEAR).expect("a time");
    assert!(root.not_before() > &*earlier);
    let keys: Vec<Key> = storage
        .list(&"local_ca".parse().expect("a key"))
        .expect("readable");
    assert!(!keys.is_empty(), "the root is in the storage");
}
