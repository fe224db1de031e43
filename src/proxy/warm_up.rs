//! How the share of an address rises that has just come up.
//!
//! Times are milliseconds of the pool's time, and come in as arguments.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A whole share.
const WHOLE: u32 = 1000;

/// The share at the beginning.
const FIRST: u32 = 100;

/// What is known of the warm-up of an address.
#[derive(Debug, Default)]
pub(super) struct WarmUp {
    /// Since when it has been up, 0 if it has its whole share.
    since: AtomicU64,
    /// What it has earned for its next turn.
    credit: AtomicU32,
}

impl WarmUp {
    /// Begins with the smallest share.
    pub(super) fn begin(&self, now: u64) {
        self.credit.store(0, Ordering::Relaxed);
        self.since.store(now.max(1), Ordering::Relaxed);
    }

    /// Whether the address does not have its whole share yet, which it has after `time`.
    pub(super) fn is_running(&self, now: u64, time: u64) -> bool {
        self.share(now, time) < WHOLE
    }

    /// Whether the address gets the request whose turn it is; to be asked once for each.
    pub(super) fn takes_turn(&self, now: u64, time: u64) -> bool {
        let share = self.share(now, time);
        let before = self.credit.fetch_add(share, Ordering::Relaxed);
        share == WHOLE || before % WHOLE + share >= WHOLE
    }

    fn share(&self, now: u64, time: u64) -> u32 {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return WHOLE;
        }
        let passed = now.saturating_sub(since);
        if passed >= time {
            // Another one may have begun.
            let order = Ordering::Relaxed;
            _ = self.since.compare_exchange(since, 0, order, order);
            return WHOLE;
        }
        let risen = u64::from(WHOLE - FIRST) * passed / time.max(1);
        FIRST + u32::try_from(risen).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u64 = 30_000;

    /// How many of 1000 turns at a time the address takes.
    fn turns(warm_up: &WarmUp, now: u64) -> usize {
        (0..1000).filter(|_| warm_up.takes_turn(now, TIME)).count()
    }

    #[test]
    fn the_share_rises_from_a_tenth_to_the_whole() {
        let warm_up = WarmUp::default();
        assert_eq!(turns(&warm_up, 7), 1000);
        assert!(!warm_up.is_running(7, TIME));
        warm_up.begin(10_000);
        assert!(!warm_up.takes_turn(10_000, TIME));
        let shares = [0, 10_000, 20_000, 29_999].map(|passed| turns(&warm_up, 10_000 + passed));
        assert_eq!(shares, [100, 400, 700, 999]);
        assert!(warm_up.is_running(39_999, TIME));
        assert_eq!(turns(&warm_up, 40_000), 1000);
        assert!(!warm_up.is_running(40_000, TIME));
    }
}
