//! Gateways that share a storage: whichever the CA happens to reach.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    RETRY, config, fake_issuer, issued, orders, pebble_issuer, presented, press, root, serial,
    sites, wait_until_served,
};
use crate::support::{Builder, CaReply, FakeCa, Gateway, Pebble, within};

/// A gateway that keeps its data there.
fn sharing(builder: Builder, data: &std::path::Path, yaml: &str) -> Gateway {
    let mut text = yaml.to_owned();
    let _ = writeln!(text, "storage: {{ file: {{ path: {data:?} }} }}");
    builder.config(text).spawn()
}

/// The CA reaches a gateway that knows nothing of the site.
fn answered_by_another(challenge: &str) {
    let shared = tempfile::tempdir().expect("a directory");
    let data = shared.path().join("data");
    let (ordering, answering) = (Gateway::builder(), Gateway::builder());
    let pebble = Pebble::builder()
        .http_port(answering.http().port())
        .tls_port(answering.https().port())
        .start();
    let issuer = pebble_issuer(&pebble, &format!("challenges: [{challenge}]"));
    let other = sharing(
        answering,
        &data,
        &format!(
            "issuers:\n{issuer}{}",
            sites(&["other.test"]).replace("hosts:", "tls: off, hosts:")
        ),
    );
    within(RETRY, "the other gateway", || {
        std::net::TcpStream::connect(other.admin).ok()?;
        other.waiting().is_empty().then_some(())
    });
    let mut gateway = sharing(ordering, &data, &config(&issuer, &["a.test"]));
    wait_until_served(&gateway, "a.test", &root(&pebble));
    gateway.wait_until_ready();
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
    assert_eq!(orders(&pebble), 1);
}

#[test]
fn http_01_is_answered_by_another_gateway() {
    answered_by_another("http-01");
}

#[test]
fn tls_alpn_01_is_answered_by_another_gateway() {
    answered_by_another("tls-alpn-01");
}

/// What one gateway has reported is over when another has obtained the certificate.
#[test]
fn a_failure_is_over_when_another_gateway_has_the_certificate() {
    let shared = tempfile::tempdir().expect("a directory");
    let data = shared.path().join("data");
    let is_open = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&is_open);
    let fake = FakeCa::start(move |ask| {
        let is_refused = ask.kind == "order" && !open.load(Ordering::Relaxed);
        is_refused.then(|| CaReply::problem(403, "rejectedIdentifier", "not now"))
    });
    let yaml = config(&fake_issuer(&fake), &["a.test"]);
    let one = sharing(Gateway::builder(), &data, &yaml);
    one.wait_for_event("a failure", |event| {
        event.is("certificate_failed", "a.test")
    });
    is_open.store(true, Ordering::Relaxed);
    let two = sharing(Gateway::builder(), &data, &yaml);
    within(RETRY, "the other gateway", || {
        std::net::TcpStream::connect(two.admin).ok()
    });
    press(&two, "a.test");
    wait_until_served(&two, "a.test", fake.root().certificate());
    press(&one, "a.test");
    one.wait_for_event("the end", |event| {
        event.is("certificate_recovered", "a.test") && event.reason.as_deref() == Some("issuance")
    });
}

/// A failure of a name that is no longer configured is over.
#[test]
fn a_failure_is_over_when_its_name_is_no_longer_configured() {
    let fake = FakeCa::start(|ask| {
        let refusal = CaReply::problem(403, "rejectedIdentifier", "not now");
        (ask.kind == "order" && ask.names == ["a.test"]).then_some(refusal)
    });
    let yaml = |hosts: &[&str]| config(&fake_issuer(&fake), hosts);
    let mut gateway = Gateway::builder()
        .config(yaml(&["a.test", "b.test"]))
        .spawn();
    gateway.wait_for_event("a failure", |event| {
        event.is("certificate_failed", "a.test")
    });
    gateway.replace_config(yaml(&["b.test"]));
    within(RETRY, "a reload", || {
        std::net::TcpStream::connect(gateway.admin).ok()?;
        (gateway.reload().0 == 200).then_some(())
    });
    gateway.wait_for_event("the end", |event| {
        event.is("certificate_recovered", "a.test") && event.reason.as_deref() == Some("issuance")
    });
    wait_until_served(&gateway, "b.test", fake.root().certificate());
    assert_eq!(gateway.count("certificate_recovered", "b.test"), 0);
}

/// Two gateways with the same sites: each certificate is obtained once, and both serve it; so is
/// each renewal.
#[test]
fn two_gateways_obtain_each_certificate_once() {
    let shared = tempfile::tempdir().expect("a directory");
    let data = shared.path().join("data");
    let hosts = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    let (one, two) = (Gateway::builder(), Gateway::builder());
    let pebble = Pebble::builder()
        .http_port(one.http().port())
        .tls_port(two.https().port())
        .validity(40)
        .start();
    let yaml = config(&pebble_issuer(&pebble, ""), &hosts);
    let one = sharing(one, &data, &yaml);
    let two = sharing(two, &data, &yaml);
    let root = root(&pebble);
    for host in hosts {
        wait_until_served(&one, host, &root);
        wait_until_served(&two, host, &root);
    }
    assert_eq!(issued(&pebble), hosts.len(), "each once");
    assert_eq!(super::accounts_made(&pebble), 1);
    for host in hosts {
        within(RETRY, "the same certificate at both", || {
            (serial(&presented(&one, host)) == serial(&presented(&two, host))).then_some(())
        });
    }
    // One goes; the other renews alone.
    drop(one);
    let before = serial(&presented(&two, hosts[0]));
    within(RETRY, "a renewal", || {
        (serial(&presented(&two, hosts[0])) != before).then_some(())
    });
}

/// The one that orders dies while it holds the lock; the other takes over.
#[test]
fn another_gateway_takes_over_from_a_dead_one() {
    use crate::support::{Relay, Switch};
    let shared = tempfile::tempdir().expect("a directory");
    let data = shared.path().join("data");
    let (one, two) = (Gateway::builder(), Gateway::builder());
    let looking = Relay::to(two.http(), Switch::Hold);
    let pebble = Pebble::builder().http_port(looking.port()).start();
    let yaml = config(
        &pebble_issuer(&pebble, "challenges: [http-01]"),
        &["a.test"],
    );
    let mut one = sharing(one, &data, &yaml);
    within(RETRY, "the CA to look", || {
        (looking.connections() > 0).then_some(())
    });
    let two = sharing(two, &data, &yaml);
    two.wait_until_waiting_for("a.test");
    assert_eq!(orders(&pebble), 1, "one of them orders");
    one.kill();
    looking.turn(Switch::Pass);
    wait_until_served(&two, "a.test", &root(&pebble));
    assert_eq!(orders(&pebble), 1, "it continues the order of the dead one");
    assert_eq!(super::accounts_made(&pebble), 1);
}
