//! Rehearsals at a staging CA: they spare the other CA, and do not stand in its way for ever.

use std::fs;
use std::path::Path;

use snigate::issuer::Issuer;
use snigate::schedule::FailureClass;
use tempfile::NamedTempFile;

use super::fixture::{Fixture, WebSolver, config, leaf};
use super::order::orders;
use crate::support::{CaReply, FakeCa, Pebble};

/// One file of roots for both.
fn roots(files: [&Path; 2]) -> NamedTempFile {
    let roots = NamedTempFile::new().unwrap();
    let both = files.map(|file| fs::read_to_string(file).unwrap()).concat();
    fs::write(roots.path(), both).unwrap();
    roots
}

/// A production that is in order beside a staging CA that answers each order with this: for each
/// number of failures before, and whether a person asks, how many orders production gets.
async fn orders_at_production(answer: CaReply, attempts: &[(u32, bool)]) -> Vec<usize> {
    let web = WebSolver::start();
    let production = FakeCa::start(|_| None);
    let staging = FakeCa::start(move |ask| (ask.kind == "order").then(|| answer.clone()));
    let roots = NamedTempFile::new().unwrap();
    let both = [&production, &staging].map(|ca| fs::read_to_string(ca.ca_file()).unwrap());
    fs::write(roots.path(), both.concat()).unwrap();
    let mut config = config(production.directory(), roots.path());
    config.staging = Some(staging.directory());
    let fixture = Fixture::new(config, vec![web]);
    let mut orders = Vec::new();
    for (number, (failures, is_asked)) in attempts.iter().enumerate() {
        let name = format!("n{number}.test");
        let mut request = fixture.request(&[&name]);
        (request.failures, request.is_asked) = (*failures, *is_asked);
        let before = production.asked("order").len();
        let issued = fixture.issuer.issue(&request).await;
        let after = production.asked("order").len();
        assert_eq!(issued.is_ok(), after > before, "{:?}", issued.err());
        orders.push(after - before);
    }
    orders
}

#[tokio::test(flavor = "multi_thread")]
async fn what_staging_does_not_take_is_asked_of_production() {
    for answer in [
        CaReply::problem(400, "malformed", "not at staging"),
        CaReply::problem(400, "of tomorrow", "not at staging"),
        CaReply::problem(500, "serverInternal", "not at staging"),
        CaReply::plain(404, ""),
        CaReply::plain(301, "").header("Location", "https://elsewhere.test/"),
    ] {
        let orders = orders_at_production(answer.clone(), &[(1, false), (2, false)]).await;
        assert_eq!(orders, [1, 1], "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_staging_refuses_is_asked_of_production_now_and_then_or_at_a_word() {
    let answer = CaReply::problem(403, "rejectedIdentifier", "never");
    let attempts = [
        (1, false),
        (2, false),
        (2, true),
        (3, false),
        (3, true),
        (4, false),
        (5, false),
        (6, false),
        (10, false),
    ];
    let orders = orders_at_production(answer, &attempts).await;
    assert_eq!(orders, [0, 0, 0, 0, 1, 0, 1, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_staging_comes_first() {
    let web = WebSolver::start();
    let production = Pebble::builder().http_port(web.port()).start();
    let mut staging = Pebble::builder()
        .http_port(web.port())
        .blocked("never.test")
        .start();
    let roots = roots([production.ca_file(), staging.ca_file()]);
    let mut config = config(production.directory(), roots.path());
    config.staging = Some(staging.directory());
    let fixture = Fixture::new(config, vec![web]);
    fixture.issue(&["first.test"]).await.unwrap();
    assert_eq!((orders(&staging), orders(&production)), (0, 1));
    let mut request = fixture.request(&["a.test"]);
    request.failures = 1;
    let issued = fixture.issuer.issue(&request).await.unwrap();
    leaf(&issued, &["a.test"]);
    assert_eq!((orders(&staging), orders(&production)), (1, 2));
    let chain = openssl::x509::X509::stack_from_pem(&issued.chain).unwrap();
    let issuer = openssl::x509::X509::from_pem(production.root().as_bytes()).unwrap();
    let root = issuer.public_key().unwrap();
    assert!(chain[1].verify(&root).unwrap(), "it is production's");
    assert_eq!(fixture.stored("accounts").len(), 2, "an account at each");
    assert_eq!(fixture.stored("orders").len(), 2, "none of staging's");
    let mut request = fixture.request(&["never.test"]);
    request.failures = 3;
    let failure = fixture.issuer.issue(&request).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Refused);
    assert!(failure.message.contains("rehearsal"), "{failure}");
    assert_eq!(orders(&production), 2, "production was not asked");
    staging.stop();
    let mut request = fixture.request(&["b.test"]);
    request.failures = 1;
    fixture.issuer.issue(&request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn troubles_of_staging_do_not_stop_production() {
    let web = WebSolver::start();
    let production = Pebble::builder().http_port(web.port()).start();
    // A CA that wants accounts to be bound: it would never take ours.
    let staging = Pebble::builder()
        .http_port(web.port())
        .eab(
            "kid-1",
            "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
        )
        .start();
    let roots = roots([production.ca_file(), staging.ca_file()]);
    let mut config = config(production.directory(), roots.path());
    config.staging = Some(staging.directory());
    let fixture = Fixture::new(config, vec![web]);
    let mut progress = fixture.events.subscribe();
    let mut request = fixture.request(&["a.test"]);
    request.failures = 1;
    let issued = fixture.issuer.issue(&request).await.unwrap();
    leaf(&issued, &["a.test"]);
    let mut told = Vec::new();
    while let Ok(event) = progress.try_recv() {
        told.push(event.message.clone());
    }
    let told = told.iter().find(|told| told.starts_with("no rehearsal"));
    assert!(told.unwrap().contains("external account binding"));
}

/// CAA records may let one account of one CA alone.
#[tokio::test(flavor = "multi_thread")]
async fn caa_at_staging_says_nothing_of_production() {
    let production = FakeCa::start(|_| None);
    let staging = FakeCa::start(|ask| {
        let refused = || CaReply::problem(403, "caa", "the record is for another account");
        (ask.kind == "finalize").then(refused)
    });
    let roots = roots([production.ca_file(), staging.ca_file()]);
    let mut config = config(production.directory(), roots.path());
    config.staging = Some(staging.directory());
    let fixture = Fixture::new(config, vec![WebSolver::start()]);
    let mut request = fixture.request(&["a.test"]);
    request.failures = 1;
    fixture.issuer.issue(&request).await.unwrap();
    let finalized = [&staging, &production].map(|ca| ca.asked("finalize").len());
    assert_eq!(
        finalized,
        [1, 1],
        "staging refused, and production was asked"
    );
}
