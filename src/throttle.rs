//! Keeps what clients or upstreams cause again and again from filling the log.
//!
//! It counts lines and does not see their content; the caller asks it before logging.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The lower half of what a throttle remembers.
const COUNT: u64 = 0xffff_ffff;

/// Admits so many log lines in a while, by default one in a second, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    most: u64,
    /// In seconds.
    every: u64,
    /// In the upper half the second, from 1, in which the while began, in the lower one how many lines
    /// it has had.
    admitted: AtomicU64,
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
        Self::new(1, time.as_secs().max(1))
    }

    /// So many lines in each second.
    pub fn per_second(most: u32) -> Self {
        Self::new(u64::from(most), 1)
    }

    fn new(most: u64, every: u64) -> Self {
        Self {
            most,
            every,
            admitted: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Returns how many lines were suppressed since the last one, if a line may be written now.
    pub fn admit(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.admit_at(START.elapsed().as_secs())
    }

    fn admit_at(&self, second: u64) -> Option<u64> {
        let second = second.saturating_add(1) & COUNT;
        let count_one = |before: u64| {
            let (began, count) = (before >> 32, before & COUNT);
            match began != 0 && second < began.saturating_add(self.every) {
                true => (count < self.most).then_some(before + 1),
                false => (self.most > 0).then_some(second << 32 | 1),
            }
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.admitted.fetch_update(set, fetch, count_one).is_err() {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        // Most lines come when none was left out.
        match self.held_back.load(Ordering::Relaxed) {
            0 => Some(0),
            _ => Some(self.held_back.swap(0, Ordering::Relaxed)),
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

    #[test]
    fn a_throttle_may_admit_more_than_one() {
        let throttle = Throttle::per_second(2);
        let at = |second| throttle.admit_at(second);
        assert_eq!([at(7), at(7), at(7), at(7)], [Some(0), Some(0), None, None]);
        assert_eq!([at(8), at(8), at(8)], [Some(2), Some(0), None]);
        assert_eq!(at(100), Some(1));
    }
}
