//! Certificates that their CA has revoked.

use std::fs;

use serde_json::Value;

use super::lists::ListServer;
use super::{authority, config, is_stapled, metric, own_signer, with};
use crate::support::{Gateway, OcspResponder, Says, list_at, responder_at, wait_for};

#[test]
fn a_revoked_certificate_of_a_file_is_reported_with_what_to_do() {
    let builder = Gateway::builder();
    let ca = authority();
    let mut responder = OcspResponder::new();
    let pair = with(&ca, "a.example", &[responder_at(&responder.url())]);
    pair.write(&builder.dir().join("certs"), "a");
    let revoked = Says::Revoked("keyCompromise");
    responder.start(&ca, &own_signer(&ca), &[(&pair, revoked)], 60);
    let gateway = builder.config(config(&["a.example"])).start();
    let told = gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.example"));
    assert_eq!(told.severity, "critical");
    for words in ["keyCompromise", "a.pem", "OCSP responder", "never use"] {
        assert!(told.message.contains(words), "{words}: {told:?}");
    }
    assert!(!is_stapled(&gateway, "a.example"));
    let view = gateway.ask("GET", "/api/v1/certificates/a.example");
    let view: Value = serde_json::from_slice(&view.body).expect("JSON");
    assert_eq!(view["state"], "revoked", "{view}");
    assert_eq!(gateway.count("certificate_revoked", "a.example"), 1);

    // Its file is replaced: all is well.
    let fresh = with(&ca, "a.example", &[responder_at(&responder.url())]);
    responder.start(&ca, &own_signer(&ca), &[(&fresh, Says::Good)], 60);
    fresh.write(&gateway.dir().join("certs"), "a");
    wait_for("the new certificate", || {
        is_stapled(&gateway, "a.example").then_some(())
    });
    wait_for("the response in place of that of the old one", || {
        let stored = fs::read_dir(gateway.dir().join("data/ocsp")).ok()?;
        (stored.count() == 1).then_some(())
    });
}

/// Its state, as the API shows it.
fn state(gateway: &Gateway, name: &str) -> String {
    let view = gateway.ask("GET", &format!("/api/v1/certificates/{name}"));
    let view: Value = serde_json::from_slice(&view.body).expect("JSON");
    view["state"].as_str().unwrap_or_default().to_owned()
}

/// Restarts a gateway that has found the certificate for a.example to be revoked, while nobody can say so
/// any more. It is still revoked, and told so, until another one takes its place.
fn check_restart(gateway: &mut Gateway, heal: impl FnOnce(&Gateway)) {
    wait_for("the record", || {
        let stored = fs::read_dir(gateway.dir().join("data/found_revoked")).ok()?;
        (stored.count() == 1).then_some(())
    });
    let before = gateway.count("certificate_revoked", "a.example");
    gateway.restart();
    wait_for("the state", || {
        (state(gateway, "a.example") == "revoked").then_some(())
    });
    wait_for("another report", || {
        let reports = gateway.count("certificate_revoked", "a.example");
        (reports > before).then_some(())
    });
    let revoked = "snigate_certificate_states{state=\"revoked\"}";
    wait_for("the metric", || {
        (metric(gateway, revoked) >= 1.0).then_some(())
    });
    assert!(!is_stapled(gateway, "a.example"));
    assert_eq!(gateway.count("certificate_recovered", "a.example"), 0);
    heal(gateway);
    gateway.wait_for_event("recovered", |one| {
        one.is("certificate_recovered", "a.example") && one.reason.as_deref() == Some("revoked")
    });
    assert_eq!(state(gateway, "a.example"), "valid");
}

#[test]
fn what_a_responder_has_called_revoked_stays_so_over_a_restart_without_it() {
    let builder = Gateway::builder();
    let ca = authority();
    let mut responder = OcspResponder::new();
    let pair = with(&ca, "a.example", &[responder_at(&responder.url())]);
    pair.write(&builder.dir().join("certs"), "a");
    let revoked = Says::Revoked("keyCompromise");
    responder.start(&ca, &own_signer(&ca), &[(&pair, revoked)], 60);
    let mut gateway = builder.config(config(&["a.example"])).start();
    gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.example"));
    responder.stop();
    check_restart(&mut gateway, |gateway| {
        let fresh = with(&ca, "a.example", &[responder_at(&responder.url())]);
        fresh.write(&gateway.dir().join("certs"), "a");
    });
}

#[test]
fn what_a_list_has_called_revoked_stays_so_over_a_restart_without_it() {
    let builder = Gateway::builder();
    let ca = authority();
    let server = ListServer::new();
    let pair = with(&ca, "a.example", &[list_at(&server.url())]);
    pair.write(&builder.dir().join("certs"), "a");
    server.show(&ca, &[&pair], 30);
    let mut gateway = builder.config(config(&["a.example"])).start();
    gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.example"));
    server.break_down();
    check_restart(&mut gateway, |gateway| {
        let fresh = with(&ca, "a.example", &[list_at(&server.url())]);
        fresh.write(&gateway.dir().join("certs"), "a");
    });
}
