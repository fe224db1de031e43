//! Keeps from asking a service that does not answer.

use std::sync::{Mutex, MutexGuard};

use crate::clock::UnixTime;
use crate::lock::MutexExt as _;

/// So many failures in a row, and the service is not asked for a while.
const FAILURES: u32 = 5;

/// How many seconds it is not asked; twice as many each time that it fails again.
const FIRST_PAUSE: i64 = 10;

/// The longest pause, in seconds.
const LONGEST_PAUSE: i64 = 160;

/// A circuit breaker.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Not asked before.
    pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    since: UnixTime,
    seconds: i64,
    /// Whether one asks in spite of it.
    probing: bool,
}

impl Breaker {
    /// Whether the service may be asked now. After a pause one may, for all to learn from.
    pub(super) fn admits(&self, now: UnixTime) -> bool {
        let mut state = self.lock();
        let Some(pause) = &mut state.pause else {
            return true;
        };
        let passed = now - pause.since;
        if (0..pause.seconds).contains(&passed) {
            return false;
        }
        // Others wait for this one, or for the next where it never ends.
        pause.since = now;
        pause.probing = true;
        true
    }

    /// The service has answered.
    pub(super) fn record_success(&self) {
        *self.lock() = State::default();
    }

    /// The service has not answered. For how many seconds it is left alone from now on, where
    /// that is so.
    pub(super) fn record_failure(&self, now: UnixTime) -> Option<i64> {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return None;
        }
        let seconds = match state.pause {
            // A question that was under way when the pause began.
            Some(pause) if !pause.probing => return None,
            Some(pause) => (pause.seconds * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        state.pause = Some(Pause {
            since: now,
            seconds,
            probing: false,
        });
        Some(seconds)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock_unpoisoned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn it_opens_probes_and_closes() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(breaker.admits(unix(0)) && breaker.record_failure(unix(0)).is_none());
        }
        assert_eq!(breaker.record_failure(unix(0)), Some(10));
        assert!(!breaker.admits(unix(0)) && !breaker.admits(unix(9)));
        assert!(breaker.admits(unix(10)), "one may try");
        assert!(!breaker.admits(unix(10)) && !breaker.admits(unix(19)));
        assert_eq!(breaker.record_failure(unix(12)), Some(20));
        assert!(!breaker.admits(unix(31)) && breaker.admits(unix(32)));
        breaker.record_success();
        assert!(breaker.admits(unix(32)) && breaker.admits(unix(32)));
        assert!(
            breaker.record_failure(unix(32)).is_none(),
            "it counts from none again"
        );
    }

    #[test]
    fn answers_in_between_keep_it_closed() {
        let breaker = Breaker::default();
        for _ in 0..10 * FAILURES {
            assert!(breaker.record_failure(unix(0)).is_none());
            breaker.record_success();
        }
    }

    #[test]
    fn pauses_have_an_end() {
        let breaker = Breaker::default();
        let mut now = 0;
        for _ in 0..20 {
            breaker.record_failure(unix(now));
            now += 1000;
            assert!(breaker.admits(unix(now)));
        }
        assert_eq!(breaker.record_failure(unix(now + 1)), Some(LONGEST_PAUSE));
        assert!(
            breaker.admits(unix(0)),
            "a clock that was set back holds nobody"
        );
    }
}
