use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::certificate::from_index::CertificateFacts;
use crate::certificate::material::{CertSource, Fetched};
use crate::certificate::status::{Staple, StatusSources};
use crate::certificate::testing::{DAY, NOW, TestCa};
use crate::certificate::{Fingerprint, Flaws, KeyKind, Loader};
use crate::event::{EventKind, Severity};
use crate::host::Pattern;

/// Where no certificate is.
struct Nowhere;

impl CertSource for Nowhere {
    fn fetch(&self, _: &TlsCertificate) -> Result<Fetched, String> {
        Err("it is nowhere".to_owned())
    }
}

struct Fixture {
    chain: crate::certificate::from_index::SharedChain,
}

impl Fixture {
    fn new() -> Self {
        let (ca, loader) = (TestCa::new("status"), Loader::new().expect("a loader"));
        let chain = loader.share_chain(&[ca.intermediate.der().as_ref()]);
        Self {
            chain: chain.expect("a chain"),
        }
    }

    fn certificate(&self, number: usize, sources: &Arc<StatusSources>) -> Arc<TlsCertificate> {
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&number.to_be_bytes());
        let name = format!("{number}.example");
        let facts = CertificateFacts {
            names: [name.parse::<Pattern>().expect("a name")].into(),
            kind: KeyKind::Ecdsa,
            not_before: NOW - DAY,
            not_after: NOW + 90 * DAY,
            fingerprint: Fingerprint(fingerprint),
            flaws: Flaws::default(),
            status: Some(Arc::clone(sources)),
        };
        let certificate =
            TlsCertificate::from_index(facts, &self.chain, Source::Program, Arc::new(Nowhere));
        Arc::new(certificate)
    }
}

fn sources(responder: &str, requires_staple: bool) -> Arc<StatusSources> {
    Arc::new(StatusSources {
        responder: Some(responder.into()),
        requires_staple,
        ..StatusSources::default()
    })
}

fn good(octets: usize) -> Outcome {
    Outcome::Good(Arc::new(Staple {
        response: vec![0x30; octets].into(),
        this_update: NOW,
        next_update: NOW + 4 * DAY,
    }))
}

/// Plans all of these certificates; the storage has nothing.
fn planned(certificates: &[Arc<TlsCertificate>]) -> Staples {
    let mut staples = Staples::default();
    let mut changes = Changes::default();
    assert!(staples.survey(certificates, NOW, &mut changes).is_empty());
    loop {
        let unread = staples.take_unread(1000);
        if unread.is_empty() {
            return staples;
        }
        staples.note_read(&unread, NOW, &mut changes);
    }
}

#[test]
fn a_responder_is_asked_a_few_things_at_a_time_and_rests_when_it_is_away() {
    let fixture = Fixture::new();
    let (one, other) = (
        sources("http://one/", false),
        sources("http://other/", true),
    );
    let mut all: Vec<_> = (0..20)
        .map(|number| fixture.certificate(number, &one))
        .collect();
    all.push(fixture.certificate(20, &other));
    let mut staples = planned(&all);
    let due = staples.take_due(100, NOW);
    assert_eq!(due.len(), 5);
    assert_eq!(
        due[0].fingerprint(),
        all[20].fingerprint(),
        "it is not served"
    );
    assert!(staples.take_due(100, NOW).is_empty());

    let mut changes = Changes::default();
    assert!(!staples.apply(&due[0], good(9), NOW, &mut changes));
    assert_eq!(changes.served.len(), 1);
    assert!(!all[20].lacks_staple(NOW));
    for asked in &due[1..] {
        let away = Outcome::Unreachable("no route".to_owned());
        staples.apply(asked, away, NOW, &mut changes);
    }
    assert!(staples.take_due(100, NOW + 4).is_empty(), "it rests");
    let later = NOW + 3600;
    assert_eq!(staples.take_due(100, later).len(), 4);
    assert_eq!(staples.count(later).missing, 20);
    assert_eq!(staples.count(later).good, 1);
}

