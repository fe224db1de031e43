//! Certificates that their CA revokes by itself, as its OCSP responder says.

use openssl::x509::X509;

use super::wait_until_served;
use super::{RETRY, config, only_file, pebble_for, pebble_issuer, presented, root, serial};
use crate::support::{Gateway, OcspResponder, Pair, Says, within};

#[test]
fn what_its_ca_calls_compromised_gives_way_to_a_certificate_with_another_key() {
    let builder = Gateway::builder();
    let mut responder = OcspResponder::new();
    let pebble = pebble_for(&builder).ocsp(&responder.url()).start();
    let issuer = pebble_issuer(&pebble, "reuse_key: true");
    let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let first = wait_until_served(&gateway, "a.test", &root(&pebble));

    let (ca, key) = pebble.intermediate();
    let signer = Pair {
        certificate: X509::from_pem(ca.as_bytes()).expect("a certificate"),
        chain: ca.clone(),
        key,
    };
    let revoked = Pair {
        certificate: first.clone(),
        ..signer.clone()
    };
    let listed = [(&revoked, Says::Revoked("keyCompromise"))];
    responder.start_for(&ca, &signer, &listed, 60);
    let told = gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.test"));
    assert_eq!(told.severity, "critical");
    assert!(told.message.contains("OCSP responder"), "{told:?}");
    let second = within(RETRY, "another certificate", || {
        let now = presented(&gateway, "a.test");
        (serial(&now) != serial(&first)).then_some(now)
    });
    let keys = [&first, &second].map(|one| one.public_key().expect("a key"));
    assert!(!keys[0].public_eq(&keys[1]), "whatever reuse_key says");
    only_file(&gateway, "compromised");
    assert_eq!(gateway.count("certificate_revoked", "a.test"), 1);
}
