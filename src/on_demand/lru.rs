//! What is remembered of names and clients that strangers choose.

use std::hash::Hash;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// Something for each of so many keys at most.
pub(super) type LruCache<K, V> = Cache<K, V, ahash::RandomState>;

/// Remembers `room` keys: where there are more, those that were used last.
pub(super) fn lru_cache<K, V>(room: u64) -> LruCache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(room)
        // By age and not by frequency: else a flood of keys would keep new ones out.
        .eviction_policy(EvictionPolicy::lru())
        .build_with_hasher(ahash::RandomState::new())
}
