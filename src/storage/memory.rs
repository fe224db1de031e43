//! A storage that lasts as long as the process: for tests and for trying things out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{Held, Key, Lease, Stat, Storage, StorageError, Value, Watch};

/// Values in memory. A handle; clones share the values.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    values: Arc<Mutex<BTreeMap<Key, Value>>>,
    locks: Arc<Locks>,
}

#[derive(Default)]
struct Locks {
    held: Mutex<BTreeSet<Key>>,
}

/// Releases a lock when dropped.
struct MemoryLock {
    locks: Arc<Locks>,
    key: Key,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.key);
    }
}

impl Held for MemoryLock {
    fn token(&self) -> u64 {
        0
    }

    fn is_held(&self) -> bool {
        true
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

    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        if !lease.is_held() {
            return Err(StorageError::Lost {
                key: key.to_string(),
            });
        }
        self.store(key, value)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        Ok(lock(&self.values).get(key).map(|value| Stat {
            size: value.len() as u64,
            modified: 0,
        }))
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        let mut held = lock(&self.locks.held);
        Ok(held.insert(key.clone()).then(|| {
            Lease::new(MemoryLock {
                locks: Arc::clone(&self.locks),
                key: key.clone(),
            })
        }))
    }

    fn watch(&self, _prefix: &Key) -> Result<Watch, StorageError> {
        let (_, changes) = tokio::sync::watch::channel(0);
        Ok(Watch::new(changes, None))
    }
}

/// Each critical section here leaves its collection whole, even where it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
