use super::*;
use crate::clock::unix;
use crate::event::EventKind;

const HOUR: i64 = 3600;
const REPEAT: Option<Duration> = Some(Duration::from_secs(3600));

fn event(kind: EventKind, severity: Severity, at: i64) -> Event {
    Event::new(unix(at), kind, severity, "a.test", format!("{kind:?}"))
}

fn failed(at: i64) -> Event {
    event(EventKind::CertificateFailed, Severity::Error, at)
}

/// What an event at a time leads to.
fn react(troubles: &mut Troubles, event: &Event) -> Vec<(EntryState, Severity, u32)> {
    let reaction = troubles.observe(event, true, REPEAT, event.at);
    shown(&reaction.entries)
}

fn shown(entries: &[Entry]) -> Vec<(EntryState, Severity, u32)> {
    let entries = entries.iter();
    entries
        .map(|entry| (entry.state, entry.event.severity, entry.repeats))
        .collect()
}

/// Lets the recipient know of everything.
fn deliver(troubles: &mut Troubles) {
    let keys: Vec<String> = troubles.iter().map(|(key, _)| key.clone()).collect();
    for key in keys {
        troubles.set_known(&key, true);
    }
}

#[test]
fn a_trouble_is_repeated_with_gaps_that_double_up_to_a_day() {
    let mut troubles = Troubles::default();
    let mut reports = Vec::new();
    // Every ten minutes for six days.
    for at in (0..6 * 24 * HOUR).step_by(600) {
        if !react(&mut troubles, &failed(at)).is_empty() {
            reports.push(at / HOUR);
        }
    }
    assert_eq!(reports, [0, 1, 3, 7, 15, 31, 55, 79, 103, 127]);
}

#[test]
fn a_trouble_that_lasts_silently_is_repeated_by_time_and_its_severity_rises_once() {
    let mut troubles = Troubles::default();
    let down = down("app");
    assert_eq!(
        react(&mut troubles, &down),
        [(EntryState::Happened, Severity::Warning, 0)]
    );
    let mut reports = Vec::new();
    while let Some(at) = troubles
        .next_step(REPEAT)
        .filter(|at| *at < unix(40 * HOUR))
    {
        let entries = troubles.pass_time(REPEAT, at).entries;
        reports.extend(
            shown(&entries)
                .iter()
                .map(|(_, severity, _)| (at.as_secs() / HOUR, *severity)),
        );
        assert!(troubles.pass_time(REPEAT, at).entries.is_empty(), "once");
    }
    let (warning, error) = (Severity::Warning, Severity::Error);
    assert_eq!(
        reports,
        [
            (1, warning),
            (3, warning),
            (7, error),
            (15, error),
            (31, error)
        ]
    );
    deliver(&mut troubles);
    let up = Event {
        kind: EventKind::UpstreamUp,
        severity: Severity::Info,
        ..down
    };
    let reaction = troubles.observe(&up, false, REPEAT, unix(41 * HOUR));
    assert_eq!(
        shown(&reaction.entries),
        [(EntryState::Recovered, Severity::Info, 6)]
    );
    assert_eq!(reaction.entries[0].since, unix(0));
    assert_eq!(troubles.next_step(REPEAT), None);
}

#[test]
fn what_is_graver_than_before_is_reported_at_once() {
    let mut troubles = Troubles::default();
    let expiring = |severity, at| event(EventKind::CertificateExpiring, severity, at);
    assert_eq!(
        react(&mut troubles, &expiring(Severity::Warning, 0)).len(),
        1
    );
    assert_eq!(react(&mut troubles, &expiring(Severity::Warning, 60)), []);
    assert_eq!(
        react(&mut troubles, &expiring(Severity::Error, 120)),
        [(EntryState::Ongoing, Severity::Error, 1)]
    );
    let expired = event(EventKind::CertificateExpired, Severity::Critical, 180);
    assert_eq!(
        react(&mut troubles, &expired),
        [(EntryState::Ongoing, Severity::Critical, 2)],
        "of another kind, but the same trouble"
    );
    assert_eq!(react(&mut troubles, &expired), []);
}

#[test]
fn the_expiry_is_reported_at_once_to_those_who_know_that_the_end_was_near() {
    let mut troubles = Troubles::default();
    let of = |kind, at| event(kind, Severity::Critical, at);
    let (expiring, expired) = (
        EventKind::CertificateExpiring,
        EventKind::CertificateExpired,
    );
    let critical = |repeats| [(EntryState::Ongoing, Severity::Critical, repeats)];
    assert_eq!(react(&mut troubles, &of(expiring, 0)).len(), 1);
    assert_eq!(react(&mut troubles, &of(expired, 60)), critical(1));
    assert_eq!(react(&mut troubles, &of(expired, 120)), [], "once");
    // Replaced by one that expires soon.
    assert_eq!(react(&mut troubles, &of(expiring, 180)), critical(2));
    // What alternates is no news.
    assert_eq!(react(&mut troubles, &failed(0)).len(), 1);
    let vetoed = event(EventKind::CertificateVetoed, Severity::Error, 60);
    assert_eq!(react(&mut troubles, &vetoed), []);
}

