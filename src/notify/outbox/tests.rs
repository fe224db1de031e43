use super::*;
use crate::clock::unix;
use crate::event::EventKind;
use crate::notify::EntryState;

const REPEAT: Option<Duration> = Some(Duration::from_secs(3600));

fn event(kind: EventKind, severity: Severity, domain: &str, at: i64) -> Event {
    Event::new(unix(at), kind, severity, domain, "a message")
}

fn failed(domain: &str, at: i64) -> Event {
    event(EventKind::CertificateFailed, Severity::Error, domain, at)
}

fn renewed(domain: &str, at: i64) -> Event {
    event(EventKind::CertificateRenewed, Severity::Info, domain, at)
}

/// Applies changes as a journal does.
fn apply(kept: &mut BTreeMap<String, Value>, changes: Vec<Change>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(kept.insert(key, value)),
            None => drop(kept.remove(&key)),
        }
    }
}

fn compose(outbox: &mut Outbox, at: i64) -> Notification {
    outbox.compose(("gw", unix(at)), false, 100);
    outbox.current().expect("a notification").clone()
}

#[test]
fn a_thousand_failing_names_are_one_digest_of_bounded_size() {
    let mut outbox = Outbox::default();
    for number in 0..1000 {
        let lost = outbox.observe(&failed(&format!("{number}.test"), 1), true, REPEAT, unix(1));
        assert_eq!(lost, 0);
    }
    let critical = event(EventKind::StorageFailed, Severity::Critical, "", 2);
    outbox.observe(&critical, true, REPEAT, unix(2));
    let digest = compose(&mut outbox, 10);
    assert_eq!((digest.entries.len(), digest.omitted), (100, 901));
    assert_eq!(digest.severity, Severity::Critical);
    assert_eq!(digest.entries[0].event.kind, EventKind::StorageFailed);
    assert_eq!(digest.entries[1].event.domain, "0.test");
    assert!(!outbox.is_waiting());
    // Nothing else is composed until it has been delivered.
    outbox.observe(&failed("z.test", 11), true, REPEAT, unix(11));
    outbox.compose(("gw", unix(12)), false, 100);
    assert_eq!(outbox.current(), Some(&digest));
    outbox.delivered();
    let next = compose(&mut outbox, 13);
    assert_eq!((next.entries.len(), next.omitted), (1, 0));
    assert_ne!(next.id, digest.id);
}

#[test]
fn what_is_over_before_it_is_composed_is_not_reported() {
    let mut outbox = Outbox::default();
    outbox.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    outbox.observe(&renewed("a.test", 2), false, REPEAT, unix(2));
    assert!(!outbox.is_waiting());
    outbox.observe(&failed("a.test", 3), true, REPEAT, unix(3));
    let first = compose(&mut outbox, 4);
    // It may have arrived, so its end is reported.
    outbox.observe(&renewed("a.test", 5), false, REPEAT, unix(5));
    outbox.delivered();
    let second = compose(&mut outbox, 6);
    assert_eq!(second.entries[0].state, EntryState::Recovered);
    assert_eq!(second.entries[0].trouble, first.entries[0].trouble);
}

#[test]
fn a_trouble_that_comes_back_before_its_end_was_sent_still_ends() {
    let mut outbox = Outbox::default();
    outbox.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    compose(&mut outbox, 2);
    outbox.delivered();
    for at in [3, 5, 7] {
        outbox.observe(&renewed("a.test", at), false, REPEAT, unix(at));
        outbox.observe(&failed("a.test", at + 1), true, REPEAT, unix(at + 1));
    }
    outbox.observe(&renewed("a.test", 9), false, REPEAT, unix(9));
    let last = compose(&mut outbox, 10);
    assert_eq!(last.entries.len(), 1);
    assert_eq!(last.entries[0].state, EntryState::Recovered);
}

#[test]
fn the_end_of_what_was_refused_is_not_reported() {
    let mut outbox = Outbox::default();
    outbox.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    compose(&mut outbox, 2);
    outbox.give_up();
    outbox.observe(&renewed("a.test", 3), false, REPEAT, unix(3));
    assert!(!outbox.is_waiting());
}

#[test]
fn the_last_event_about_a_trouble_is_what_waits() {
    let mut outbox = Outbox::default();
    outbox.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    let again = Event {
        message: "another reason".to_owned(),
        ..failed("a.test", 5)
    };
    outbox.observe(&again, true, REPEAT, unix(5));
    let digest = compose(&mut outbox, 6);
    assert_eq!(digest.entries.len(), 1);
    assert_eq!(digest.entries[0].event, again);
    assert_eq!(digest.entries[0].since, unix(1));
}

#[test]
fn each_event_is_a_notification_of_its_own_if_so_wanted() {
    let mut outbox = Outbox::default();
    for domain in ["a.test", "b.test"] {
        outbox.observe(&failed(domain, 1), true, REPEAT, unix(1));
    }
    for domain in ["a.test", "b.test"] {
        outbox.compose(("gw", unix(2)), true, 100);
        let current = outbox.current().expect("a notification");
        assert_eq!(current.entries.len(), 1);
        assert_eq!(current.entries[0].event.domain, domain);
        outbox.delivered();
    }
}

