//! Certificates that their CA has revoked.

use std::fs;

use serde_json::Value;

use super::{authority, config, is_stapled, own_signer, with};
use crate::support::{Gateway, OcspResponder, Says, responder_at, wait_for};

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
