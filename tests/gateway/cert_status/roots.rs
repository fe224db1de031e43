//! Certificates that a root has issued itself.

use std::fs;

use super::lists::ListServer;
use super::{config, own_signer, wait_until_stapled, with};
use crate::support::{Ca, Gateway, OcspResponder, Pair, Says, list_at, responder_at};

#[test]
fn what_a_root_has_issued_itself_is_watched_if_the_root_is_known() {
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    let mut responder = OcspResponder::new();
    let (own, trusted) = (Ca::new("Own Root"), Ca::new("Trusted Root"));
    // The root of one is in its file, that of the other is trusted by this machine.
    let pair = with(&own, "own.example", &[responder_at(&responder.url())]);
    let pair = Pair {
        chain: pair.chain.clone() + &own.pem(),
        ..pair
    };
    pair.write(&certs, "own");
    responder.start(&own, &own_signer(&own), &[(&pair, Says::Good)], 60);
    let roots = builder.dir().join("roots.pem");
    fs::write(&roots, trusted.pem()).expect("written");
    let server = ListServer::new();
    let pair = with(&trusted, "trusted.example", &[list_at(&server.url())]);
    pair.write(&certs, "trusted");
    server.show(&trusted, &[&pair], 30);
    let mut gateway = builder
        .env("SSL_CERT_FILE", roots.to_str().expect("text"))
        .config(config(&["own.example", "trusted.example"]))
        .start();
    wait_until_stapled(&gateway, "own.example");
    gateway.wait_for_event("revoked", |one| {
        one.is("certificate_revoked", "trusted.example")
    });
    // What is known of files is read from an index: the responder is asked again.
    fs::remove_dir_all(gateway.dir().join("data/ocsp")).expect("removed");
    gateway.restart();
    wait_until_stapled(&gateway, "own.example");
}
