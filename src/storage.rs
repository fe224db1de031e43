//! Where state is kept that must outlive the process: certificates with their keys, accounts at
//! CAs, orders under way, failures, the local CA's root. [`keys`] has the layout.
//!
//! A [`Storage`] maps [`Key`]s to values and knows nothing of what they mean. Its calls block: they
//! are made on threads of their own, never in a handshake or a request. A storage over the network
//! waits on its own runtime inside of them, and async code uses [`blocking`]. Instances that share a
//! storage agree through [`Storage::lock`].
//!
//! Programs implement [`Storage`] and [`LeaseBackend`] for a backend of their own, with a
//! [`ChangeNotifier`] for [`Storage::watch`].

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod damaged;
mod error;
mod file;
pub mod keys;
mod lease;
mod memory;
mod pending_writes;
mod watch;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::clock::UnixTime;

pub use self::error::StorageError;
pub use self::file::{FileStorage, LeaseTerms};
pub use self::lease::{Lease, LeaseBackend};
pub use self::memory::MemoryStorage;
#[doc(hidden)]
pub use self::pending_writes::PendingWrites;
pub use self::watch::{ChangeNotifier, Watch};

/// What is stored: wiped from memory when dropped, since it may hold a private key.
pub type Value = Zeroizing<Vec<u8>>;

/// A place for values, which many processes may share.
///
/// A program can bring its own: a table of its database, a service of its cluster. The suite in
/// `snigate::storage::conformance`, behind the feature `conformance`, holds a backend to the contract
/// that follows. [`MemoryStorage`] and [`FileStorage`] pass it too.
///
/// **Values.** A value is replaced as a whole. Whoever loads while another stores gets the old or
/// the new one, never a mixture and never none. Of several that store at once, one comes last. What a
/// call has stored or deleted when it returns is seen by every process from then on, and outlives
/// power failures. A call that fails, or whose process is killed, has left the old or the new value.
/// An empty value is a value.
///
/// **Keys.** Those that a key is the beginning of (`a` of `a/b`) hold no value themselves: whoever
/// lays out keys sees to that. Loading, deleting and looking at such a key finds nothing there.
///
/// **Absence.** `None` and an empty list mean that nothing is stored there. Where that cannot be
/// known (the directory may not be read, or is gone though it was in use) there is an error: nobody
/// makes anew what may exist.
///
/// **Leases.** One at most holds a key at a time, among all processes, all handles and all threads;
/// nobody holds twice. A lock needs no value and is none: it is not listed, and a key may be locked
/// that also has a value. A lease ends when it is dropped, and at once when its process is gone. A
/// process that is stuck (stopped, or on a suspended machine) loses its leases after a while, though
/// it may not know: then another may hold the key. Hence two things besides the lease itself: its
/// [token](Lease::token) is higher than that of all leases of this key before it, so that others can
/// tell late messages; and [`Self::store_under`] stores nothing once the lease is lost. Once a lease
/// has been given to another, no store under an earlier one takes effect any more.
///
/// **Watches.** From the moment it exists, a watch notices what anyone stores or deletes; at times it
/// reports without cause. It does not say what changed: look.
pub trait Storage: Send + Sync {
    /// The value of `key`, `None` where there is none.
    ///
    /// # Errors
    /// If the storage cannot be read.
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError>;

    /// Sets the value of `key`. After a crash the old or the new value is there, whole; after the
    /// return it is the new one.
    ///
    /// # Errors
    /// If the storage cannot be written.
    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError>;

    /// Sets the value of `key` as [`Self::store`] does, but only while `lease`, one of this storage,
    /// is held: whoever has been away for so long that another took over writes nothing. Checking and
    /// writing are one step, between which nobody takes over.
    ///
    /// `key` need not be the key that is locked: a lease covers what its users agree on.
    ///
    /// # Errors
    /// [`StorageError::Lost`] where the lease is no longer held; else as for `store`.
    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        lease.store(key, value)
    }

    /// Removes `key`, where it is there.
    ///
    /// # Errors
    /// If the storage cannot be written.
    fn delete(&self, key: &Key) -> Result<(), StorageError>;

    /// Gives the value of `from`, where there is one, to `to`, in the place of any there.
    ///
    /// # Errors
    /// If the storage cannot be written.
    fn rename(&self, from: &Key, to: &Key) -> Result<(), StorageError> {
        if let Some(value) = self.load(from)? {
            self.store(to, &value)?;
            self.delete(from)?;
        }
        Ok(())
    }

    /// Where the value of `key` is kept, for people.
    fn place(&self, key: &Key) -> String {
        key.to_string()
    }

    /// Every key [under](Key::is_under) `prefix`, in order, without those that were
    /// [set aside](Key::is_aside).
    ///
    /// # Errors
    /// If the storage cannot be read.
    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError>;

    /// Whether there is a value of `key`.
    ///
    /// # Errors
    /// If the storage cannot be read.
    fn exists(&self, key: &Key) -> Result<bool, StorageError> {
        Ok(self.stat(key)?.is_some())
    }

    /// What is known of the value of `key` without reading it, `None` where there is none.
    ///
    /// # Errors
    /// If the storage cannot be read.
    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError>;

    /// Holds `key` until the lease is dropped or the process is gone, `None` where another does.
    /// Blocks for no longer than a read.
    ///
    /// Whoever gets a lease looks first whether its work has been done meanwhile.
    ///
    /// # Errors
    /// If the storage cannot be written.
    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError>;

    /// Waits until nobody else holds `key`, and holds it as [`Self::try_lock`] does.
    ///
    /// # Errors
    /// [`StorageError::Busy`] where another holds it for too long; else as for `try_lock`.
    fn lock(&self, key: &Key) -> Result<Lease, StorageError> {
        let start = Instant::now();
        let mut pause = FIRST_LOCK_PAUSE;
        loop {
            if let Some(lease) = self.try_lock(key)? {
                return Ok(lease);
            }
            if start.elapsed() >= LOCK_PATIENCE {
                return Err(StorageError::Busy {
                    key: key.to_string(),
                });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LAST_LOCK_PAUSE);
        }
    }

    /// Tells when something under `prefix` may have changed, whoever changed it. There need be
    /// nothing under it yet.
    ///
    /// # Errors
    /// If the storage cannot be watched.
    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError>;
}

