//! Very many certificates in files: a start serves before all are loaded.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may fail loudly"
)]

mod support;

use std::path::Path;

use support::{Ca, Gateway, KeyType, TlsClient, connect};

/// So many that loading them takes a while.
const MANY: usize = 3_000;

fn name(number: usize) -> String {
    format!("site-{number:04}.example")
}

/// Makes the certificates of so many sites, all with one key.
fn write_many(ca: &Ca, directory: &Path, many: usize) {
    let signer = ca.signer(KeyType::Ecdsa);
    for number in 0..many {
        let name = name(number);
        signer.leaf(&[&name]).make().write(directory, &name);
    }
}

fn config() -> &'static str {
    "certificates: [{ directory: certs }]\n\
     sites: [{ hosts: [\"*\"], routes: [{ respond: { body: served } }] }]\n"
}

/// Waits until connections are accepted.
#[track_caller]
fn wait_until_accepting(gateway: &Gateway) {
    gateway.wait_for_log("listening");
    drop(connect(gateway.https));
}

fn is_ready(gateway: &Gateway) -> bool {
    gateway.ask("GET", "/readyz").status == 200
}

#[test]
fn names_are_served_before_the_last_file_is_loaded() {
    let ca = Ca::new("Many Root");
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    write_many(&ca, &certs, MANY);
    let better = ca.leaf(&["x.wild.example"]).make();
    better.write(&certs, "x.wild.example");
    ca.leaf(&["*.wild.example"])
        .make()
        .write(&certs, "_wildcard.wild.example");
    // Nothing says that this one is there but what is in it.
    ca.leaf(&["hidden.example"]).make().write(&certs, "site1");
    let gateway = builder.config(config()).spawn();
    wait_until_accepting(&gateway);

    // Whatever the order in which the directory gives them, some of these come late.
    let mut early = 0;
    for number in (0..MANY).step_by(MANY / 24).chain([MANY - 1]) {
        let name = name(number);
        let stream = TlsClient::named(&name).connect(gateway.https);
        assert_eq!(stream.names(), [name.as_str()]);
        early += usize::from(!is_ready(&gateway));
    }
    eprintln!("{early} of 25 were early");
    let mut stream = TlsClient::named("x.wild.example").connect(gateway.https);
    assert_eq!(stream.names(), ["x.wild.example"], "the better one");
    assert_eq!(stream.get("x.wild.example", "/").text(), "served");
    let stream = TlsClient::named("y.wild.example").connect(gateway.https);
    assert_eq!(stream.names(), ["*.wild.example"]);
    let stream = TlsClient::named("hidden.example").connect(gateway.https);
    assert_eq!(stream.names(), ["hidden.example"]);
    assert!(early > 3, "{early}: {}", gateway.log());
}