#[test]
fn the_least_severe_make_room() {
    let mut outbox = Outbox::default();
    let info = |at| event(EventKind::CertificateRenewed, Severity::Info, "a.test", at);
    let mut lost = 0;
    for at in 0..MAX_WAITING as i64 {
        lost += outbox.observe(&info(at), true, REPEAT, unix(at));
    }
    assert_eq!(lost, 0);
    assert_eq!(
        outbox.observe(&failed("b.test", 9), true, REPEAT, unix(9)),
        1
    );
    assert_eq!(outbox.depth(), MAX_WAITING);
    outbox.compose(("gw", unix(10)), false, MAX_WAITING);
    let current = outbox.current().expect("a notification");
    assert_eq!(current.omitted, 1);
    assert_eq!(current.entries[0].event.domain, "b.test");
    assert_eq!(current.entries[1].event.at, unix(1), "the oldest is gone");
    // So does size.
    let mut outbox = Outbox::default();
    let long = Event {
        message: "x".repeat(MAX_OCTETS / 4),
        ..info(1)
    };
    for _ in 0..4 {
        outbox.observe(&long, true, REPEAT, unix(1));
    }
    assert_eq!(outbox.depth(), 3);
}

#[test]
fn nothing_that_is_kept_is_lost_at_any_step() {
    let (mut outbox, mut kept) = (Outbox::default(), BTreeMap::new());
    let restored = |kept: &BTreeMap<String, Value>| {
        let mut after = Outbox::default();
        after.restore(kept.clone());
        after
    };
    outbox.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    outbox.observe(&failed("b.test", 1), true, REPEAT, unix(1));
    outbox.count_lost(3);
    apply(&mut kept, outbox.take_changes());
    assert!(outbox.take_changes().is_empty());
    let mut after = restored(&kept);
    assert_eq!(after.depth(), 2);
    let digest = compose(&mut outbox, 2);
    assert_eq!(digest.omitted, 3);
    apply(&mut kept, outbox.take_changes());
    after = restored(&kept);
    assert_eq!(after.current(), Some(&digest), "with the same id");
    assert!(!after.is_waiting());
    // What is collected meanwhile comes after it.
    outbox.observe(&failed("c.test", 3), true, REPEAT, unix(3));
    outbox.delivered();
    apply(&mut kept, outbox.take_changes());
    let mut after = restored(&kept);
    assert_eq!((after.current(), after.depth()), (None, 1));
    // The recipient still learns that the first is over.
    after.observe(&renewed("a.test", 4), false, REPEAT, unix(4));
    assert_eq!(after.depth(), 2);
    let snapshot: BTreeMap<_, _> = outbox.snapshot().into_iter().collect();
    assert_eq!(snapshot, kept);
}

#[test]
fn what_was_kept_comes_before_what_is_new() {
    let (mut before, mut kept) = (Outbox::default(), BTreeMap::new());
    before.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    apply(&mut kept, before.take_changes());
    let mut after = Outbox::default();
    after.observe(&failed("b.test", 2), true, REPEAT, unix(2));
    after.restore(kept);
    let digest = compose(&mut after, 3);
    let domains = digest.entries.iter().map(|entry| &*entry.event.domain);
    assert_eq!(domains.collect::<Vec<_>>(), ["a.test", "b.test"]);
}

#[test]
fn ends_for_which_there_is_no_room_come_with_the_next_notification() {
    let mut outbox = Outbox::default();
    for number in 0..100 {
        outbox.observe(&failed(&format!("{number}.test"), 1), true, REPEAT, unix(1));
    }
    compose(&mut outbox, 2);
    outbox.delivered();
    for number in 0..100 {
        outbox.observe(
            &renewed(&format!("{number}.test"), 3),
            false,
            REPEAT,
            unix(3),
        );
        outbox.observe(
            &failed(&format!("{number}.other"), 3),
            true,
            REPEAT,
            unix(3),
        );
    }
    let digest = compose(&mut outbox, 4);
    let is_end = |entry: &&Entry| entry.state == EntryState::Recovered;
    assert_eq!(digest.entries.iter().filter(is_end).count(), 0);
    assert_eq!(digest.omitted, 0, "they are not only counted");
    outbox.delivered();
    let digest = compose(&mut outbox, 5);
    assert_eq!(digest.entries.iter().filter(is_end).count(), 100);
}

#[test]
fn the_end_of_a_trouble_makes_no_room_for_warnings() {
    let mut outbox = Outbox::default();
    outbox.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    compose(&mut outbox, 2);
    outbox.delivered();
    outbox.observe(&renewed("a.test", 3), false, REPEAT, unix(3));
    for number in 0..=MAX_WAITING {
        let domain = format!("{number}.test");
        let one = event(EventKind::CertificateFailed, Severity::Warning, &domain, 4);
        outbox.observe(&one, true, REPEAT, unix(4));
    }
    outbox.compose(("gw", unix(5)), false, 2 * MAX_WAITING);
    let current = outbox.current().expect("a notification");
    let mut ends = current.entries.iter();
    assert!(ends.any(|entry| entry.state == EntryState::Recovered));
}

#[test]
fn an_event_that_is_not_wanted_changes_no_end_that_waits() {
    let mut outbox = Outbox::default();
    outbox.observe(&failed("a.test", 1), true, REPEAT, unix(1));
    compose(&mut outbox, 2);
    outbox.delivered();
    outbox.observe(&renewed("a.test", 3), false, REPEAT, unix(3));
    let warning = event(EventKind::CertificateFailed, Severity::Warning, "a.test", 4);
    outbox.observe(&warning, false, REPEAT, unix(4));
    let digest = compose(&mut outbox, 5);
    assert_eq!(digest.entries[0].state, EntryState::Recovered);
    assert_eq!(digest.entries[0].event.kind, EventKind::CertificateRenewed);
}
