//! A storage that lasts as long as the process, for tests and for trying things out.
//!
//! It honors the same contract as any other. It can also be made to fail like a full or unreadable
//! disk, to hang like one whose server is gone, and to lose its leases like a process that was
//! stuck for too long.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{ChangeNotifier, Key, Lease, LeaseBackend, Stat, Storage, StorageError, Value, Watch};
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::lock::MutexExt;

/// Values in memory. A handle; clones share the values.
#[derive(Clone)]
pub struct MemoryStorage {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    hang: Hang,
}

/// Where callers wait while the storage hangs.
#[derive(Default)]
struct Hang {
    hung: Mutex<Hung>,
    is_over: Condvar,
}

#[derive(Default)]
struct Hung {
    is_hung: bool,
    waiting: usize,
}

#[derive(Default)]
struct State {
    values: BTreeMap<Key, (Value, UnixTime)>,
    /// The holders, by token.
    leases: BTreeMap<Key, u64>,
    last_token: u64,
    failing: Option<ErrorKind>,
    watches: Vec<(Key, ChangeNotifier)>,
}

impl MemoryStorage {
    /// A storage without values, which takes its times from `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                state: Mutex::default(),
                hang: Hang::default(),
            }),
        }
    }

    /// Makes later calls fail with `kind`, or work again. A full disk, an exhausted quota and a
    /// read-only file system can still be read.
    pub fn set_failure(&self, kind: Option<ErrorKind>) {
        self.shared.state().failing = kind;
    }

    /// Makes all calls wait, or lets them continue.
    pub fn hang(&self, is_hung: bool) {
        self.shared.hang.hung().is_hung = is_hung;
        self.shared.hang.is_over.notify_all();
    }

    /// How many calls wait while it hangs.
    pub fn hanging(&self) -> usize {
        self.shared.hang.hung().waiting
    }

    /// Takes `key` from its holder, as if that had been stuck and another had taken over and
    /// finished.
    pub fn revoke(&self, key: &Key) {
        self.shared.state().leases.remove(key);
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

impl Storage for MemoryStorage {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        let state = self.shared.state().readable(key)?;
        Ok(state.values.get(key).map(|(value, _)| value.clone()))
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        let mut state = self.shared.state().writable(key)?;
        state.set(key, value, self.shared.clock.now());
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let mut state = self.shared.state().writable(key)?;
        state.values.remove(key);
        state.notify_watchers(key);
        Ok(())
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        let state = self.shared.state().readable(prefix)?;
        let keys = state.values.keys();
        let listed = keys.filter(|key| key.is_under(prefix) && !key.is_aside());
        Ok(listed.cloned().collect())
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        let state = self.shared.state().readable(key)?;
        Ok(state.values.get(key).map(|(value, modified)| Stat {
            size: value.len() as u64,
            modified: *modified,
        }))
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        let mut state = self.shared.state().writable(key)?;
        if state.leases.contains_key(key) {
            return Ok(None);
        }
        state.last_token += 1;
        let token = state.last_token;
        state.leases.insert(key.clone(), token);
        Ok(Some(Lease::new(MemoryLease {
            shared: Arc::clone(&self.shared),
            key: key.clone(),
            token,
        })))
    }

    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError> {
        let notifier = ChangeNotifier::default();
        let watch = notifier.watch();
        let mut state = self.shared.state();
        state.watches.retain(|(_, one)| !one.is_unwatched());
        state.watches.push((prefix.clone(), notifier));
        Ok(watch)
    }
}

impl Shared {
    /// Each critical section leaves the state whole, even if it panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.hang.wait();
        self.state.lock_unpoisoned()
    }
}

impl Hang {
    fn hung(&self) -> MutexGuard<'_, Hung> {
        self.hung.lock_unpoisoned()
    }

    fn wait(&self) {
        let mut hung = self.hung();
        hung.waiting += 1;
        let waited = self.is_over.wait_while(hung, |hung| hung.is_hung);
        waited.unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }
}

