//! Where state is kept that must outlive the process: certificates with their keys, accounts at
//! CAs, orders under way, failures, the local CA's root. [`keys`] has the layout.
//!
//! A [`Storage`] maps [`Key`]s to values and knows nothing of what they mean. Its calls block, for
//! those who use it are threads of their own (the start, the manager's passes), never a handshake
//! or a request; a storage over the network waits on its own runtime inside of them, and async
//! code comes in through [`blocking`]. Two nodes agree through [`Storage::lock`].

#[cfg(test)]
mod conformance;
pub mod damaged;
mod error;
mod file;
pub mod keys;
mod memory;
mod pending_writes;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::clock::UnixTime;

pub use self::error::StorageError;
pub use self::file::{FileStorage, LeaseTerms};
pub use self::memory::MemoryStorage;
pub use self::pending_writes::PendingWrites;

/// What is stored: wiped from memory when dropped, since it may hold a private key.
pub type Value = Zeroizing<Vec<u8>>;

/// A place for values, which many processes may share. `conformance`, among the tests, holds every
/// backend to what follows.
///
/// **Values.** A value is replaced as a whole. Whoever loads while another stores gets the old or
/// the new one, never a mixture and never none. Of several who store at once one comes last. What a
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
/// **Watches.** A watch tells of what is stored and deleted from the moment it is there, whoever
/// does it; at times it tells without cause. It does not say what changed: look.
pub trait Storage: Send + Sync {
    /// The value of `key`, `None` where there is none.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError>;

    /// Sets the value of `key`. After a crash the old or the new value is there, whole; after the
    /// return it is the new one.
    ///
    /// # Errors
    /// Where the storage cannot be written.
    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError>;

    /// Sets the value of `key` as [`Self::store`] does, but only while `lease`, one of this storage,
    /// is held: who has been away for so long that another took over writes nothing. Checking and
    /// writing are one step, between which nobody takes over.
    ///
    /// `key` need not be the key that is locked: a lease covers what its users agree on.
    ///
    /// # Errors
    /// [`StorageError::Lost`] where the lease is no longer held; else as for `store`.
    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        lease.held.store(key, value)
    }

    /// Removes `key`, where it is there.
    ///
    /// # Errors
    /// Where the storage cannot be written.
    fn delete(&self, key: &Key) -> Result<(), StorageError>;

    /// Gives the value of `from`, where there is one, to `to`, in the place of any there.
    ///
    /// # Errors
    /// Where the storage cannot be written.
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

    /// Every key under `prefix`, a key's first segments, in order. `a` is not under `a`, nor is `ab`.
    /// What was [set aside](damaged) is left out.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError>;

    /// Whether there is a value of `key`.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    fn exists(&self, key: &Key) -> Result<bool, StorageError> {
        Ok(self.stat(key)?.is_some())
    }

    /// What is known of the value of `key` without reading it, `None` where there is none.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError>;

    /// Holds `key` until the lease is dropped or the process is gone, `None` where another does.
    /// Blocks for no longer than a read.
    ///
    /// Whoever gets a lease looks first whether its work has been done meanwhile.
    ///
    /// # Errors
    /// Where the storage cannot be written.
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
    /// Where the storage cannot be watched.
    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError>;
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

/// How long a lock is waited for by who cannot do without: longer than it takes to take over from
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
    pub modified: UnixTime,
}

/// The right to be the only one at work on something.
#[must_use = "a lease ends when it is dropped"]
pub struct Lease {
    held: Box<dyn LeaseBackend>,
}

/// What stands behind a lease: dropped, it is over.
trait LeaseBackend: Send + Sync {
    /// See [`Lease::token`].
    fn token(&self) -> u64;

    /// See [`Lease::is_held`].
    fn is_held(&self) -> bool;

    /// See [`Storage::store_under`].
    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError>;
}

impl Lease {
    fn new(held: impl LeaseBackend + 'static) -> Self {
        Self {
            held: Box::new(held),
        }
    }

    /// A lease that nobody vouches for, for who has to go on where the storage cannot lock. Nothing
    /// can be stored under it.
    pub fn unstored() -> Self {
        Self::new(Unstored)
    }

    /// Whether the storage stands behind it, see [`Self::unstored`].
    pub fn is_stored(&self) -> bool {
        self.token() != 0
    }

    /// A number that is higher with each lease on the same key (a fencing token).
    pub fn token(&self) -> u64 {
        self.held.token()
    }

    /// Whether nobody has taken over meanwhile. Blocks for no longer than a read. The answer may be out of date at once: what must
    /// not be written twice goes through [`Storage::store_under`].
    pub fn is_held(&self) -> bool {
        self.held.is_held()
    }
}

/// See [`Lease::unstored`].
struct Unstored;

impl LeaseBackend for Unstored {
    fn token(&self) -> u64 {
        0
    }

    fn is_held(&self) -> bool {
        true
    }

    fn store(&self, key: &Key, _: &[u8]) -> Result<(), StorageError> {
        Err(StorageError::Unlocked {
            key: key.to_string(),
        })
    }
}

/// Tells of changes. Several at once may come as one; none is lost.
pub struct Watch {
    changes: watch::Receiver<u64>,
    /// Ends the watching when dropped.
    _watching: Option<Arc<dyn Send + Sync>>,
}

impl Watch {
    pub(crate) fn new(
        changes: watch::Receiver<u64>,
        watching: Option<Arc<dyn Send + Sync>>,
    ) -> Self {
        Self {
            changes,
            _watching: watching,
        }
    }

    /// Waits until something may have changed since the last call.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // Nobody is left who could change anything.
            std::future::pending().await
        }
    }
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

    /// The key under which the value of this one is kept as the `number`th that was damaged.
    fn aside(&self, number: u32) -> Self {
        Self(format!("{}{ASIDE}{number}", self.0))
    }

    /// Whether this is the key of a value that was damaged.
    fn is_aside(&self) -> bool {
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
