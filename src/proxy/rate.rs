//! How fast a request's body comes.

use std::time::{Duration, Instant};

/// The time after which a body must keep up.
const GRACE: Duration = Duration::from_secs(10);

/// Octets in a second that a body must keep up on average.
const LEAST: u64 = 1024;

/// The average rate of a body since its first part.
///
/// It is looked at when a part comes: a client that sends nothing is left to time-outs.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    since: Option<Instant>,
    octets: u64,
}

impl Rate {
    /// Counts a part and says whether the body still comes fast enough.
    pub(crate) fn is_fast_enough(&mut self, part: usize) -> bool {
        self.is_fast_enough_at(part, Instant::now())
    }

    fn is_fast_enough_at(&mut self, part: usize, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        self.octets = self
            .octets
            .saturating_add(part.try_into().unwrap_or(u64::MAX));
        let elapsed = now.saturating_duration_since(since);
        elapsed < GRACE || self.octets >= LEAST.saturating_mul(elapsed.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a body in parts of `size`, one in `every`, is fast enough for two minutes.
    fn lasts(size: usize, every: Duration) -> bool {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(120) {
            if !rate.is_fast_enough_at(size, start + at) {
                return false;
            }
            at += every;
        }
        true
    }

    #[test]
    fn a_body_must_keep_up_after_a_while() {
        let second = Duration::from_secs(1);
        assert!(lasts(1024, second));
        assert!(lasts(10 * 1024, 10 * second));
        assert!(!lasts(1000, second));
        assert!(!lasts(1, second / 10));
        assert!(lasts(1_000_000, 60 * second));
    }
}
