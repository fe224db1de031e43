//! Names that could not have a certificate, and when each is worth another try.

use std::time::Duration;

use moka::ops::compute::Op;

use super::lru::{LruCache, lru_cache};
use crate::clock::UnixTime;
use crate::host::HostName;

/// How many names are kept in mind; beyond, those that failed last stay.
const ROOM: u64 = 20_000;

/// How many seconds pass after the first failure; twice as many after each more.
const FIRST: i64 = 60;

/// The longest pause in seconds, unless the issuer knows better.
const LONGEST: i64 = 6 * 3600;

/// The longest pause in seconds that an issuer may ask for: public CAs count by the week.
const LONGEST_SAID: i64 = 7 * 24 * 3600;

/// What is remembered of failures.
pub(super) struct NegativeCache(LruCache<HostName, Failed>);

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    since: UnixTime,
    seconds: i64,
}

impl Default for NegativeCache {
    fn default() -> Self {
        Self(lru_cache(ROOM))
    }
}

impl NegativeCache {
    /// Whether `host` has failed so lately that it is not tried.
    pub(super) fn is_held(&self, host: &str, now: UnixTime) -> bool {
        self.0.get(host).is_some_and(|failed| {
            // A clock that was set back holds nobody.
            (0..failed.seconds).contains(&(now - failed.since))
        })
    }

    /// `name` has failed; `retry_after` is when to try again, where that is known. How many seconds
    /// it is left alone.
    pub(super) fn record_failure(
        &self,
        name: &HostName,
        retry_after: Option<Duration>,
        now: UnixTime,
    ) -> i64 {
        let said = retry_after.map(|after| {
            let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
            seconds.clamp(1, LONGEST_SAID)
        });
        let entry = self.0.entry_by_ref(name).and_compute_with(|present| {
            let times = present.map_or(0, |present| present.into_value().times);
            let doubled = FIRST.saturating_mul(1_i64 << times.min(16));
            Op::Put(Failed {
                times: times.saturating_add(1),
                since: now,
                seconds: said.unwrap_or_else(|| doubled.min(LONGEST)),
            })
        });
        entry
            .into_entry()
            .map_or(FIRST, |entry| entry.into_value().seconds)
    }

    /// `name` has its certificate.
    pub(super) fn forget_name(&self, name: &HostName) {
        self.0.invalidate(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn pauses_grow_to_a_bound_and_end() {
        let failures = NegativeCache::default();
        let name: HostName = "a.example".parse().expect("a name");
        assert!(!failures.is_held("a.example", unix(0)));
        let mut now = 0;
        for expected in [60, 120, 240, 480, 960] {
            assert_eq!(failures.record_failure(&name, None, unix(now)), expected);
            assert!(
                failures.is_held("a.example", unix(now))
                    && !failures.is_held("b.example", unix(now))
            );
            assert!(failures.is_held("a.example", unix(now + expected - 1)));
            now += expected;
            assert!(!failures.is_held("a.example", unix(now)));
        }
        for _ in 0..40 {
            assert!(failures.record_failure(&name, None, unix(now)) <= LONGEST);
        }
        assert_eq!(failures.record_failure(&name, None, unix(now)), LONGEST);
        assert!(
            !failures.is_held("a.example", unix(now - 1)),
            "the clock was set back"
        );
        failures.forget_name(&name);
        assert!(!failures.is_held("a.example", unix(now)));
        assert_eq!(failures.record_failure(&name, None, unix(now)), 60);
    }

    #[test]
    fn what_the_maker_says_counts() {
        let failures = NegativeCache::default();
        let name: HostName = "a.example".parse().expect("a name");
        let note =
            |seconds| failures.record_failure(&name, Some(Duration::from_secs(seconds)), unix(0));
        assert_eq!((note(5), note(0)), (5, 1));
        assert_eq!(note(u64::MAX), LONGEST_SAID);
    }
}
