//! Certificates that clients ask for by naming a host, obtained while they wait.

use std::path::Path;
use std::time::Instant;

use openssl::x509::X509;

use super::{
    RETRY, SECOND, insist, issued, issuer, orders, pebble_for, pebble_issuer, presented, root,
    serial, try_served,
};
use crate::support::{Builder, Gateway, Pebble, Port, ROOT, Relay, Switch, within};

const HOST: &str = "a.shop.test";

/// Names below `shop.test` on demand from `pebble`, and a certificate for all others.
fn config(builder: &Builder, issuers: &str, more: &str) -> String {
    let pair = ROOT.leaf(&["default.test"]).make();
    pair.write(builder.dir(), "default");
    format!(
        "issuers:\n{issuers}\
         certificates: [{{ files: {{ cert: default.pem, key: default.key }} }}]\n\
         tls: {{ default_certificate: default.test }}\n\
         on_demand: {{ issuer: [pebble], allow: [\"*.shop.test\"]{more} }}\n\
         renewal: {{ check_every: 1s }}\n\
         log: {{ format: json, access: off }}\n\
         sites: [{{ hosts: [\"*\"], routes: [{{ respond: {{ body: shop }} }}] }}]\n"
    )
}

fn start(builder: Builder, pebble: &Pebble) -> Gateway {
    let yaml = config(&builder, &pebble_issuer(pebble, ""), "");
    builder.config(yaml).start()
}

/// The certificate that the one handshake gets which is made now.
#[track_caller]
fn at_once(gateway: &Gateway, host: &str, root: &X509) -> X509 {
    try_served(gateway, host, root).unwrap_or_else(|error| panic!("{host}: {error}"))
}

#[test]
fn a_name_gets_its_certificate_within_the_handshake_that_asks_for_it() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let gateway = start(builder, &pebble);
    let root = root(&pebble);
    let first = at_once(&gateway, HOST, &root);
    assert_eq!(serial(&at_once(&gateway, HOST, &root)), serial(&first));
    assert_eq!(orders(&pebble), 1);
    assert!(try_served(&gateway, "a.other.test", &root).is_err());
    assert_eq!(orders(&pebble), 1, "others get none");
    assert!(gateway.waiting().is_empty());
    let list = gateway.ask("GET", "/api/v1/certificates").text();
    assert!(list.contains("\"on_demand\":true"), "{list}");
    assert_eq!(gateway.count("certificate_obtained", HOST), 1);
}

#[test]
fn after_a_restart_it_is_served_without_an_order() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let mut gateway = start(builder, &pebble);
    let root = root(&pebble);
    let first = at_once(&gateway, HOST, &root);
    gateway.restart();
    assert_eq!(serial(&at_once(&gateway, HOST, &root)), serial(&first));
    assert_eq!(orders(&pebble), 1);
}

#[test]
fn two_gateways_on_one_storage_make_one_order() {
    let shared = tempfile::tempdir().expect("a directory");
    let data = shared.path().join("data");
    let (one, two) = (Gateway::builder(), Gateway::builder());
    let pebble = pebble_for(&one).start();
    let sharing = |builder: Builder| {
        let data: &Path = &data;
        let storage = format!("storage: {{ file: {{ path: {data:?} }} }}\n");
        let yaml = config(&builder, &pebble_issuer(&pebble, ""), "") + &storage;
        builder.config(yaml).start()
    };
    let (one, two) = (sharing(one), sharing(two));
    let root = root(&pebble);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| at_once(&one, HOST, &root));
        let second = scope.spawn(|| at_once(&two, HOST, &root));
        (
            first.join().expect("served"),
            second.join().expect("served"),
        )
    });
    assert_eq!(serial(&first), serial(&second));
    assert_eq!((orders(&pebble), issued(&pebble)), (1, 1));
}

#[test]
fn a_ca_that_is_away_costs_no_more_than_the_wait_and_the_certificate_comes_later() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let directory = pebble.directory();
    let address = directory
        .trim_start_matches("https://")
        .trim_end_matches("/dir");
    let way = Relay::to(address.parse().expect("an address"), Switch::Hold);
    let directory = format!("https://{}/dir", way.address());
    let issuers = issuer("pebble", &directory, pebble.ca_file(), "");
    let yaml = config(&builder, &issuers, ", limits: { max_wait: 2s }");
    let gateway = builder.config(yaml).start();
    let begun = Instant::now();
    let given = presented(&gateway, HOST);
    let took = begun.elapsed();
    assert!((SECOND..10 * SECOND).contains(&took), "{took:?}");
    let names = given.subject_alt_names().expect("names");
    let names: Vec<_> = names.iter().filter_map(|name| name.dnsname()).collect();
    assert_eq!(names, ["default.test"]);
    way.turn(Switch::Pass);
    way.cut();
    within(RETRY, "the name to be known", || {
        let answer = gateway.ask("GET", &format!("/api/v1/certificates/{HOST}"));
        (answer.status == 200).then_some(())
    });
    insist(&gateway, HOST, &root(&pebble));
}

#[test]
fn a_name_that_failed_is_not_asked_for_anew_after_a_restart() {
    // The CA looks where nobody is.
    let dead = Port::take();
    let pebble = Pebble::builder()
        .http_port(dead.number())
        .tls_port(dead.number())
        .start();
    let mut gateway = start(Gateway::builder(), &pebble);
    let root = root(&pebble);
    assert!(try_served(&gateway, HOST, &root).is_err());
    gateway.wait_for_event("of the failure", |event| {
        event.is("certificate_failed", HOST)
    });
    let before = orders(&pebble);
    gateway.restart();
    let begun = Instant::now();
    assert!(try_served(&gateway, HOST, &root).is_err());
    assert!(begun.elapsed() < 10 * SECOND, "nothing is waited for");
    assert_eq!(orders(&pebble), before);
}