#[test]
fn without_repetition_only_what_is_graver_is_reported_again() {
    let mut troubles = Troubles::default();
    let mut observe = |event: &Event| {
        let entries = troubles.observe(event, true, None, event.at).entries;
        entries.len()
    };
    assert_eq!(observe(&failed(0)), 1);
    assert_eq!(observe(&failed(1000 * HOUR)), 0);
    let critical = event(
        EventKind::CertificateFailed,
        Severity::Critical,
        1001 * HOUR,
    );
    assert_eq!(observe(&critical), 1);
}

#[test]
fn a_trouble_that_ends_before_the_recipient_knows_of_it_ends_quietly() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &failed(0));
    let renewed = event(EventKind::CertificateRenewed, Severity::Info, 5);
    let reaction = troubles.observe(&renewed, false, REPEAT, unix(5));
    assert_eq!(reaction.entries, []);
    assert_eq!(reaction.over, ["issuance/a.test"]);
    // The next one is new.
    assert_eq!(
        react(&mut troubles, &failed(10)),
        [(EntryState::Happened, Severity::Error, 0)]
    );
    deliver(&mut troubles);
    let reaction = troubles.observe(&renewed, true, REPEAT, unix(20));
    assert_eq!(
        shown(&reaction.entries),
        [(EntryState::Recovered, Severity::Info, 1)],
        "what it wants anyway comes once"
    );
    let reaction = troubles.observe(&renewed, true, REPEAT, unix(30));
    assert_eq!(
        shown(&reaction.entries),
        [(EntryState::Happened, Severity::Info, 0)]
    );
}

#[test]
fn one_certificate_ends_what_it_resolves_and_no_trouble_of_another_one() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &failed(0));
    // It may be that of another certificate with the same first name.
    let expired = event(EventKind::CertificateExpired, Severity::Critical, 1);
    let revoked = event(EventKind::CertificateRevoked, Severity::Critical, 2);
    react(&mut troubles, &expired);
    react(&mut troubles, &revoked);
    deliver(&mut troubles);
    let renewed = event(EventKind::CertificateRenewed, Severity::Info, 5);
    let mut reaction = troubles.observe(&renewed, false, REPEAT, unix(5));
    reaction.over.sort();
    assert_eq!(reaction.over, ["issuance/a.test", "revoked/a.test"]);
    assert_eq!(reaction.entries.len(), 2);
    let keys: Vec<&String> = troubles.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["validity/a.test"]);
    let recovered = Event {
        reason: Some("validity".to_owned()),
        ..event(EventKind::CertificateRecovered, Severity::Info, 6)
    };
    let reaction = troubles.observe(&recovered, false, REPEAT, unix(6));
    assert_eq!(reaction.over, ["validity/a.test"]);
}

#[test]
fn a_limit_ends_by_its_time() {
    let mut troubles = Troubles::default();
    let mut limited = event(EventKind::CaLimited, Severity::Warning, 0);
    limited.next = Some(unix(900));
    limited.issuer = Some("letsencrypt".into());
    react(&mut troubles, &limited);
    deliver(&mut troubles);
    assert_eq!(troubles.next_step(REPEAT), Some(unix(900)));
    assert_eq!(troubles.pass_time(REPEAT, unix(899)).entries, []);
    let entries = troubles.pass_time(REPEAT, unix(900)).entries;
    assert_eq!(
        shown(&entries),
        [(EntryState::Recovered, Severity::Info, 1)]
    );
    assert_eq!(entries[0].event.message, "the limit has ended: CaLimited");
    assert_eq!(troubles.next_step(REPEAT), None);
}

#[test]
fn what_was_not_kept_is_reported_by_the_next_event() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &failed(0));
    troubles.take_back("issuance/a.test");
    assert_eq!(
        react(&mut troubles, &failed(1)),
        [(EntryState::Happened, Severity::Error, 0)]
    );
    // What is not emitted again is reported by time.
    let mut troubles = Troubles::default();
    react(&mut troubles, &down("app"));
    troubles.take_back("upstream/app/10.0.0.1:80");
    let entries = troubles.pass_time(REPEAT, unix(HOUR)).entries;
    assert_eq!(
        shown(&entries),
        [(EntryState::Happened, Severity::Warning, 0)]
    );
}

