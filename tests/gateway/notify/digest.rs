//! Very many events at once.

use super::*;
use crate::support::{Act, ROOT, serving};

#[test]
fn a_thousand_certificates_that_expire_are_one_digest() {
    let origin = Origin::start(|_| vec![Act::respond(200, "")]);
    let names: Vec<String> = (0..1000).map(|number| format!("{number}.test")).collect();
    let events = hook(&origin, "\"certificate_*\"", "").replace("digest: 0s", "digest: 15s");
    let builder = serving(&[&["a.test"]], config(&events)).config("renewal: { check_every: 1s }\n");
    let certs = builder.dir().join("certs");
    for name in &names {
        let leaf = ROOT.leaf(&[name.as_str()]).valid(-89, 1).make();
        leaf.write(&certs, name);
    }
    let gateway = builder.start();
    wait_for_deliveries(&gateway, "webhook", 1.0);
    let first = notification(&origin.requests()[0]);
    let entries = first["entries"].as_array().expect("entries").len();
    let omitted = first["omitted"].as_u64().expect("some are only counted");
    assert_eq!(entries as u64 + omitted, 1000, "{entries} and {omitted}");
    assert_eq!(first["entries"][0]["kind"], "certificate_expiring");
    assert_eq!(origin.requests().len(), 1);
}