/// Operations on a state under its lock.
trait Usable: Sized {
    fn readable(self, key: &Key) -> Result<Self, StorageError>;
    fn writable(self, key: &Key) -> Result<Self, StorageError>;
}

impl Usable for MutexGuard<'_, State> {
    fn readable(self, key: &Key) -> Result<Self, StorageError> {
        match self.failing {
            None
            | Some(
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem,
            ) => Ok(self),
            Some(kind) => Err(io_failure("read", key, kind)),
        }
    }

    fn writable(self, key: &Key) -> Result<Self, StorageError> {
        match self.failing {
            None => Ok(self),
            Some(kind) => Err(io_failure("write", key, kind)),
        }
    }
}

impl State {
    fn set(&mut self, key: &Key, value: &[u8], now: UnixTime) {
        let value = Zeroizing::new(value.to_vec());
        self.values.insert(key.clone(), (value, now));
        self.notify_watchers(key);
    }

    fn notify_watchers(&self, key: &Key) {
        for (prefix, notifier) in &self.watches {
            if key == prefix || key.is_under(prefix) {
                notifier.notify();
            }
        }
    }
}

struct MemoryLease {
    shared: Arc<Shared>,
    key: Key,
    token: u64,
}

impl MemoryLease {
    fn is_in(&self, state: &State) -> bool {
        state.leases.get(&self.key) == Some(&self.token)
    }
}

impl LeaseBackend for MemoryLease {
    fn token(&self) -> u64 {
        self.token
    }

    fn is_held(&self) -> bool {
        self.is_in(&self.shared.state())
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        let mut state = self.shared.state().writable(key)?;
        if !self.is_in(&state) {
            return Err(StorageError::lost(key));
        }
        state.set(key, value, self.shared.clock.now());
        Ok(())
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if self.is_in(&state) {
            state.leases.remove(&self.key);
        }
    }
}

fn io_failure(action: &'static str, key: &Key, kind: ErrorKind) -> StorageError {
    StorageError::Io {
        action,
        path: key.as_str().into(),
        source: io::Error::from(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::clock::unix;
    use crate::storage::conformance::{Backend, assert_conformance};

    fn key(text: &str) -> Key {
        text.parse().expect("a key")
    }

    #[test]
    fn keeps_to_the_contract() {
        let storage = MemoryStorage::default();
        assert_conformance(&Backend {
            one: Arc::new(storage.clone()),
            other: Arc::new(storage.clone()),
            usurp: &|key| storage.revoke(key),
        });
    }

    #[test]
    fn fails_as_it_is_told() {
        let storage = MemoryStorage::default();
        storage.store(&key("a"), b"1").expect("writable");
        storage.set_failure(Some(ErrorKind::StorageFull));
        let error = storage.store(&key("a"), b"2").expect_err("it is full");
        assert!(error.to_string().contains("free space"), "{error}");
        assert!(storage.try_lock(&key("a")).is_err());
        assert_eq!(
            **storage.load(&key("a")).expect("readable").expect("there"),
            *b"1"
        );
        storage.set_failure(Some(ErrorKind::PermissionDenied));
        assert!(storage.load(&key("a")).is_err());
        storage.set_failure(None);
        storage.store(&key("a"), b"2").expect("writable again");
    }

    #[test]
    fn times_are_those_of_the_clock() {
        let clock = Arc::new(ManualClock::at(unix(1_000)));
        let storage = MemoryStorage::with_clock(clock.clone());
        storage.store(&key("a"), b"12").expect("writable");
        clock.advance(5);
        storage.store(&key("b"), b"").expect("writable");
        let stat = |name| storage.stat(&key(name)).expect("readable").expect("there");
        assert_eq!((stat("a").modified, stat("a").size), (unix(1_000), 2));
        assert_eq!((stat("b").modified, stat("b").size), (unix(1_005), 0));
    }
}
