//! Renewals while clients come and go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use openssl::x509::X509;

use super::{
    RETRY, SECOND, config, issuer, pebble_for, pebble_issuer, presented, root, serial, try_served,
    wait_until_served,
};
use crate::support::{Gateway, Relay, Switch, TlsClient, within};

/// Clients that shake hands without end, as many as there are threads.
struct Load {
    stop: Arc<AtomicBool>,
    handshakes: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    serials: Arc<Mutex<BTreeSet<String>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn begin(gateway: &Gateway, host: &'static str, root: &X509, threads: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            handshakes: Arc::default(),
            failures: Arc::default(),
            serials: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let (stop, handshakes) = (Arc::clone(&load.stop), Arc::clone(&load.handshakes));
            let (failures, serials) = (Arc::clone(&load.failures), Arc::clone(&load.serials));
            let (root, address) = (root.clone(), gateway.https);
            load.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let client = TlsClient::named(host).trusting(&root).alpn(&["http/1.1"]);
                    handshakes.fetch_add(1, Ordering::Relaxed);
                    match client.try_connect(address) {
                        Ok(mut stream) => {
                            let serial = serial(&stream.certificate());
                            serials.lock().expect("not poisoned").insert(serial);
                            let reply = stream.get(host, "/");
                            if reply.status != 200 {
                                let mut failures = failures.lock().expect("not poisoned");
                                failures.push(format!("status {}", reply.status));
                            }
                        }
                        Err(error) => failures.lock().expect("not poisoned").push(error),
                    }
                    // A client's pause, so that the gateway and the CA have the core too.
                    thread::sleep(SECOND / 100);
                }
            }));
        }
        load
    }

    fn end(self) -> (usize, Vec<String>, BTreeSet<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it does not panic");
        }
        let failures = self.failures.lock().expect("not poisoned").clone();
        let serials = self.serials.lock().expect("not poisoned").clone();
        (self.handshakes.load(Ordering::Relaxed), failures, serials)
    }
}

/// Certificates live 20 seconds instead of 60, so that ten renewals take two minutes and not five:
/// it is harder on the gateway, not easier.
#[test]
fn ten_renewals_in_a_row_lose_no_handshake() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).validity(20).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    wait_until_served(&gateway, "a.test", &root);
    gateway.wait_until_ready();
    let start = Instant::now();
    let load = Load::begin(&gateway, "a.test", &root, 2);
    within(SECOND * 200, "ten renewals", || {
        (gateway.count("certificate_renewed", "a.test") >= 10).then_some(())
    });
    let last = serial(&presented(&gateway, "a.test"));
    within(SECOND * 5, "a client to see the last one", || {
        let seen = load.serials.lock().expect("not poisoned");
        seen.contains(&last).then_some(())
    });
    let took = start.elapsed();
    let (handshakes, failures, serials) = load.end();
    eprintln!(
        "{handshakes} handshakes in {took:?}, {} failed, {} certificates seen",
        failures.len(),
        serials.len()
    );
    assert!(failures.is_empty(), "{failures:?}");
    let log = pebble.log();
    let issued: BTreeSet<String> = log
        .lines()
        .filter_map(|line| line.split("Issued certificate serial ").nth(1))
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect();
    let unseen: Vec<_> = issued
        .iter()
        .filter(|serial| {
            !serials
                .iter()
                .any(|seen| seen.trim_start_matches('0') == serial.trim_start_matches('0'))
        })
        .collect();
    // One may have been issued since the clients stopped to look.
    assert!(unseen.len() <= 1, "issued and never seen: {unseen:?}");
    assert!((11..=12).contains(&issued.len()), "{} issued", issued.len());
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
    assert_eq!(gateway.waiting(), Vec::<String>::new());
}

/// From the first failed renewal past the end of the certificate, and back.
#[test]
fn a_renewal_that_fails_leaves_the_old_certificate() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).validity(24).start();
    let api = pebble
        .directory()
        .trim_start_matches("https://")
        .trim_end_matches("/dir")
        .parse()
        .expect("an address");
    let relay = Relay::to(api, Switch::Pass);
    let directory = format!("https://{}/dir", relay.address());
    let issuer = issuer("pebble", &directory, pebble.ca_file(), "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    let old = serial(&wait_until_served(&gateway, "a.test", &root));
    gateway.wait_until_ready();
    relay.turn(Switch::Gone);

    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(
        (failed.severity.as_str(), failed.attempt),
        ("warning", Some(1)),
        "{failed:?}"
    );
    assert!(
        failed.not_after.is_some() && failed.next.is_some(),
        "{failed:?}"
    );
    assert_eq!(
        serial(&presented(&gateway, "a.test")),
        old,
        "the old one stays in force"
    );
    assert!(try_served(&gateway, "a.test", &root).is_ok());
    assert_eq!(gateway.waiting(), Vec::<String>::new(), "it is served");

    // It grows worse with the time that is left.
    let of = |severity: &'static str| {
        move |event: &crate::support::Event| {
            event.domain == "a.test"
                && event.severity == severity
                && ["certificate_failed", "certificate_expiring"].contains(&event.kind.as_str())
        }
    };
    let error = gateway.wait_for_event("error", of("error"));
    assert_eq!(error.level, "ERROR", "{error:?}");
    assert!(
        try_served(&gateway, "a.test", &root).is_ok(),
        "before its end"
    );
    gateway.wait_for_event("critical", of("critical"));

    let expired =
        gateway.wait_for_event("expired", |event| event.is("certificate_expired", "a.test"));
    assert_eq!(expired.severity, "critical", "{expired:?}");
    assert_eq!(
        serial(&presented(&gateway, "a.test")),
        old,
        "better than none"
    );

    relay.turn(Switch::Pass);
    let new = wait_until_served(&gateway, "a.test", &root);
    assert_ne!(serial(&new), old);
    gateway.wait_until_ready();
    gateway.wait_for_event("renewed", |event| event.is("certificate_renewed", "a.test"));
    let wrong: Vec<_> = gateway
        .events()
        .into_iter()
        .filter(|event| event.kind == "certificate_expired")
        .collect();
    assert_eq!(wrong.len(), 1, "told once: {wrong:?}");
}

/// By default each certificate has a key of its own; on request they share it.
#[test]
fn keys_are_new_unless_they_are_to_be_kept() {
    for (keys, same) in [("", false), ("reuse_key: true", true)] {
        let builder = Gateway::builder();
        let pebble = pebble_for(&builder).validity(10).start();
        let issuer = pebble_issuer(&pebble, keys);
        let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
        let first = wait_until_served(&gateway, "a.test", &root(&pebble));
        let second = within(RETRY, "a renewal", || {
            let now = presented(&gateway, "a.test");
            (serial(&now) != serial(&first)).then_some(now)
        });
        let key = |certificate: &X509| {
            let key = certificate.public_key().expect("a key");
            key.public_key_to_der().expect("a key")
        };
        assert_eq!(key(&first) == key(&second), same, "{keys:?}");
    }
}
