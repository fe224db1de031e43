//! Writes that failed, kept in memory, each with the way to store it, until the storage works.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Storage, StorageError};
use crate::lock::MutexExt;

/// A failure that takes this long ends the attempt: each of the rest would take as long.
const SLOW: Duration = Duration::from_secs(1);

/// Stores something. Returns false if another process is at work on it, so it has to be retried.
type Store = dyn Fn(&dyn Storage) -> Result<bool, StorageError> + Send + Sync;

/// Everything that waits to be stored, by names that its users choose. A handle; clones share it.
#[derive(Clone, Default)]
pub struct PendingWrites(Arc<Mutex<BTreeMap<String, Arc<Store>>>>);

impl PendingWrites {
    /// Has `store` called until it succeeds. Replaces an earlier one of this name.
    pub fn put_write(
        &self,
        name: &str,
        store: impl Fn(&dyn Storage) -> Result<bool, StorageError> + Send + Sync + 'static,
    ) {
        self.waiting().insert(name.to_owned(), Arc::new(store));
    }

    /// Drops the write of this name.
    pub fn forget_write(&self, name: &str) {
        self.waiting().remove(name);
    }

    /// Returns true if a write of this name waits.
    pub fn has_write(&self, name: &str) -> bool {
        self.waiting().contains_key(name)
    }

    /// The number of waiting writes.
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Returns true if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Stores what can be stored, and returns true if that was anything. Nothing is locked while
    /// the storage works. A failure does not prevent the other writes, unless it takes long: then
    /// the rest is left for the next call.
    ///
    /// # Errors
    /// The first failure of the storage; what failed still waits.
    pub fn flush_to(&self, storage: &dyn Storage) -> Result<bool, StorageError> {
        let waiting: Vec<_> = {
            let waiting = self.waiting();
            let each = waiting.iter();
            each.map(|(name, store)| (name.clone(), Arc::clone(store)))
                .collect()
        };
        let (mut is_any, mut first_error) = (false, None);
        for (name, store) in waiting {
            let begun = Instant::now();
            match store(storage) {
                Ok(true) => is_any = true,
                Ok(false) => continue,
                Err(error) => {
                    first_error.get_or_insert(error);
                    if begun.elapsed() >= SLOW {
                        break;
                    }
                    continue;
                }
            }
            let mut waiting = self.waiting();
            // It may have been replaced meanwhile.
            let is_it = |one: &Arc<Store>| Arc::ptr_eq(one, &store);
            if waiting.get(&name).is_some_and(is_it) {
                waiting.remove(&name);
            }
        }
        first_error.map_or(Ok(is_any), Err)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Store>>> {
        // Each change is one call: a panic leaves it whole.
        self.0.lock_unpoisoned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::storage::{Key, MemoryStorage};

    #[test]
    fn what_waits_is_stored_once_it_can_be() {
        let (pending_writes, storage) = (PendingWrites::default(), MemoryStorage::default());
        let key: Key = "a".parse().expect("a key");
        let busy = Arc::new(Mutex::new(true));
        let (place, is_busy) = (key.clone(), Arc::clone(&busy));
        pending_writes.put_write("a", move |storage| {
            if *is_busy.lock().expect("whole") {
                return Ok(false);
            }
            storage.store(&place, b"1").map(|()| true)
        });
        assert_eq!(pending_writes.flush_to(&storage).ok(), Some(false));
        assert!(pending_writes.has_write("a"), "another is at work on it");
        *busy.lock().expect("whole") = false;
        storage.set_failure(Some(ErrorKind::StorageFull));
        assert!(pending_writes.flush_to(&storage).is_err());
        assert_eq!(pending_writes.len(), 1);
        storage.set_failure(None);
        assert_eq!(pending_writes.flush_to(&storage).ok(), Some(true));
        assert!(pending_writes.is_empty() && storage.exists(&key).expect("readable"));
        pending_writes.put_write("b", |_| Ok(true));
        pending_writes.forget_write("b");
        assert_eq!(pending_writes.flush_to(&storage).ok(), Some(false));
    }

    #[test]
    fn one_that_cannot_be_stored_keeps_no_other_waiting() {
        let (pending_writes, storage) = (PendingWrites::default(), MemoryStorage::default());
        let key: Key = "b".parse().expect("a key");
        pending_writes.put_write("a", |_| Err(StorageError::Key(String::new())));
        let place = key.clone();
        pending_writes.put_write("b", move |storage| {
            storage.store(&place, b"1").map(|()| true)
        });
        assert!(
            pending_writes.flush_to(&storage).is_err(),
            "the failure is reported"
        );
        assert!(pending_writes.has_write("a") && !pending_writes.has_write("b"));
        assert!(storage.exists(&key).expect("readable"));
    }
}
