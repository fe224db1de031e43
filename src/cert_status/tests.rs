use std::sync::Arc;
use std::time::Instant;

use super::staples::Count;
use super::*;
use crate::certificate::from_index::CertificateFacts;
use crate::certificate::material::{CertSource, Fetched};
use crate::certificate::status::{KnownStatus, Staple, StatusSources};
use crate::certificate::testing::{DAY, NOW, TestCa};
use crate::certificate::{Fingerprint, Flaws, KeyKind, Loader};
use crate::clock::UnixTime;
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
        self.named(number, &format!("{number}.example"), sources)
    }

    fn named(
        &self,
        number: usize,
        name: &str,
        sources: &Arc<StatusSources>,
    ) -> Arc<TlsCertificate> {
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&number.to_be_bytes());
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
    assert_eq!(staples.count().missing, 20);
    assert_eq!(staples.count().good, 1);
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
    let told: Vec<_> = changes
        .notices
        .iter()
        .map(|one| one.event(|_| true, now))
        .collect();
    assert_eq!(told.len(), 6);
    assert!(told.iter().all(|one| one.kind == EventKind::StapleFailed));
    assert!(told.iter().all(|one| one.severity == Severity::Warning));
    changes = Changes::default();
    staples.pass_time(now, &mut changes);
    assert!(changes.notices.is_empty(), "once");

    now += 600;
    let back = staples.take_due(1, now);
    staples.apply(&back[0], good(9), now, &mut changes);
    let told = changes.notices[0].event(|_| true, now);
    assert_eq!(told.kind, EventKind::StapleRecovered);
    // Certificates that are gone are forgotten, and what was reported of them is over.
    changes = Changes::default();
    assert_eq!(staples.survey(&all[..1], now, &mut changes).len(), 5);
    let told: Vec<_> = changes
        .notices
        .iter()
        .map(|one| one.event(|_| true, now))
        .collect();
    assert!((4..=5).contains(&told.len()), "{told:?}");
    assert!(
        told.iter()
            .all(|one| one.kind == EventKind::StapleRecovered)
    );
    assert!(told[0].message.contains("replaced or removed"), "{told:?}");
}

/// Fails to get a response for `certificate` at `now`, three times, and returns what is reported.
fn fail(staples: &mut Staples, certificate: &Arc<TlsCertificate>, now: UnixTime) -> Changes {
    let mut changes = Changes::default();
    for _ in 0..3 {
        let fault = Outcome::Failed("it has expired".to_owned());
        staples.apply(certificate, fault, now, &mut changes);
    }
    changes
}

#[test]
fn a_report_of_a_name_is_over_once_no_certificate_of_that_name_lacks_a_response() {
    let (one, other) = (Fixture::new(), Fixture::new());
    let said = sources("http://one/", false);
    // The same first name, of two certificates.
    let all = [
        one.named(1, "a.example", &said),
        other.named(2, "a.example", &said),
    ];
    let mut staples = planned(&all);
    for certificate in &all {
        assert_eq!(fail(&mut staples, certificate, NOW).notices.len(), 1);
    }
    let mut changes = Changes::default();
    staples.apply(&all[0], good(9), NOW, &mut changes);
    assert!(changes.notices.is_empty());
    staples.survey(&all[..1], NOW, &mut changes);
    assert_eq!(changes.notices.len(), 1);
    // With nobody to ask any more, too.
    fail(&mut staples, &all[0], NOW + 5 * DAY);
    changes = Changes::default();
    let status = all[1].status().expect("it names a responder");
    let restored =
        |known: &mut KnownStatus| known.staple = all[0].status().expect("one").known().staple;
    status.update(restored);
    staples.clear(&all, &mut changes);
    assert_eq!(changes.notices.len(), 1);
    assert_eq!(staples.count(), Count::default());
    let has_one =
        |one: &Arc<TlsCertificate>| one.status().is_some_and(|it| it.known().staple.is_some());
    assert!(!all.iter().any(has_one), "not even one that is not watched");
}

