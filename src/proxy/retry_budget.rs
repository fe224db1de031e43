//! How many of an upstream's requests may be retries, so that retries do not multiply the load of
//! servers that fail.
//!
//! A request costs one atomic addition. Times are milliseconds of the pool's time, and come in as
//! arguments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::MutexExt as _;
use crate::metrics::UpstreamMetrics;

/// The time over which requests and retries are counted, in seconds.
const WINDOW: u32 = 10;

/// How many retries a second are allowed however few requests there are.
const FLOOR: u64 = 3;

/// The requests and retries of an upstream in the last seconds.
pub(crate) struct RetryBudget {
    /// The second in the high half, and its requests in the low half.
    requests: [AtomicU64; WINDOW as usize],
    retries: Mutex<[Second; WINDOW as usize]>,
    metrics: Arc<UpstreamMetrics>,
}

#[derive(Clone, Copy, Default)]
struct Second {
    number: u32,
    count: u64,
}

impl RetryBudget {
    /// Without any requests yet.
    pub(super) fn new(metrics: Arc<UpstreamMetrics>) -> Self {
        Self {
            requests: Default::default(),
            retries: Mutex::default(),
            metrics,
        }
    }

    /// Counts a request.
    pub(super) fn record_request(&self, now: u64) {
        let number = second(now);
        let Some(slot) = self.requests.get((number % WINDOW) as usize) else {
            return;
        };
        let order = Ordering::Relaxed;
        let known = slot.load(order);
        let first = u64::from(number) << 32 | 1;
        if known >> 32 == u64::from(number)
            || slot.compare_exchange(known, first, order, order).is_err()
        {
            slot.fetch_add(1, order);
        }
    }

    /// Counts a retry of a request that has reached no server, which loads none twice.
    pub(super) fn record_free_retry(&self) {
        self.metrics.retries.inc();
    }

    /// Counts a retry, if no more than so many percent of the requests are retries. Returns whether
    /// it may be sent.
    pub(super) fn try_retry(&self, now: u64, percent: u32) -> bool {
        let number = second(now);
        let is_recent = |other: u32| number.wrapping_sub(other) < WINDOW;
        let requests = self.requests.iter().map(|slot| {
            let slot = slot.load(Ordering::Relaxed);
            let (number, count) = ((slot >> 32) as u32, slot & 0xffff_ffff);
            if is_recent(number) { count } else { 0 }
        });
        let share = requests.sum::<u64>() * u64::from(percent) / 100;
        let allowed = share.max(FLOOR * u64::from(WINDOW));
        let mut retries = self.retries.lock_unpoisoned();
        let recent = retries.iter().filter(|second| is_recent(second.number));
        let used: u64 = recent.map(|second| second.count).sum();
        if used >= allowed {
            self.metrics.over_budget.inc();
            return false;
        }
        if let Some(slot) = retries.get_mut((number % WINDOW) as usize) {
            if slot.number != number {
                *slot = Second { number, count: 0 };
            }
            slot.count += 1;
        }
        self.metrics.retries.inc();
        true
    }
}

/// The second of a time, from 1.
fn second(now: u64) -> u32 {
    u32::try_from(now / 1000 + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn budget() -> RetryBudget {
        let metrics = Metrics::new().expect("metrics");
        RetryBudget::new(metrics.upstreams.upstream("app"))
    }

    /// How many retries are allowed at a time.
    fn allowed(budget: &RetryBudget, now: u64, percent: u32) -> usize {
        (0..100_000)
            .take_while(|_| budget.try_retry(now, percent))
            .count()
    }

    #[test]
    fn little_traffic_is_retried_freely() {
        let budget = budget();
        assert_eq!(allowed(&budget, 5_000, 20), 30);
        assert_eq!(allowed(&budget, 14_999, 20), 0, "the same ten seconds");
        assert_eq!(allowed(&budget, 15_000, 20), 30);
        assert_eq!(budget.metrics.retries.get(), 60);
        assert_eq!(budget.metrics.over_budget.get(), 3);
    }

    #[test]
    fn retries_are_a_share_of_the_requests_of_the_last_seconds() {
        let budget = budget();
        for now in 0..10_000 {
            budget.record_request(now);
        }
        assert_eq!(allowed(&budget, 9_999, 20), 2_000);
        assert_eq!(allowed(&budget, 9_999, 30), 1_000);
        // Half of the requests are ten seconds old, and all of the retries are not.
        assert_eq!(allowed(&budget, 14_999, 20), 0);
        assert_eq!(allowed(&budget, 19_000, 20), 30);
        for now in 19_000..20_000 {
            budget.record_request(now);
        }
        assert_eq!(allowed(&budget, 19_999, 20), 170);
        // After a long silence nothing is left of it.
        assert_eq!(allowed(&budget, 1_000_000, 100), 30);
    }

    #[test]
    fn requests_of_many_threads_are_all_counted() {
        let budget = budget();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| budget.record_request(3_000)));
            }
        });
        assert_eq!(allowed(&budget, 3_000, 10), 4_000);
    }
}
