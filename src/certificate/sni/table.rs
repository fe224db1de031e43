//! A hash table whose copies share what did not change.
//!
//! It is an array of shards, each a small hash table behind an `Arc`. A change copies the array and
//! the one shard that holds the name. With as many shards as names in a shard, both have about the
//! square root of the total size, and a lookup costs one more load than in a plain hash table.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use super::CertificateSet;
use crate::host::HostName;

/// Where the shard's bits begin in a hash: above those that choose the bucket and below those that
/// tag it, since `hashbrown` takes the former from the low end and the latter from the high end.
const SHARD_SHIFT: u32 = 32;

/// The maximum number of shards; their array is copied with each change.
const MAX_SHARDS: usize = 1 << 12;

type Entry = (HostName, Arc<CertificateSet>);

#[derive(Clone, Default)]
pub(super) struct Table {
    /// A power of two, or none at all.
    shards: Arc<[Arc<HashTable<Entry>>]>,
    len: usize,
}

impl Table {
    /// The entry of `name`, whose hash is `hash`.
    pub(super) fn get(&self, hash: u64, name: &str) -> Option<&Arc<CertificateSet>> {
        self.shards
            .get(shard_of(hash, self.shards.len()))?
            .find(hash, |(key, _)| key.as_str() == name)
            .map(|(_, set)| set)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The certificates of the names in one shard.
    pub(super) fn shard(&self, at: usize) -> impl Iterator<Item = &Arc<CertificateSet>> {
        let shard = self.shards.get(at).into_iter();
        shard.flat_map(|shard| shard.iter()).map(|(_, set)| set)
    }

    /// Returns true if `other` is a clone of this table.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shards, &other.shards)
    }

    /// A copy with each name set to its certificates, or removed if there are none.
    pub(super) fn with_changes(
        &self,
        changes: Vec<(HostName, Option<Arc<CertificateSet>>)>,
        hasher: &RandomState,
    ) -> Self {
        if changes.is_empty() {
            return self.clone();
        }
        let added = changes.iter().filter(|(_, set)| set.is_some()).count();
        let mut draft = Draft {
            shards: self.shards.to_vec(),
            len: self.len,
            hasher,
        };
        draft.reshard(self.len + added);
        for (name, set) in changes {
            draft.set(name, set);
        }
        Self {
            shards: draft.shards.into(),
            len: draft.len,
        }
    }
}

/// A table under construction: it copies a shard before it first writes to it.
struct Draft<'a> {
    shards: Vec<Arc<HashTable<Entry>>>,
    len: usize,
    hasher: &'a RandomState,
}

impl Draft<'_> {
    /// Spreads the entries over the number of shards that suits `len`, if that has changed much.
    fn reshard(&mut self, len: usize) {
        let wanted = len.isqrt().next_power_of_two().clamp(1, MAX_SHARDS);
        let present = self.shards.len();
        if present > 0 && present.max(wanted) <= 4 * present.min(wanted) {
            return;
        }
        let old = std::mem::take(&mut self.shards);
        self.shards.resize_with(wanted, Arc::default);
        self.len = 0;
        for (name, set) in old.iter().flat_map(|shard| shard.iter()) {
            self.set(name.clone(), Some(Arc::clone(set)));
        }
    }

    fn set(&mut self, name: HostName, set: Option<Arc<CertificateSet>>) {
        let hash = self.hasher.hash_one(name.as_str());
        let count = self.shards.len();
        let Some(shard) = self.shards.get_mut(shard_of(hash, count)) else {
            return;
        };
        let shard = Arc::make_mut(shard);
        match (shard.find_entry(hash, |(key, _)| *key == name), set) {
            (Ok(mut entry), Some(set)) => entry.get_mut().1 = set,
            (Ok(entry), None) => {
                entry.remove();
                self.len -= 1;
            }
            (Err(_), Some(set)) => {
                let hasher = self.hasher;
                shard.insert_unique(hash, (name, set), |(key, _)| hasher.hash_one(key.as_str()));
                self.len += 1;
            }
            (Err(_), None) => {}
        }
    }
}

/// The shard of a hash among `count`, which is a power of two or 0.
fn shard_of(hash: u64, count: usize) -> usize {
    let bits = usize::try_from(hash >> SHARD_SHIFT).unwrap_or(usize::MAX);
    bits & count.wrapping_sub(1)
}
