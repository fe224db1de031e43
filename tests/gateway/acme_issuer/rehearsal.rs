//! Rehearsals at a staging CA: they spare the other CA, and do not stand in its way for ever.

use std::fs;

use snigate::issuer::Issuer;
use tempfile::NamedTempFile;

use super::fixture::{Fixture, WebSolver, config};
use crate::support::{CaReply, FakeCa};

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
    let bench = Fixture::new(config, vec![web]);
    let mut orders = Vec::new();
    for (number, (failures, is_asked)) in attempts.iter().enumerate() {
        let name = format!("n{number}.test");
        let mut request = bench.request(&[&name]);
        (request.failures, request.is_asked) = (*failures, *is_asked);
        let before = production.asked("order").len();
        let issued = bench.issuer.issue(&request).await;
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
