//! Records left behind by a process that was killed.

use std::sync::atomic::Ordering;
use std::thread;

use serde_json::json;

use super::{
    PROOF, config, dns, fake_issuer, holding, knot, notes, wait_until_clean, wait_until_set,
};
use crate::acme::{RETRY, SECOND, wait_until_served};
use crate::support::{Gateway, within};

#[test]
fn what_a_killed_process_left_is_removed_at_the_next_start() {
    let knot = knot("");
    let (fake, go) = holding(vec![("dns-01", json!({}))]);
    let issuers = fake_issuer(&fake, "challenges: [dns-01]");
    let yaml = config(&issuers, &dns(&knot), "", &["*.a.test"]);
    let mut gateway = Gateway::builder().config(&yaml).spawn();
    wait_until_set(&knot, PROOF);
    within(RETRY, "the CA to be told", || {
        (!fake.asked("challenge").is_empty()).then_some(())
    });
    gateway.kill();
    assert_eq!(notes(gateway.dir()), 1);

    // Nobody wants the certificate any more.
    gateway.replace_config(config(&issuers, &dns(&knot), "", &["plain.test"]).replace(
        "- { hosts: [\"plain.test\"],",
        "- { hosts: [\"plain.test\"], tls: off,",
    ));
    gateway.restart_unready();
    wait_until_clean(&gateway, &knot, PROOF);
    gateway.wait_for_log("removed a record left in the DNS");

    // And one that is wanted still is gone on with.
    gateway.replace_config(&yaml);
    gateway.restart_unready();
    let before = wait_until_set(&knot, PROOF);
    gateway.kill();
    gateway.restart_unready();
    go.store(true, Ordering::SeqCst);
    wait_until_served(&gateway, "x.a.test", fake.root().certificate());
    wait_until_clean(&gateway, &knot, PROOF);
    assert_eq!(before.len(), 1);
}

/// Two gateways with one storage: what one leaves when it is killed, the other removes.
#[test]
fn what_a_killed_peer_left_is_removed() {
    let knot = knot("");
    let (fake, _go) = holding(vec![("dns-01", json!({}))]);
    let issuers = fake_issuer(&fake, "challenges: [dns-01]");
    let yaml = config(&issuers, &dns(&knot), "", &["*.a.test"]);
    let mut killed = Gateway::builder().config(&yaml).spawn();
    wait_until_set(&knot, PROOF);
    let shared = format!(
        "storage: {{ file: {{ path: {:?} }} }}\n",
        killed.dir().join("data")
    );
    let plain = config(&issuers, &dns(&knot), &shared, &["plain.test"]).replace(
        "- { hosts: [\"plain.test\"],",
        "- { hosts: [\"plain.test\"], tls: off,",
    );
    let peer = Gateway::builder().config(plain).start();
    // Time enough for the peer to remove it, if it took it for left behind.
    thread::sleep(SECOND * 7);
    assert_eq!(knot.txt(PROOF).len(), 1, "its process lives");
    killed.kill();
    within(RETRY, "the peer to remove it", || {
        knot.txt(PROOF).is_empty().then_some(())
    });
    peer.wait_for_log("removed a record left in the DNS");
}
