//! Token buckets: so many in so much time, for one thing or for each of many.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

use moka::ops::compute::{CompResult, Op};

use super::lru::{LruCache, lru_cache};
use crate::clock::UnixTime;
use crate::config::model::NameQuota;
use crate::lock::MutexExt as _;

/// What is left of a quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    tokens: f64,
    /// When it held so many.
    at: UnixTime,
}

impl Bucket {
    pub(super) fn full(quota: NameQuota, now: UnixTime) -> Self {
        Self {
            tokens: f64::from(quota.names),
            at: now,
        }
    }

    /// This bucket at `now`. A clock that was set back adds nothing and takes nothing.
    fn refilled(self, quota: NameQuota, now: UnixTime) -> Self {
        let passed = now.since(self.at).as_secs_f64();
        let most = f64::from(quota.names);
        let added = most * passed / quota.per.as_secs_f64().max(1.0);
        Self {
            tokens: (self.tokens + added).min(most),
            at: now,
        }
    }

    /// This bucket with one token less, `None` where it has none.
    fn taken(self, quota: NameQuota, now: UnixTime) -> Option<Self> {
        let refilled = self.refilled(quota, now);
        (refilled.tokens >= 1.0).then_some(Self {
            tokens: refilled.tokens - 1.0,
            at: now,
        })
    }

    /// This bucket with a token put back.
    fn returned(self, quota: NameQuota) -> Self {
        Self {
            tokens: (self.tokens + 1.0).min(f64::from(quota.names)),
            at: self.at,
        }
    }
}

/// A bucket that all share.
#[derive(Debug)]
pub(super) struct SharedBucket {
    quota: NameQuota,
    bucket: Mutex<Bucket>,
}

impl SharedBucket {
    pub(super) fn new(quota: NameQuota, now: UnixTime) -> Self {
        Self {
            quota,
            bucket: Mutex::new(Bucket::full(quota, now)),
        }
    }

    /// Whether there was a token to take.
    pub(super) fn try_charge(&self, now: UnixTime) -> bool {
        let mut bucket = self.lock();
        let taken = bucket.taken(self.quota, now);
        if let Some(taken) = taken {
            *bucket = taken;
        }
        taken.is_some()
    }

    /// Puts back a token that was not used.
    pub(super) fn refund(&self) {
        let mut bucket = self.lock();
        *bucket = bucket.returned(self.quota);
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock_unpoisoned()
    }
}

/// A bucket for each key. Where there are more keys than there is room for, those that were used
/// last stay.
pub(super) struct KeyedBuckets<K> {
    quota: NameQuota,
    buckets: LruCache<K, Bucket>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> KeyedBuckets<K> {
    pub(super) fn new(quota: NameQuota, room: u64) -> Self {
        Self {
            quota,
            buckets: lru_cache(room),
        }
    }

    /// Whether there was a token to take.
    pub(super) fn try_charge(&self, key: K, now: UnixTime) -> bool {
        let result = self.buckets.entry(key).and_compute_with(|present| {
            let bucket = present.map_or_else(
                || Bucket::full(self.quota, now),
                |present| present.into_value(),
            );
            match bucket.taken(self.quota, now) {
                Some(bucket) => Op::Put(bucket),
                None => Op::Nop,
            }
        });
        matches!(
            result,
            CompResult::Inserted(_) | CompResult::ReplacedWith(_)
        )
    }

    /// Puts back a token that was not used.
    pub(super) fn refund(&self, key: K) {
        self.buckets
            .entry(key)
            .and_compute_with(|present| match present {
                Some(present) => Op::Put(present.into_value().returned(self.quota)),
                None => Op::Nop,
            });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::unix;

    fn quota(names: u32, seconds: u64) -> NameQuota {
        NameQuota {
            names,
            per: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let one = SharedBucket::new(quota(2, 60), unix(1000));
        assert!(
            one.try_charge(unix(1000)) && one.try_charge(unix(1000)) && !one.try_charge(unix(1000))
        );
        assert!(
            !one.try_charge(unix(1029))
                && one.try_charge(unix(1030))
                && !one.try_charge(unix(1030))
        );
        assert!(!one.try_charge(unix(900)), "the clock was set back");
        assert!(
            one.try_charge(unix(2000)) && one.try_charge(unix(2000)) && !one.try_charge(unix(2000))
        );
    }

    #[test]
    fn each_key_has_its_own() {
        let each = KeyedBuckets::new(quota(1, 60), 100);
        assert!(
            each.try_charge("a", unix(0))
                && !each.try_charge("a", unix(0))
                && each.try_charge("b", unix(0))
        );
        each.refund("a");
        assert!(
            each.try_charge("a", unix(0))
                && !each.try_charge("a", unix(30))
                && each.try_charge("a", unix(60))
        );
    }

    #[test]
    fn there_is_a_bound_to_their_number() {
        let each = KeyedBuckets::new(quota(1, 60), 50);
        for key in 0..5000 {
            assert!(each.try_charge(key, unix(0)), "new keys are not kept out");
        }
        each.buckets.run_pending_tasks();
        assert!(each.buckets.entry_count() <= 50);
        assert!(!each.try_charge(4999, unix(0)), "the last ones stay");
    }

    proptest! {
        #[test]
        fn no_more_than_the_quota_is_had(
            names in 1_u32..20,
            per in 1_u64..100,
            steps in proptest::collection::vec((0_i64..20, any::<bool>()), 1..100),
        ) {
            let one = SharedBucket::new(quota(names, per), unix(0));
            let (mut now, mut had) = (0, 0_u32);
            for (step, back) in steps {
                now += if back { -step } else { step };
                had += u32::from(one.try_charge(unix(now)));
            }
            // The furthest that any clock has come is the sum of all steps forward.
            let most = f64::from(names) + f64::from(names) * 2000.0 / per as f64;
            prop_assert!(f64::from(had) <= most);
            let steady = SharedBucket::new(quota(names, per), unix(0));
            let at_once = (0..100).filter(|_| steady.try_charge(unix(0))).count();
            prop_assert_eq!(at_once, names as usize);
        }
    }
}
