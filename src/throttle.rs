//! Keeps what clients or upstreams cause again and again from filling the log.
//!
//! It counts lines and knows nothing of what they say; whoever logs asks it first.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one log line through in a while, by default a second, and counts the others.
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
    /// One line in a time, which is taken for whole seconds.
    pub fn every(time: Duration) -> Self {
        Self {
            every: time.as_secs().max(1),
            last: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now; if so, how many were not since the last one.
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
