//! A storage that lasts as long as the process: for tests and for trying things out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{Key, Lease, Storage, StorageError, Value};

/// Values in memory. A handle; clones share the values.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    values: Arc<Mutex<BTreeMap<Key, Value>>>,
    locks: Arc<Locks>,
}

#[derive(Default)]
struct Locks {
    held: Mutex<BTreeSet<Key>>,
    released: Condvar,
}

/// Releases a lock when dropped.
struct Held {
    locks: Arc<Locks>,
    key: Key,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.key);
        self.locks.released.notify_all();
    }
}

impl Storage for MemoryStorage {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        Ok(lock(&self.values).get(key).cloned())
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        lock(&self.values).insert(key.clone(), Zeroizing::new(value.to_vec()));
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        lock(&self.values).remove(key);
        Ok(())
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        let under = format!("{prefix}/");
        let values = lock(&self.values);
        Ok(values
            .keys()
            .filter(|key| key.as_str().starts_with(&under))
            .cloned()
            .collect())
    }

    fn lock(&self, key: &Key) -> Result<Lease, StorageError> {
        let held = lock(&self.locks.held);
        let mut held = self
            .locks
            .released
            .wait_while(held, |held| held.contains(key))
            .unwrap_or_else(PoisonError::into_inner);
        held.insert(key.clone());
        Ok(Lease::new(Held {
            locks: Arc::clone(&self.locks),
            key: key.clone(),
        }))
    }
}

/// Each critical section here leaves its collection whole, even where it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