#[test]
fn what_waits_for_a_responder_that_rests_is_reported_too_and_recovers() {
    let fixture = Fixture::new();
    let one = sources("http://one/", false);
    let all: Vec<_> = (0..6)
        .map(|number| fixture.certificate(number, &one))
        .collect();
    let mut staples = planned(&all);
    let mut now = NOW;
    let mut changes = Changes::default();
    let mut asked = Vec::new();
    for _ in 0..3 {
        for due in staples.take_due(1, now) {
            let away = Outcome::Unreachable("no route".to_owned());
            staples.apply(&due, away, now, &mut changes);
            asked.push(due);
        }
        now += 600;
    }
    staples.pass_time(now, &mut changes);
    let told: Vec<_> = changes.notices.iter().map(|one| one.event(now)).collect();
    assert_eq!(told.len(), 6);
    assert!(told.iter().all(|one| one.kind == EventKind::StapleFailed));
    assert!(told.iter().all(|one| one.severity == Severity::Warning));
    changes = Changes::default();
    staples.pass_time(now, &mut changes);
    assert!(changes.notices.is_empty(), "once");

    now += 600;
    let back = staples.take_due(1, now);
    staples.apply(&back[0], good(9), now, &mut changes);
    let told = changes.notices[0].event(now);
    assert_eq!(told.kind, EventKind::StapleRecovered);
    // Certificates that are gone are forgotten.
    changes = Changes::default();
    assert_eq!(staples.survey(&all[..2], now, &mut changes).len(), 4);
    let over: Vec<_> = changes.notices.iter().map(|one| one.event(now)).collect();
    // Whoever heard that they have no response learns that they need none.
    assert!(over.len() >= 3, "{}", over.len());
    assert!(
        over.iter()
            .all(|one| one.kind == EventKind::StapleRecovered)
    );
    assert!(
        over[0].message.contains("needed any more"),
        "{}",
        over[0].message
    );
}

/// Pages in use, in octets.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}

#[expect(clippy::print_stderr, reason = "figures for people")]
#[test]
fn a_hundred_thousand_certificates_cost_little() {
    let fixture = Fixture::new();
    let one = sources("http://one/", false);
    let many = 100_000;
    let all: Vec<_> = (0..many)
        .map(|number| fixture.certificate(number, &one))
        .collect();
    let before = resident();
    let mut timed = Vec::new();
    let mut time = |what: &'static str, begun: Instant| timed.push((what, begun.elapsed()));
    let begun = Instant::now();
    let mut staples = Staples::default();
    let mut changes = Changes::default();
    staples.survey(&all, NOW, &mut changes);
    time("survey", begun);
    let planned = resident();
    let begun = Instant::now();
    let unread = staples.take_unread(many);
    staples.note_read(&unread, NOW, &mut changes);
    drop(unread);
    time("plan", begun);
    let begun = Instant::now();
    assert_eq!(staples.take_due(8, NOW).len(), 4);
    time("a round", begun);
    for certificate in &all {
        staples.apply(certificate, good(500), NOW, &mut changes);
    }
    let stapled = resident();
    let begun = Instant::now();
    assert!(staples.take_due(8, NOW + 60).is_empty());
    assert!(staples.next(NOW).is_some());
    time("a round without work", begun);
    let begun = Instant::now();
    staples.pass_time(NOW + 60, &mut changes);
    assert_eq!(staples.count(NOW + 60).good, 100_000);
    time("a check", begun);
    eprintln!(
        "{many}: {} octets each to watch, {} with a response of 500; {timed:?}",
        (planned.saturating_sub(before)) / many,
        (stapled.saturating_sub(before)) / many,
    );
    assert!(
        timed.iter().all(|(_, took)| took.as_secs() < 5),
        "{timed:?}"
    );
}
