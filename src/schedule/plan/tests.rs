use super::*;
use crate::schedule::{DAY, FailureClass, HOUR};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const WINDOW: f64 = 1.0 / 3.0;

/// A certificate of this lifetime with this much left at `NOW`.
fn life(length: i64, left: i64) -> Lifetime {
    Lifetime {
        not_before: NOW + left - length,
        not_after: NOW + left,
        seed: 0,
    }
}

fn with(life: Lifetime) -> Facts {
    Facts {
        life: Some(life),
        retry: None,
    }
}

fn plan(facts: impl IntoIterator<Item = (&'static str, Facts)>) -> Plan<&'static str> {
    let mut plan = Plan::new(WINDOW);
    for (key, facts) in facts {
        plan.set(key, facts, NOW);
    }
    plan
}

fn fail(
    plan: &mut Plan<&'static str>,
    key: &'static str,
    class: FailureClass,
    now: UnixTime,
) -> Retry {
    assert!(plan.mark_running(&key), "{key}");
    let failure = Failure::new(class, "why");
    let mut rng = Rng::with_seed(1);
    plan.record_failure(&key, &failure, Some("ca"), now, &mut rng)
        .expect("in the plan")
}

#[test]
fn what_is_due_comes_in_the_order_of_urgency() {
    let mut plan = plan([
        ("fresh", with(life(90 * DAY, 80 * DAY))),
        ("due", with(life(90 * DAY, 29 * DAY))),
        ("longer due", with(life(90 * DAY, 20 * DAY))),
        ("short", with(life(160 * HOUR, 70 * HOUR))),
        ("late", with(life(90 * DAY, 9 * DAY))),
        ("over", with(life(90 * DAY, -DAY))),
        ("missing", Facts::default()),
        ("asked for", with(life(90 * DAY, 89 * DAY))),
    ]);
    assert!(plan.request_now(&"asked for", NOW));
    let expected = [
        "asked for",
        "over",
        "late",
        "missing",
        "short",
        "longer due",
        "due",
    ];
    assert_eq!(plan.due(NOW, 100), expected);
    assert_eq!(plan.due(NOW, 3), expected[..3], "asking changes nothing");
    assert!(plan.next_wake() <= Some(NOW));

    for key in expected {
        assert!(plan.mark_running(&key));
        assert!(!plan.mark_running(&key), "twice");
    }
    assert_eq!(plan.running(), 7);
    assert_eq!(plan.due(NOW, 100), [""; 0]);
    let fresh = life(90 * DAY, 80 * DAY);
    assert_eq!(plan.next_wake(), Some(fresh.due_at(WINDOW)));
    assert!(!plan.mark_running(&"unknown"));
}

#[test]
fn states_tell_how_each_stands() {
    let retry = |class, next| Retry {
        failures: 3,
        class,
        last: NOW,
        next,
        ..Retry::default()
    };
    let soon = Some(NOW + 60);
    let table = [
        ("missing", Facts::default(), CertState::Missing),
        ("valid", with(life(90 * DAY, 40 * DAY)), CertState::Valid),
        ("due", with(life(90 * DAY, 20 * DAY)), CertState::Due),
        ("over", with(life(90 * DAY, -1)), CertState::Expired),
        (
            "failed",
            Facts {
                life: Some(life(90 * DAY, DAY)),
                retry: Some(retry(FailureClass::Network, soon)),
            },
            CertState::Failed {
                failures: 3,
                next: NOW + 60,
            },
        ),
        (
            "paused",
            Facts {
                life: None,
                retry: Some(retry(FailureClass::Paused, None)),
            },
            CertState::Paused,
        ),
        (
            "failures of the one before",
            Facts {
                life: Some(life(90 * DAY, 80 * DAY)),
                retry: Some(retry(FailureClass::Network, soon)),
            },
            CertState::Valid,
        ),
    ];
    let mut plan = plan(table.iter().map(|(key, facts, _)| (*key, facts.clone())));
    for (key, facts, state) in &table {
        assert_eq!(plan.state(key, NOW), Some(*state), "{key}");
        assert_eq!(plan.life(key), facts.life, "{key}");
    }
    assert_eq!(plan.iter(NOW).count(), plan.len());
    assert!(plan.mark_running(&"missing"));
    assert_eq!(plan.state(&"missing", NOW), Some(CertState::Obtaining));
    assert_eq!(plan.next_attempt(&"missing"), None);
    assert_eq!(plan.next_attempt(&"failed"), Some(NOW + 60));
    assert_eq!(plan.state(&"unknown", NOW), None);
    let json = serde_json::to_value(plan.state(&"failed", NOW)).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({"state": "failed", "failures": 3, "next": NOW + 60})
    );
}

#[test]
fn failures_wait_and_success_forgets_them() {
    let mut plan = plan([("a", Facts::default()), ("b", Facts::default())]);
    let retry = fail(&mut plan, "a", FailureClass::Network, NOW);
    let next = retry.next.expect("tried again");
    assert_eq!(plan.retry(&"a"), Some(&retry));
    assert_eq!(plan.due(NOW, 9), ["b"]);
    assert_eq!(plan.due(next - 1, 9), ["b"]);
    assert_eq!(plan.due(next, 9), ["b", "a"], "never tried ones first");
    let retry = fail(&mut plan, "a", FailureClass::Network, next);
    assert_eq!(retry.failures, 2);

    let new = life(90 * DAY, 90 * DAY);
    plan.record_success(&"a", new, NOW);
    plan.record_success(&"b", new, NOW);
    assert_eq!(plan.retry(&"a"), None);
    assert_eq!(plan.state(&"a", NOW), Some(CertState::Valid));
    assert_eq!(plan.next_wake(), Some(new.due_at(WINDOW)));
    assert_eq!(plan.running(), 0);
}

#[test]
fn what_is_paused_waits_for_a_request() {
    let mut plan = plan([("a", Facts::default())]);
    fail(&mut plan, "a", FailureClass::Paused, NOW);
    assert_eq!(plan.due(NOW + 4000 * DAY, 9), [""; 0]);
    assert_eq!(plan.next_wake(), None);
    assert!(plan.request_now(&"a", NOW));
    assert_eq!(plan.due(NOW, 9), ["a"]);
    fail(&mut plan, "a", FailureClass::Paused, NOW);
    assert_eq!(plan.due(NOW + 4000 * DAY, 9), [""; 0]);
}

#[test]
fn a_request_overrides_the_back_off_once() {
    let mut plan = plan([("a", with(life(90 * DAY, 80 * DAY)))]);
    assert!(plan.request_now(&"a", NOW));
    assert_eq!(plan.due(NOW, 9), ["a"]);
    let retry = fail(&mut plan, "a", FailureClass::Refused, NOW);
    let next = retry.next.expect("tried again");
    assert_eq!(plan.due(NOW, 9), [""; 0]);
    assert_eq!(plan.due(next, 9), ["a"], "still wanted");
    assert!(plan.mark_running(&"a"));
    assert!(plan.request_now(&"a", NOW), "known, and under way");
    plan.record_success(&"a", life(90 * DAY, 90 * DAY), next);
    assert_eq!(plan.due(next, 9), [""; 0]);
    assert!(!plan.request_now(&"b", NOW));
}

#[test]
fn what_is_put_off_makes_room_for_others() {
    let mut plan = plan([("a", Facts::default()), ("b", Facts::default())]);
    plan.defer(&"a", NOW + HOUR);
    assert_eq!(plan.due(NOW, 9), ["b"]);
    assert!(plan.mark_running(&"b"));
    plan.defer(&"b", NOW + 10);
    assert_eq!(plan.running(), 0);
    assert_eq!(plan.next_wake(), Some(NOW + 10));
    assert_eq!(
        plan.state(&"a", NOW),
        Some(CertState::Missing),
        "no failure"
    );
    assert_eq!(plan.due(NOW + HOUR, 9), ["a", "b"]);
    assert!(plan.mark_running(&"a"));
    plan.release(&"a");
    assert_eq!(plan.due(NOW + HOUR, 9), ["a", "b"]);

    // Deferring does not make anything due.
    plan.set("a", with(life(90 * DAY, 80 * DAY)), NOW);
    plan.defer(&"a", NOW + HOUR);
    assert_eq!(plan.due(NOW + 2 * HOUR, 9), ["b"]);
}

#[test]
fn what_is_taken_out_while_worked_on_stays_out() {
    let mut plan = plan([("a", Facts::default()), ("b", Facts::default())]);
    assert!(plan.mark_running(&"a"));
    plan.remove(&"a");
    plan.remove(&"b");
    plan.record_success(&"a", life(90 * DAY, 90 * DAY), NOW);
    assert!(plan.is_empty());
    assert_eq!(plan.running(), 0);
    assert_eq!(plan.due(NOW, 9), [""; 0]);
    assert_eq!(plan.next_wake(), None);
}

#[test]
fn another_window_moves_what_is_planned() {
    let mut plan = plan([("a", with(life(90 * DAY, 40 * DAY)))]);
    assert_eq!(plan.due(NOW, 9), [""; 0]);
    plan.set_window(0.5);
    assert_eq!(plan.due(NOW, 9), ["a"]);
    plan.set_window(WINDOW);
    assert_eq!(plan.due(NOW, 9), [""; 0]);
}

#[test]
fn a_certificate_of_a_minute_is_renewed_ten_times_in_a_row() {
    let mut plan = plan([("a", Facts::default())]);
    let mut now = NOW;
    for round in 0..11 {
        assert_eq!(plan.due(now, 9), ["a"], "round {round}");
        assert!(plan.mark_running(&"a"));
        now += 2;
        let new = Lifetime::new(now - 1, now + 59, &[round; 8]);
        plan.record_success(&"a", new, now);
        let wake = plan.next_wake().expect("a next time");
        let left = new.left(wake);
        assert!((25..=31).contains(&left), "round {round}: {left} s left");
        assert_eq!(plan.due(wake - 1, 9), [""; 0]);
        now = wake;
    }
}

#[test]
fn a_certificate_that_comes_due_is_not_asked_for_again_and_again() {
    let mut plan = plan([("a", Facts::default())]);
    let mut orders = 0;
    let mut now = NOW;
    while now < NOW + HOUR {
        if plan.due(now, 1).is_empty() {
            now = plan.next_wake().expect("planned");
            continue;
        }
        assert!(plan.mark_running(&"a"));
        orders += 1;
        // It began an hour ago, and ends in an hour.
        plan.record_success(&"a", Lifetime::new(now - HOUR, now + HOUR, &[255; 8]), now);
    }
    assert!(orders <= 11, "{orders}");
}

#[test]
fn a_forward_leap_is_one_wave_and_the_way_back_stalls_nothing() {
    let keys: Vec<usize> = (0..100).collect();
    let mut plan: Plan<usize> = Plan::new(WINDOW);
    for key in &keys {
        plan.set(*key, with(life(90 * DAY, 80 * DAY)), NOW);
    }
    assert_eq!(plan.due(NOW, 200).len(), 0);

    let leap = 14 * 365 * DAY;
    let mut rng = Rng::with_seed(5);
    let mut tries = vec![0; keys.len()];
    let mut now = NOW + leap;
    while now < NOW + leap + HOUR {
        for key in plan.due(now, 200) {
            assert!(plan.mark_running(&key));
            tries[key] += 1;
            let came = life(90 * DAY, 90 * DAY);
            let failure = came.check_issued(now).expect_err("over, by our clock");
            plan.record_failure(&key, &failure, None, now, &mut rng);
        }
        now += 60;
    }
    let most = tries.iter().max();
    assert!(most <= Some(&2), "{most:?} in the first hour");
    assert_eq!(plan.len(), keys.len(), "nothing is lost");

    // Corrected: no certificate was ever in need.
    assert_eq!(plan.due(NOW + 2 * HOUR, 200).len(), 0);
    let states: Vec<_> = plan.iter(NOW + 2 * HOUR).map(|(_, state)| state).collect();
    assert_eq!(states, vec![CertState::Valid; keys.len()]);
}

#[test]
fn retries_set_by_a_mad_clock_are_pulled_in() {
    let mut plan = plan([("a", Facts::default())]);
    let mad = NOW + 14 * 365 * DAY;
    assert_eq!(plan.due(mad, 9), ["a"]);
    fail(&mut plan, "a", FailureClass::Internal, mad);
    assert_eq!(plan.due(NOW, 9), [""; 0]);
    let wake = plan.next_wake().expect("planned");
    assert!((NOW..NOW + HOUR).contains(&wake), "{}", wake - NOW);
    assert_eq!(plan.due(wake, 9), ["a"]);

    // As stored by a process that has ended since.
    let retry = Retry {
        last: mad,
        next: Some(mad + HOUR),
        ..Retry::default()
    };
    let facts = Facts {
        life: None,
        retry: Some(retry),
    };
    plan.set("a", facts, NOW);
    assert_eq!(plan.due(NOW + HOUR, 9), ["a"]);
}

#[test]
fn entries_are_small_and_many() {
    let size = size_of::<(u32, Entry)>() + size_of::<(UnixTime, u32)>();
    assert!(size <= 128, "{size}");
    let mut plan: Plan<u32> = Plan::new(WINDOW);
    let mut rng = Rng::with_seed(1);
    for key in 0..30_000 {
        let left = rng.i64(0..90 * DAY);
        plan.set(key, with(life(90 * DAY, left)), NOW);
    }
    let due = plan.due(NOW, usize::MAX);
    assert!((9_000..10_800).contains(&due.len()), "{}", due.len());
    for key in due {
        assert!(plan.mark_running(&key));
        plan.record_success(&key, life(90 * DAY, 90 * DAY), NOW);
    }
    assert_eq!(plan.due(NOW, 1), [0; 0]);
}

#[test]
fn advice_brings_a_renewal_forward_and_never_puts_it_off() {
    let mut plan = plan([
        ("sooner", with(life(90 * DAY, 80 * DAY))),
        ("later", with(life(90 * DAY, 80 * DAY))),
        ("at once", with(life(90 * DAY, 80 * DAY))),
    ]);
    let own = plan.next_attempt(&"later").expect("planned");
    plan.set_advised_time(&"sooner", Some(NOW + DAY));
    plan.set_advised_time(&"later", Some(own + DAY));
    plan.set_advised_time(&"at once", Some(NOW - DAY));
    assert_eq!(plan.next_attempt(&"sooner"), Some(NOW + DAY));
    assert_eq!(plan.next_attempt(&"later"), Some(own));
    assert_eq!(plan.due(NOW, 10), ["at once"]);
    assert_eq!(plan.state(&"at once", NOW), Some(CertState::Due));
    assert_eq!(plan.state(&"sooner", NOW), Some(CertState::Valid));
    assert_eq!(plan.state(&"sooner", NOW + DAY), Some(CertState::Due));

    // A certificate that cannot be obtained is retried with the usual patience.
    fail(&mut plan, "at once", FailureClass::Network, NOW);
    assert_eq!(plan.due(NOW, 10), Vec::<&str>::new());
    let state = plan.state(&"at once", NOW);
    assert!(matches!(state, Some(CertState::Failed { failures: 1, .. })));

    // Withdrawn, or about a certificate that has been replaced.
    plan.set_advised_time(&"sooner", None);
    assert_eq!(plan.next_attempt(&"sooner"), plan.next_attempt(&"later"));
    plan.set_advised_time(&"at once", Some(NOW - DAY));
    plan.record_success(&"at once", life(90 * DAY, 90 * DAY), NOW);
    assert_eq!(plan.state(&"at once", NOW), Some(CertState::Valid));
    plan.set_advised_time(&"later", Some(NOW + DAY));
    plan.set("later", with(life(90 * DAY, 80 * DAY)), NOW);
    assert_eq!(
        plan.next_attempt(&"later"),
        Some(NOW + DAY),
        "the same certificate"
    );
    plan.set("later", with(life(90 * DAY, 85 * DAY)), NOW);
    assert!(plan.next_attempt(&"later") > Some(own));
    // It also overrides the rest of a new certificate.
    plan.set_advised_time(&"at once", Some(NOW));
    assert_eq!(plan.due(NOW, 10), ["at once"]);
}
