//! Token buckets: how often something may happen, on average and at once.
//!
//! A bucket is nothing but the time at which it will be full again (the generic cell rate algorithm).
//! Times are in nanoseconds since some start.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::lock::MutexExt as _;

/// How many buckets are remembered: [`SETS`] times this.
const WAYS: usize = 8;
const SETS: usize = 16 * 1024;

/// How fast buckets fill, and how many tokens they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Between two tokens.
    interval: u64,
    /// For a whole bucket.
    whole: u64,
}

/// What is left in a bucket after a token was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) tokens: u64,
    /// How long it takes until there is one more.
    pub(crate) next_in: Duration,
}

/// How long it takes until an empty bucket has a token again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Empty(pub(crate) Duration);

impl Rate {
    /// So many `tokens` in the time `per`, and `burst` in a full bucket.
    pub(crate) fn new(tokens: u64, per: Duration, burst: u64) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let interval = (per / tokens.max(1)).max(1);
        let whole = interval.saturating_mul(burst.max(1)).min(u64::MAX / 4);
        Self { interval, whole }
    }

    /// How long it takes to fill an empty bucket.
    pub(crate) fn window(self) -> Duration {
        Duration::from_nanos(self.whole)
    }

    /// Takes a token from a bucket that is full at a time.
    pub(crate) fn take_token(self, full_at: &mut u64, now: u64) -> Result<Left, Empty> {
        let missing = full_at.saturating_sub(now).saturating_add(self.interval);
        // At least one token fits, whatever was rounded.
        if missing > self.whole.max(self.interval) {
            return Err(Empty(Duration::from_nanos(missing - self.whole)));
        }
        *full_at = now.saturating_add(missing);
        let left = self.whole.saturating_sub(missing);
        Ok(Left {
            tokens: left / self.interval,
            next_in: Duration::from_nanos(self.interval - left % self.interval),
        })
    }
}

/// The buckets of many clients, in bounded memory.
///
/// A key has a place in one of many sets, each with a lock of its own. In a set without a free place
/// the bucket that is the first to be full again is forgotten: a client that overdoes it is
/// remembered for longer than one that does not.
pub(crate) struct Buckets {
    /// Made when they are first needed.
    sets: OnceLock<Box<[Mutex<Set>]>>,
    count: usize,
    hasher: RandomState,
    start: Instant,
}

type Set = [Bucket; WAYS];

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// A digest of the key.
    key: u64,
    full_at: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self::with_sets(SETS)
    }
}

impl Buckets {
    fn with_sets(count: usize) -> Self {
        Self {
            sets: OnceLock::new(),
            count,
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    /// The time now.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a token from the bucket of a key.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn take_token(&self, key: impl Hash, rate: Rate, now: u64) -> Result<Left, Empty> {
        let sets = self.sets.get_or_init(|| {
            let sets = (0..self.count.max(1)).map(|_| Mutex::default());
            sets.collect()
        });
        let key = self.hasher.hash_one(key);
        let at = usize::try_from(key % sets.len().max(1) as u64).unwrap_or(0);
        let Some(set) = sets.get(at) else {
            return Err(Empty(rate.window()));
        };
        let mut set = set.lock_unpoisoned();
        let place = set.iter().position(|bucket| bucket.key == key);
        let place = place.or_else(|| {
            let places = set.iter().enumerate();
            let (first, _) = places.min_by_key(|(_, bucket)| bucket.full_at)?;
            Some(first)
        });
        let Some(bucket) = place.and_then(|place| set.get_mut(place)) else {
            return Err(Empty(rate.window()));
        };
        if bucket.key != key {
            *bucket = Bucket { key, full_at: 0 };
        }
        rate.take_token(&mut bucket.full_at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate() {
        let rate = Rate::new(10, Duration::from_secs(1), 20);
        assert_eq!(rate.window(), Duration::from_secs(2));
        let mut full_at = 0;
        let mut now = 5 * SECOND;
        for left in (0..20).rev() {
            let taken = rate.take_token(&mut full_at, now).expect("a token");
            assert_eq!(taken.tokens, left);
            assert_eq!(taken.next_in, Duration::from_millis(100));
        }
        let empty = rate.take_token(&mut full_at, now);
        assert_eq!(empty, Err(Empty(Duration::from_millis(100))));
        now += SECOND / 10 - 1;
        let empty = rate.take_token(&mut full_at, now);
        assert_eq!(empty, Err(Empty(Duration::from_nanos(1))));
        now += 1;
        let taken = rate.take_token(&mut full_at, now).expect("a token");
        assert_eq!(taken.tokens, 0);
        assert_eq!(taken.next_in, Duration::from_millis(100));
        assert!(rate.take_token(&mut full_at, now).is_err());
        now += SECOND / 4;
        let taken = rate.take_token(&mut full_at, now).expect("a token");
        let next = Duration::from_millis(50);
        assert_eq!((taken.tokens, taken.next_in), (1, next));
        // However long the pause is, no more than a burst is saved.
        now += 3600 * SECOND;
        let given = (0..100).filter(|_| rate.take_token(&mut full_at, now).is_ok());
        assert_eq!(given.count(), 20);
    }

    #[test]
    fn no_more_than_the_rate_is_given_over_a_long_time() {
        let rate = Rate::new(7, Duration::from_secs(3), 2);
        let mut full_at = 0;
        let given = (0..30_000_u64)
            .filter(|tick| rate.take_token(&mut full_at, tick * SECOND / 100).is_ok())
            .count();
        assert!((700..=703).contains(&given), "{given} in 300 s");
    }

    #[test]
    fn extremes_are_rates_too() {
        for (tokens, per, burst) in [
            (1, Duration::from_secs(86_400), 1_000_000),
            (1_000_000, Duration::from_millis(1), 1),
            (1_000_000, Duration::from_nanos(1), 1_000_000),
            (0, Duration::ZERO, 0),
            (1, Duration::MAX, u64::MAX),
        ] {
            let rate = Rate::new(tokens, per, burst);
            let mut full_at = 0;
            assert!(rate.take_token(&mut full_at, u64::MAX / 2).is_ok());
        }
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let buckets = Buckets::default();
        let rate = Rate::new(1, Duration::from_secs(1), 1);
        assert!(buckets.take_token("a", rate, SECOND).is_ok());
        assert!(buckets.take_token("b", rate, SECOND).is_ok());
        assert!(buckets.take_token("a", rate, SECOND).is_err());
        assert!(buckets.take_token("a", rate, 2 * SECOND).is_ok());
    }

    #[test]
    fn those_that_overdo_it_are_remembered_longest() {
        let buckets = Buckets::with_sets(1);
        let rate = Rate::new(10, Duration::from_secs(1), 10);
        for _ in 0..10 {
            assert!(buckets.take_token("greedy", rate, SECOND).is_ok());
        }
        for number in 0..1000 {
            assert!(buckets.take_token(number, rate, SECOND).is_ok());
            assert!(buckets.take_token("greedy", rate, SECOND).is_err());
        }
        let sets = buckets.sets.get().expect("in use");
        assert_eq!(sets.len(), 1, "the memory is bounded");
    }
}
