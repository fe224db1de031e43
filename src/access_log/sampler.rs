//! Keeps a flood of refusals from filling the log.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Admits so many lines in each second, and counts the others.
#[derive(Debug)]
pub struct Sampler {
    most: u64,
    /// The second, from 1, in the upper half, and how many lines of it were admitted.
    admitted: AtomicU64,
    held_back: AtomicU64,
}

impl Sampler {
    /// Admits `most` lines in each second.
    pub fn per_second(most: u32) -> Self {
        Self {
            most: u64::from(most),
            admitted: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Returns how many lines were left out since the last one, if a line may be written now.
    pub fn admit(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.admit_at(START.elapsed().as_secs())
    }

    fn admit_at(&self, second: u64) -> Option<u64> {
        let second = (second.saturating_add(1) & 0xffff_ffff) << 32;
        let count_one = |before: u64| {
            let count = before & 0xffff_ffff;
            match before & !0xffff_ffff == second {
                true if count >= self.most => None,
                true => Some(before + 1),
                false => Some(second + 1),
            }
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.admitted.fetch_update(set, fetch, count_one).is_ok() {
            // Most lines come when none was left out.
            match self.held_back.load(Ordering::Relaxed) {
                0 => Some(0),
                _ => Some(self.held_back.swap(0, Ordering::Relaxed)),
            }
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
    fn so_many_lines_are_admitted_in_each_second() {
        let sampler = Sampler::per_second(2);
        let at = |second| sampler.admit_at(second);
        assert_eq!([at(7), at(7), at(7), at(7)], [Some(0), Some(0), None, None]);
        assert_eq!([at(8), at(8), at(8)], [Some(2), Some(0), None]);
        assert_eq!(at(100), Some(1));
    }
}
