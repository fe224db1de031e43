//! Keeps repeated effects of clients or upstreams from filling the log.
//!
//! It counts lines and does not see their content; the caller asks it before logging.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Admits one log line in a while, by default a second, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    /// In seconds.
    every: u64,
    /// The second of the last line, from 1.
    last: AtomicU64,
    held_back: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::every(Duration::from_secs(1))
    }
}

impl Throttle {
    /// One line in each such time, in whole seconds.
    pub fn every(time: Duration) -> Self {
        Self {
            every: time.as_secs().max(1),
            last: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Returns how many lines were suppressed since the last one, if a line may be written now.
    pub fn admit(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.admit_at(START.elapsed().as_secs())
    }

    fn admit_at(&self, second: u64) -> Option<u64> {
        let second = second.saturating_add(1);
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || last.saturating_add(self.every) <= second;
        let first = due
            && self
                .last
                .compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if first {
            Some(self.held_back.swap(0, Ordering::Relaxed))
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_counts_what_it_holds_back() {
        let throttle = Throttle::default();
        assert_eq!(throttle.admit_at(0), Some(0));
        assert_eq!(throttle.admit_at(0), None);
        assert_eq!(throttle.admit_at(0), None);
        assert_eq!(throttle.admit_at(1), Some(2));
        assert_eq!(throttle.admit_at(2), Some(0));
    }

    #[test]
    fn a_throttle_may_be_stricter() {
        let throttle = Throttle::every(Duration::from_secs(60));
        assert_eq!(throttle.admit_at(5), Some(0));
        assert_eq!(throttle.admit_at(64), None);
        assert_eq!(throttle.admit_at(65), Some(1));
    }
}