#[test]
fn an_overdue_renewal_is_no_news_to_those_who_know_its_cause() {
    let mut troubles = Troubles::default();
    let overdue = event(EventKind::CertificateRenewalOverdue, Severity::Warning, 9);
    react(&mut troubles, &failed(0));
    assert_eq!(react(&mut troubles, &overdue), []);
    let mut troubles = Troubles::default();
    assert_eq!(react(&mut troubles, &overdue).len(), 1);
    // That it fails is news, and it stays what it was.
    assert_eq!(react(&mut troubles, &failed(10)).len(), 1);
    assert_eq!(react(&mut troubles, &overdue), []);
    assert_eq!(troubles.iter().count(), 2);
}

#[test]
fn what_is_tried_again_only_after_hours_is_repeated_meanwhile() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &failed(0));
    let at = troubles.next_step(REPEAT).expect("a repetition");
    assert_eq!(at, unix(HOUR));
    let entries = troubles.pass_time(REPEAT, at).entries;
    assert_eq!(shown(&entries), [(EntryState::Ongoing, Severity::Error, 1)]);
    // The next attempt fails as well, before its time.
    assert_eq!(react(&mut troubles, &failed(2 * HOUR)), []);
    assert_eq!(troubles.next_step(REPEAT), Some(unix(3 * HOUR)));
    assert_eq!(
        troubles.next_step(None),
        Some(unix(2 * HOUR) + 30 * 24 * HOUR)
    );
}

#[test]
fn a_trouble_is_forgotten_if_nothing_is_heard_of_it() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &failed(0));
    deliver(&mut troubles);
    let reaction = troubles.pass_time(REPEAT, unix(31 * 24 * HOUR));
    assert_eq!(reaction.entries, []);
    assert_eq!(reaction.over, ["issuance/a.test"]);
}

#[test]
fn troubles_survive_as_they_are() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &failed(0));
    deliver(&mut troubles);
    let changes = troubles.take_changes();
    assert_eq!(troubles.take_changes(), []);
    let mut after = Troubles::default();
    for (key, trouble) in changes {
        let json = serde_json::to_string(&trouble.expect("it lasts")).expect("JSON");
        after.restore(key, serde_json::from_str(&json).expect("the same"));
    }
    assert_eq!(react(&mut after, &failed(60)), [], "not repeated at once");
    let renewed = event(EventKind::CertificateRenewed, Severity::Info, 70);
    assert_eq!(
        react(&mut after, &renewed),
        [(EntryState::Recovered, Severity::Info, 1)]
    );
}

/// What the troubles of an earlier process lead to in one that has run for so long and has completed
/// these surveys, with an upstream `app` whose health checks need ten minutes.
fn after_restart(troubles: &mut Troubles, seconds: u64, complete: &[Survey]) -> Vec<String> {
    let checks = HashMap::from([("app".into(), Duration::from_secs(600))]);
    let progress = Progress {
        uptime: Duration::from_secs(seconds),
        is_complete: &|survey| complete.contains(&survey),
        checks: &checks,
    };
    let reaction = troubles.end_unconfirmed(&progress, unix(0));
    let entries = reaction.entries.iter();
    assert!(
        entries
            .clone()
            .all(|entry| entry.state == EntryState::Recovered)
    );
    entries.filter_map(|entry| entry.trouble.clone()).collect()
}

fn down(upstream: &str) -> Event {
    Event {
        upstream: Some(upstream.into()),
        server: Some("10.0.0.1:80".into()),
        ..event(EventKind::UpstreamDown, Severity::Warning, 0)
    }
}

#[test]
fn what_is_not_found_again_after_a_restart_is_over_when_it_would_have_been_found() {
    let mut before = Troubles::default();
    for one in [
        failed(0),
        event(EventKind::StorageFailed, Severity::Critical, 0),
        event(EventKind::CertificateExpired, Severity::Critical, 0),
        event(EventKind::CertificateRevoked, Severity::Critical, 0),
        event(EventKind::StapleFailed, Severity::Error, 0),
        event(EventKind::ConfigRejected, Severity::Error, 0),
        down("app"),
        down("gone"),
    ] {
        react(&mut before, &one);
    }
    deliver(&mut before);
    let mut after = Troubles::default();
    for (key, trouble) in before.take_changes() {
        after.restore(key, trouble.expect("it lasts"));
    }
    // Nothing is repeated that may be over.
    assert_eq!(after.pass_time(REPEAT, unix(2 * HOUR)).entries, []);
    assert_eq!(after.pass_time(REPEAT, unix(200 * HOUR)).entries, []);
    let mut over = |seconds, complete: &[Survey]| after_restart(&mut after, seconds, complete);
    assert_eq!(over(0, &[]), ["upstream/gone/10.0.0.1:80"]);
    assert_eq!(over(119, &[]), [""; 0]);
    assert_eq!(over(120, &[]), ["config/"]);
    assert_eq!(over(599, &[Survey::Certificates]), ["validity/a.test"]);
    assert_eq!(over(599, &[Survey::Storage]), ["storage/"]);
    assert_eq!(over(600, &[]), ["upstream/app/10.0.0.1:80"]);
    assert_eq!(over(24 * 3600, &[]), ["revoked/a.test", "staple/a.test"]);
    let keys: Vec<&String> = after.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["issuance/a.test"]);
}