impl<S: Storage + ?Sized> Storage for Arc<S> {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        (**self).load(key)
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        (**self).store(key, value)
    }

    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        (**self).store_under(lease, key, value)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        (**self).delete(key)
    }

    fn rename(&self, from: &Key, to: &Key) -> Result<(), StorageError> {
        (**self).rename(from, to)
    }

    fn place(&self, key: &Key) -> String {
        (**self).place(key)
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        (**self).list(prefix)
    }

    fn exists(&self, key: &Key) -> Result<bool, StorageError> {
        (**self).exists(key)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        (**self).stat(key)
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        (**self).try_lock(key)
    }

    fn lock(&self, key: &Key) -> Result<Lease, StorageError> {
        (**self).lock(key)
    }

    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError> {
        (**self).watch(prefix)
    }
}

/// Does something with the storage from async code, on a thread that may block. Given up, it is
/// done all the same.
///
/// # Errors
/// That of `work`, [`StorageError::BrokeOff`] where it panicked, [`StorageError::Ending`] where it
/// was never begun.
pub async fn blocking<T: Send + 'static>(
    storage: &Arc<dyn Storage>,
    work: impl FnOnce(&dyn Storage) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let storage = Arc::clone(storage);
    let done = tokio::task::spawn_blocking(move || work(&*storage)).await;
    done.unwrap_or_else(|error| {
        Err(if error.is_cancelled() {
            StorageError::Ending
        } else {
            StorageError::BrokeOff
        })
    })
}

/// Gives a lease back, on a thread that may block: its end may be a matter of files or the network.
/// Returns when it has ended. If this is cancelled, it ends all the same.
pub(crate) async fn release(storage: &Arc<dyn Storage>, lease: impl Into<Arc<Lease>>) {
    let lease = lease.into();
    let end = move |_: &dyn Storage| {
        drop(lease);
        Ok(())
    };
    // It ends even if the runtime is closing and drops the closure.
    let _ = blocking(storage, end).await;
}

/// How long a lock is waited for by whoever cannot do without: longer than it takes to take over from
/// one that is stuck.
const LOCK_PATIENCE: Duration = Duration::from_secs(40);

/// What is added to the key of a value that was damaged, before a number. No key of [`keys`] ends
/// in a number.
const ASIDE: &str = ".damaged-";

const FIRST_LOCK_PAUSE: Duration = Duration::from_millis(5);
const LAST_LOCK_PAUSE: Duration = Duration::from_millis(80);

/// What is known of a value without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// In octets.
    pub size: u64,
    /// When it was last stored, in seconds since the Unix epoch.
    pub modified: UnixTime,
}

/// The name of a value: segments of letters, digits, `.`, `_`, `-` and `*`, parted by `/`.
///
/// No segment begins with a dot, so that no key leads out of the storage or to a hidden file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The longest segment in octets, which leaves room for what a temporary file adds.
    const MAX_SEGMENT: usize = 200;

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this key lies under `prefix`, its first segments: `a/b` is under `a`, but neither `a`
    /// nor `ab` is. A backend lists and watches by it.
    pub fn is_under(&self, prefix: &Self) -> bool {
        let rest = self.0.strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// The key under which the value of this one is kept as the `number`th that was damaged.
    fn aside(&self, number: u32) -> Self {
        Self(format!("{}{ASIDE}{number}", self.0))
    }

    /// Whether this is the key of a value that was damaged and [set aside](damaged), which
    /// [`Storage::list`] leaves out.
    pub fn is_aside(&self) -> bool {
        let number = self.0.rsplit_once(ASIDE).map(|(_, number)| number);
        number.is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit())
        })
    }

    fn is_segment(segment: &str) -> bool {
        !segment.is_empty()
            && segment.len() <= Self::MAX_SEGMENT
            && !segment.starts_with('.')
            && segment.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'*')
            })
    }
}

impl FromStr for Key {
    type Err = StorageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.split('/').all(Self::is_segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(StorageError::Key(text.to_owned()))
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_breaks_off_is_an_error() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let key: Key = "a".parse().expect("a key");
        let stored = blocking(&storage, move |storage| {
            storage.store(&key, b"1")?;
            storage.load(&key)
        });
        let stored = stored.await.expect("works").expect("stored");
        assert_eq!(stored.as_slice(), b"1");
        let broken = blocking::<()>(&storage, |_| panic!("a defect"));
        assert!(matches!(broken.await, Err(StorageError::BrokeOff)));
    }

    #[test]
    fn keys_lead_nowhere_else() {
        for good in ["a", "local_ca/root.key", "certs/*.a.example/meta.json"] {
            assert_eq!(good.parse::<Key>().expect("a key").as_str(), good);
        }
        let long = "a".repeat(201);
        for bad in [
            "", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", ".a", "a/.b", "a b", "a\0", &long,
        ] {
            assert!(
                matches!(bad.parse::<Key>(), Err(StorageError::Key(_))),
                "{bad:?}"
            );
        }
    }
}
