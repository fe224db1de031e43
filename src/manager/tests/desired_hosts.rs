//! Which hosts are looked at in a pass.

use super::super::desired_hosts::DesiredHosts;
use super::models::{config, site};
use crate::certificate::Loader;
use crate::certificate::sni::{Candidates, Precedence};
use crate::certificate::testing::{DAY, NOW, TestCa};
use crate::config::model::SiteTls;

fn open(hosts: &DesiredHosts) -> String {
    let names: Vec<_> = hosts
        .uncovered()
        .map(|(_, host)| host.to_string())
        .collect();
    names.join(" ")
}

#[test]
fn only_what_lost_or_gained_a_certificate_is_looked_at_again() {
    let (ca, loader) = (TestCa::new("hosts"), Loader::new().expect("a loader"));
    let make = |names: &[&str], days| ca.certificate(&loader, names, NOW - DAY, NOW + days * DAY);
    let auto = || SiteTls::Auto(Vec::new());
    let config = config(
        Vec::new(),
        vec![
            site(&["a.example", "b.example"], auto()),
            site(&["*", "off.example"], SiteTls::Off),
            site(&["*.example", "192.0.2.7"], auto()),
            site(&["own.example"], SiteTls::Issuer("ca".into())),
        ],
    );
    let mut candidates = Candidates::default();
    let mut hosts = DesiredHosts::from_config(&config);
    hosts.update_uncovered(&mut candidates, NOW);
    let all = "a.example b.example *.example 192.0.2.7 own.example";
    assert_eq!(open(&hosts), all);

    let (a, wild) = (
        make(&["a.example", "192.0.2.7"], 1),
        make(&["*.example"], 9),
    );
    candidates.add(&a, Precedence::Configured);
    hosts.update_uncovered(&mut candidates, NOW);
    assert_eq!(open(&hosts), "b.example *.example own.example");
    candidates.add(&wild, Precedence::Configured);
    hosts.update_uncovered(&mut candidates, NOW);
    assert_eq!(open(&hosts), "own.example", "whose site asks for another");

    // It ends, and the wildcard is still there.
    candidates.pass_time(NOW, NOW + 2 * DAY);
    hosts.update_uncovered(&mut candidates, NOW + 2 * DAY);
    assert_eq!(open(&hosts), "192.0.2.7 own.example");
    candidates.remove(&wild);
    hosts.update_uncovered(&mut candidates, NOW + 2 * DAY);
    assert_eq!(open(&hosts), all);

    // What is issued for want of any other is no configured one.
    candidates.add(&make(&["b.example"], 9), Precedence::Fallback);
    hosts.update_uncovered(&mut candidates, NOW + 2 * DAY);
    assert_eq!(open(&hosts), all);
    hosts = DesiredHosts::from_config(&config);
    candidates.add(&make(&["b.example"], 9), Precedence::Configured);
    hosts.update_uncovered(&mut candidates, NOW + 2 * DAY);
    assert_eq!(open(&hosts), "a.example *.example 192.0.2.7 own.example");
}

#[test]
fn more_changes_than_are_remembered_are_looked_at_all() {
    let (ca, loader) = (TestCa::new("hosts"), Loader::new().expect("a loader"));
    let names: Vec<String> = (0..3_000).map(|i| format!("{i}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let config = config(Vec::new(), vec![site(&names, SiteTls::Auto(Vec::new()))]);
    let mut candidates = Candidates::default();
    let mut hosts = DesiredHosts::from_config(&config);
    hosts.update_uncovered(&mut candidates, NOW);
    assert_eq!(hosts.uncovered().count(), names.len());
    let all = ca.certificate(&loader, &names, NOW - DAY, NOW + DAY);
    candidates.add(&all, Precedence::Configured);
    hosts.update_uncovered(&mut candidates, NOW);
    assert_eq!(hosts.uncovered().count(), 0);
    candidates.remove(&all);
    hosts.update_uncovered(&mut candidates, NOW);
    assert_eq!(hosts.uncovered().count(), names.len());
}