#[test]
fn what_is_found_again_after_a_restart_lasts() {
    let mut before = Troubles::default();
    react(&mut before, &down("app"));
    deliver(&mut before);
    let mut after = Troubles::default();
    for (key, trouble) in before.take_changes() {
        after.restore(key, trouble.expect("it lasts"));
    }
    assert_eq!(react(&mut after, &down("app")), [], "no news");
    assert_eq!(after_restart(&mut after, 9999, &[]), [""; 0]);
    let entries = after.pass_time(REPEAT, unix(HOUR)).entries;
    assert_eq!(
        shown(&entries),
        [(EntryState::Ongoing, Severity::Warning, 1)]
    );
}

#[test]
fn a_trouble_that_becomes_less_than_is_wanted_is_over() {
    let mut troubles = Troubles::default();
    let expired = event(EventKind::CertificateExpired, Severity::Critical, 0);
    react(&mut troubles, &expired);
    deliver(&mut troubles);
    // The recipient wants what is critical, or only what has expired.
    let expiring = event(EventKind::CertificateExpiring, Severity::Error, 60);
    let reaction = troubles.observe(&expiring, false, REPEAT, unix(60));
    assert_eq!(
        shown(&reaction.entries),
        [(EntryState::Recovered, Severity::Info, 1)]
    );
    assert_eq!(
        reaction.entries[0].event.message,
        "it is no longer as grave: CertificateExpiring"
    );
    assert_eq!(troubles.next_step(REPEAT), None);
    // Another event that it does not want says nothing about the trouble.
    react(&mut troubles, &failed(70));
    let vetoed = event(EventKind::CertificateVetoed, Severity::Error, 80);
    let reaction = troubles.observe(&vetoed, false, REPEAT, unix(80));
    assert_eq!(reaction, Reaction::default());
}

#[test]
fn what_the_recipient_no_longer_wants_is_forgotten() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &down("app"));
    assert!(troubles.retain(|_| true).is_empty());
    assert_eq!(troubles.retain(|_| false).len(), 1);
    assert_eq!(troubles.next_step(REPEAT), None);
}

#[test]
fn a_clock_that_is_set_back_puts_nothing_off() {
    let mut troubles = Troubles::default();
    let late = 1_000_000 * HOUR;
    react(
        &mut troubles,
        &Event {
            at: unix(late),
            ..down("app")
        },
    );
    assert_eq!(troubles.pass_time(REPEAT, unix(0)).entries, []);
    let entries = troubles.pass_time(REPEAT, unix(HOUR)).entries;
    assert_eq!(entries.len(), 1, "an hour later");
}

#[test]
fn what_lasts_for_months_is_still_reported_and_its_end_too() {
    let mut troubles = Troubles::default();
    react(&mut troubles, &down("app"));
    deliver(&mut troubles);
    for day in 1..90 {
        let entries = troubles.pass_time(REPEAT, unix(day * 24 * HOUR)).entries;
        assert_eq!(entries.len(), 1, "{day}");
    }
    let up = Event {
        kind: EventKind::UpstreamUp,
        severity: Severity::Info,
        ..down("app")
    };
    let reaction = troubles.observe(&up, false, REPEAT, unix(91 * 24 * HOUR));
    assert_eq!(reaction.entries.len(), 1);
}

#[test]
fn the_least_severe_trouble_makes_room() {
    let mut troubles = Troubles::default();
    let rejected = event(EventKind::ConfigRejected, Severity::Error, 0);
    react(&mut troubles, &rejected);
    let of = |number: usize| {
        let mut one = event(EventKind::CertificateFailed, Severity::Warning, 1);
        one.domain = format!("{number}.test");
        one
    };
    for number in 0..MAX_TROUBLES {
        react(&mut troubles, &of(number));
    }
    assert_eq!(troubles.iter().count(), MAX_TROUBLES);
    assert_eq!(react(&mut troubles, &rejected), [], "it is known");
}