#[test]
fn a_clock_that_was_ahead_delays_nothing_once_it_is_right() {
    let fixture = Fixture::new();
    let all = [fixture.certificate(0, &sources("http://one/", false))];
    let mut staples = planned(&all);
    let ahead = NOW + 365 * DAY;
    let mut changes = Changes::default();
    staples.pass_time(ahead, &mut changes);
    let due = staples.take_due(1, ahead);
    fail(&mut staples, &due[0], ahead);
    let away = Outcome::Unreachable("no route".to_owned());
    staples.apply(&due[0], away, ahead, &mut changes);
    staples.pass_time(NOW, &mut changes);
    let soon = NOW + 200;
    assert!(staples.next(NOW).is_some_and(|next| next <= soon));
    staples.pass_time(soon, &mut changes);
    assert_eq!(staples.take_due(1, soon).len(), 1);
}

#[test]
fn a_certificate_in_two_files_gets_each_response_in_both() {
    let fixture = Fixture::new();
    let said = sources("http://one/", true);
    let all = [fixture.certificate(0, &said), fixture.certificate(0, &said)];
    let mut staples = planned(&all);
    let due = staples.take_due(9, NOW);
    assert_eq!(due.len(), 1, "it is asked about once");
    let mut changes = Changes::default();
    staples.apply(&due[0], good(9), NOW, &mut changes);
    assert!(all.iter().all(|one| !one.lacks_staple(NOW)));
    assert_eq!(staples.count().good, 1);
    // A third one that is loaded later has it too.
    let third = fixture.certificate(0, &said);
    let [first, second] = all;
    staples.survey(&[first, second, Arc::clone(&third)], NOW, &mut changes);
    assert!(!third.lacks_staple(NOW));
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let fixture = Fixture::new();
    let all = [fixture.certificate(0, &sources("http://one/", false))];
    let status = all[0].status().expect("it names a responder");
    let mut staples = planned(&all);
    let mut changes = Changes::default();
    let mut apply = |outcome, now| staples.apply(&all[0], outcome, now, &mut changes);
    let revoked = |since| Outcome::Revoked {
        reason: RevocationReason::KeyCompromise,
        since,
    };
    assert!(!apply(good(9), NOW));
    // Somebody replays that it was on hold once.
    assert!(!apply(revoked(NOW - 60), NOW + 1));
    assert!(!status.known().is_revoked() && status.staple(NOW + 1).is_some());
    assert!(apply(revoked(NOW + 60), NOW + 60));
    assert!(status.staple(NOW + 60).is_none());
    // A cache has kept the response from before.
    assert!(!apply(good(9), NOW + 120));
    assert!(status.known().is_revoked() && status.staple(NOW + 120).is_none());
    let fault = status.known().fault.expect("one");
    assert!(fault.contains("older response"), "{fault}");
    // The CA was mistaken.
    let later = Outcome::Good(Arc::new(Staple {
        response: [0x30].into(),
        this_update: NOW + DAY,
        next_update: NOW + 5 * DAY,
    }));
    assert!(!apply(later, NOW + DAY));
    assert!(!status.known().is_revoked() && status.staple(NOW + DAY).is_some());
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
    // Twice a day all are looked at, some at a time.
    assert!(staples.take_due(8, NOW).is_empty());
    let begun = Instant::now();
    let mut slices = 0;
    while slices == 0 || staples.next(NOW).is_some_and(|next| next <= NOW) {
        staples.pass_time(NOW, &mut changes);
        slices += 1;
    }
    assert!(slices > 20, "{slices}");
    time("looking at all", begun);
    let begun = Instant::now();
    for second in 1..=1000 {
        let now = NOW + second;
        staples.pass_time(now, &mut changes);
        assert!(staples.take_unread(64).is_empty() && staples.take_due(8, now).is_empty());
        assert!(staples.next(now).is_some_and(|next| next > now));
        assert_eq!(staples.count().good, 100_000);
    }
    let idle = begun.elapsed();
    time("1000 rounds without work", begun);
    assert!(idle.as_millis() < 200, "nothing is due: {idle:?}");
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
