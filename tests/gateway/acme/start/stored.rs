//! Stored certificates: served without the CA, and reported or replaced where they are bad.

use openssl::x509::X509;

use super::{Switched, stored};
use crate::acme::{config, insist, orders, presented, root, serial, stored_at, wait_until_served};
use crate::support::{Gateway, Pair, ROOT, Switch, TlsClient};

#[test]
fn a_stored_certificate_is_served_without_the_ca() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let fresh = ROOT.leaf(&["fresh.test"]).valid(-1, 89).make();
    let due = ROOT.leaf(&["due.test"]).valid(-80, 10).make();
    stored(&builder, &ca, "fresh.test", &fresh);
    stored(&builder, &ca, "due.test", &due);
    let gateway = builder
        .config(config(&ca.issuer(), &["fresh.test", "due.test"]))
        .start();
    for (host, pair) in [("fresh.test", &fresh), ("due.test", &due)] {
        assert_eq!(
            serial(&presented(&gateway, host)),
            serial(&pair.certificate)
        );
        gateway.wait_for_event("loaded", |event| event.is("certificate_loaded", host));
    }
    let failed =
        gateway.wait_for_event("failed", |event| event.is("certificate_failed", "due.test"));
    assert_eq!(failed.severity, "warning", "{failed:?}");
    assert_eq!(gateway.count("certificate_failed", "fresh.test"), 0);
    assert_eq!(gateway.waiting(), Vec::<String>::new());

    ca.way.turn(Switch::Pass);
    insist(&gateway, "due.test", &root(&ca.pebble));
    assert_eq!(
        serial(&presented(&gateway, "fresh.test")),
        serial(&fresh.certificate)
    );
    assert_eq!(orders(&ca.pebble), 1);
}

#[test]
fn a_stored_certificate_that_has_expired_is_told() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let old = ROOT.leaf(&["a.test"]).expired().make();
    stored(&builder, &ca, "a.test", &old);
    let mut gateway = builder.config(config(&ca.issuer(), &["a.test"])).spawn();
    let reason = gateway.wait_until_waiting_for("a.test");
    assert!(
        reason.contains("expired") || reason.contains("ended"),
        "{reason}"
    );
    assert_eq!(gateway.ask("GET", "/readyz").status, 503);
    let expired =
        gateway.wait_for_event("expired", |event| event.is("certificate_expired", "a.test"));
    assert_eq!(expired.severity, "critical", "{expired:?}");
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    if let Ok(stream) = TlsClient::named("a.test").try_connect(gateway.https) {
        assert_eq!(serial(&stream.certificate()), serial(&old.certificate));
    }
    assert_eq!(gateway.ask("GET", "/readyz").status, 503, "it stays so");
    ca.way.turn(Switch::Pass);
    insist(&gateway, "a.test", &root(&ca.pebble));
    gateway.wait_until_ready();
}

#[test]
fn a_renewal_that_is_overdue_is_told_with_the_reason_and_so_is_its_end() {
    let builder = Gateway::builder();
    let ca = Switched::new(&builder);
    let old = ROOT.leaf(&["a.test"]).valid(-75, 15).make();
    stored(&builder, &ca, "a.test", &old);
    let gateway = builder.config(config(&ca.issuer(), &["a.test"])).start();
    let kind = "certificate_renewal_overdue";
    let overdue = gateway.wait_for_event("overdue", |event| event.is(kind, "a.test"));
    assert_eq!(overdue.severity, "warning", "{overdue:?}");
    assert_eq!(overdue.reason.as_deref(), Some("renewal_overdue"));
    assert!(
        overdue.message.contains("should have been renewed at"),
        "{overdue:?}"
    );
    ca.way.turn(Switch::Pass);
    insist(&gateway, "a.test", &root(&ca.pebble));
    let over = gateway.wait_for_event("recovered", |event| {
        event.is("certificate_recovered", "a.test")
            && event.reason.as_deref() == Some("renewal_overdue")
    });
    assert!(over.message.contains("not overdue"), "{over:?}");
    assert_eq!(gateway.count(kind, "a.test"), 1);
}

#[test]
fn a_stored_certificate_that_is_spoilt_is_replaced() {
    let good = ROOT.leaf(&["a.test"]).make();
    let torn = Pair {
        key: good.key[..good.key.len() / 2].to_owned(),
        ..good.clone()
    };
    let foreign = good.with_key_of(&ROOT.leaf(&["a.test"]).make());
    let other = ROOT.leaf(&["other.test"]).make();
    for (what, pair) in [
        ("torn", torn),
        ("foreign key", foreign),
        ("other name", other),
    ] {
        let builder = Gateway::builder();
        let ca = Switched::new(&builder);
        ca.way.turn(Switch::Pass);
        stored(&builder, &ca, "a.test", &pair);
        let gateway = builder.config(config(&ca.issuer(), &["a.test"])).spawn();
        wait_until_served(&gateway, "a.test", &root(&ca.pebble));
        let stored = stored_at(&gateway.dir().join("data"), &ca.directory, "a.test");
        let stored = std::fs::read(&stored).expect("stored");
        let stored = X509::from_pem(&stored).expect("a certificate");
        assert_ne!(serial(&stored), serial(&pair.certificate), "{what}");
        let told = gateway.log().lines().any(|line| {
            (line.contains("WARN") || line.contains("ERROR")) && line.contains("a.test")
        });
        assert!(told, "{what}: {}", gateway.log());
    }
}
