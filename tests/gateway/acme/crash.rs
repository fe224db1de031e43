//! The gateway is killed in the middle of things, and continues where it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::{
    RETRY, config, fake_issuer, issued, orders, pebble_for, pebble_issuer, root, wait_until_served,
};
use crate::support::{Ask, CaReply, FakeCa, Gateway, Pebble, Relay, Switch, within};

const HOSTS: [&str; 5] = ["a.test", "b.test", "c.test", "d.test", "e.test"];

#[test]
fn orders_are_finished_after_a_crash() {
    let builder = Gateway::builder();
    let looking = Relay::to(builder.http(), Switch::Hold);
    let pebble = Pebble::builder().http_port(looking.port()).start();
    let issuer = pebble_issuer(&pebble, "challenges: [http-01]");
    let mut gateway = builder.config(config(&issuer, &HOSTS)).spawn();
    within(RETRY, "the CA to look at every name", || {
        // Three times at each.
        (looking.connections() >= 3 * HOSTS.len()).then_some(())
    });
    gateway.kill();
    gateway.restart_unready();
    within(RETRY, "the gateway", || {
        std::net::TcpStream::connect(gateway.http).ok()
    });
    looking.turn(Switch::Pass);
    let root = root(&pebble);
    for host in HOSTS {
        wait_until_served(&gateway, host, &root);
    }
    assert_eq!(orders(&pebble), HOSTS.len(), "no second order");
    assert_eq!(issued(&pebble), HOSTS.len());
    assert_eq!(super::accounts_made(&pebble), 1);
    gateway.wait_until_ready();
    gateway.restart();
    assert_eq!(orders(&pebble), HOSTS.len());
}

/// Killed at moments of chance, again and again.
#[test]
fn killed_again_and_again() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &HOSTS)).spawn();
    let rounds = 8;
    for _ in 0..rounds {
        thread::sleep(Duration::from_millis(fastrand::u64(50..700)));
        gateway.restart_unready();
    }
    let root = root(&pebble);
    for host in HOSTS {
        wait_until_served(&gateway, host, &root);
    }
    gateway.wait_until_ready();
    let orders = orders(&pebble);
    eprintln!(
        "{orders} orders for {} names and {rounds} kills",
        HOSTS.len()
    );
    // What is lost is an order whose answer was still under way.
    assert!(orders <= HOSTS.len() + 3 * rounds, "{orders} orders");
    assert!(
        issued(&pebble) <= HOSTS.len() + rounds,
        "{}",
        issued(&pebble)
    );
    assert_eq!(
        gateway.count("certificate_failed", "a.test"),
        0,
        "a crash is no failure of the CA"
    );
}

/// A CA that stops at one of its answers until it is let go.
struct Stopping {
    ca: FakeCa,
    reached: Arc<AtomicBool>,
    go: Arc<(Mutex<bool>, Condvar)>,
}

fn stopping_at(kind: &'static str) -> Stopping {
    let reached = Arc::new(AtomicBool::new(false));
    let go = Arc::new((Mutex::new(false), Condvar::new()));
    let (reach, wait) = (Arc::clone(&reached), Arc::clone(&go));
    let ca = FakeCa::start(move |ask: &Ask| {
        if ask.kind == kind && ask.number == 0 {
            reach.store(true, Ordering::SeqCst);
            let gone = wait.0.lock().expect("not poisoned");
            let _gone = wait
                .1
                .wait_timeout_while(gone, RETRY, |gone| !*gone)
                .expect("not poisoned");
        }
        None::<CaReply>
    });
    Stopping { ca, reached, go }
}

/// Killed while the CA is at one step.
fn killed_at(kind: &'static str) {
    let stopping = stopping_at(kind);
    let mut gateway = Gateway::builder()
        .config(config(&fake_issuer(&stopping.ca), &["a.test"]))
        .spawn();
    within(RETRY, kind, || {
        stopping.reached.load(Ordering::SeqCst).then_some(())
    });
    gateway.kill();
    *stopping.go.0.lock().expect("not poisoned") = true;
    stopping.go.1.notify_all();
    gateway.restart_unready();
    wait_until_served(&gateway, "a.test", stopping.ca.root().certificate());
    gateway.wait_until_ready();
    assert_eq!(stopping.ca.asked("order").len(), 1, "no second order");
    assert_eq!(stopping.ca.asked("account").len(), 1, "no second account");
}

#[test]
fn killed_before_the_validation() {
    killed_at("authz");
}

#[test]
fn killed_while_the_ca_issues() {
    killed_at("finalize");
}

#[test]
fn killed_before_the_certificate_came() {
    killed_at("cert");
}

#[test]
fn an_attempt_that_failed_is_not_forgotten_by_a_restart() {
    let ca = FakeCa::start(|ask| {
        (ask.kind == "order")
            .then(|| CaReply::problem(403, "rejectedIdentifier", "policy forbids this name"))
    });
    let mut gateway = Gateway::builder()
        .config(config(&fake_issuer(&ca), &["a.test"]))
        .spawn();
    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert!(
        failed.message.contains("policy forbids this name"),
        "{failed:?}"
    );
    let next = failed.next.expect("a next try");
    let until = next.duration_since(jiff::Timestamp::now()).as_secs();
    assert!(until >= 1800, "a person has to act first: {until} s");
    let asked = ca.asked("order").len();
    assert_eq!(asked, 1);
    for _ in 0..2 {
        gateway.restart_unready();
        let reason = gateway.wait_until_waiting_for("a.test");
        within(RETRY, "the reason", || {
            gateway
                .waiting()
                .iter()
                .any(|reason| reason.contains("policy forbids this name"))
                .then_some(())
        });
        eprintln!("{reason}");
    }
    // Two checks later still nobody has been asked.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(
        ca.asked("order").len(),
        asked,
        "a restart costs the CA nothing"
    );
}
