//! Where state is kept that must outlive the process: certificates with their keys, accounts at
//! CAs, orders under way, failures, the local CA's root. [`keys`] has the layout.
//!
//! A [`Storage`] maps [`Key`]s to values and knows nothing of what they mean. Its calls block, for
//! those who use it are threads of their own (the start, the manager's passes), never a handshake
//! or a request; a storage over the network waits on its own runtime inside of them, and async
//! code comes in through `spawn_blocking`. Two nodes agree through [`Storage::lock`].

mod file;
pub mod keys;
mod memory;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::clock::UnixTime;

pub use self::file::FileStorage;
pub use self::memory::MemoryStorage;

/// What is stored: wiped from memory when dropped, since it may hold a private key.
pub type Value = Zeroizing<Vec<u8>>;

/// A place for values.
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

    /// Removes `key`, where it is there.
    ///
    /// # Errors
    /// Where the storage cannot be written.
    fn delete(&self, key: &Key) -> Result<(), StorageError>;

    /// Every key under `prefix`, a key's first segments, in order.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError>;

    /// Sets the value of `key` as [`Self::store`] does, but only while `lease` is held: who has
    /// been away for so long that another took over writes nothing.
    ///
    /// # Errors
    /// [`StorageError::Lost`] where the lease is no longer held; else as for `store`.
    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError>;

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
        loop {
            if let Some(lease) = self.try_lock(key)? {
                return Ok(lease);
            }
            if start.elapsed() >= LOCK_PATIENCE {
                return Err(StorageError::Busy {
                    key: key.to_string(),
                });
            }
            thread::sleep(LOCK_PAUSE);
        }
    }

    /// Tells when something under `prefix` may have changed, whoever changed it.
    ///
    /// # Errors
    /// Where the storage cannot be watched.
    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError>;
}

/// How long a lock is waited for by who cannot do without.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

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
    held: Box<dyn Held>,
}

/// What stands behind a lease: dropped, it is over.
trait Held: Send + Sync {
    /// See [`Lease::token`].
    fn token(&self) -> u64;

    /// See [`Lease::is_held`].
    fn is_held(&self) -> bool;
}

impl Lease {
    fn new(held: impl Held + 'static) -> Self {
        Self {
            held: Box::new(held),
        }
    }

    /// A lease that nobody vouches for, for who has to go on where the storage cannot lock.
    pub fn unstored() -> Self {
        Self::new(Unstored)
    }

    /// A number that is higher with each lease on the same key (a fencing token).
    pub fn token(&self) -> u64 {
        self.held.token()
    }

    /// Whether nobody has taken over meanwhile. The answer may be out of date at once: what must
    /// not be written twice goes through [`Storage::store_under`].
    pub fn is_held(&self) -> bool {
        self.held.is_held()
    }
}

/// See [`Lease::unstored`].
struct Unstored;

impl Held for Unstored {
    fn token(&self) -> u64 {
        0
    }

    fn is_held(&self) -> bool {
        true
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

/// Why a storage did not do what it was asked.
#[derive(Debug, Error)]
pub enum StorageError {
    /// Another process holds the lock.
    #[error("{key:?} is locked by another process; is another gateway at work on this storage?")]
    Busy { key: String },
    /// Work on it broke off, which is a defect.
    #[error("work on the storage broke off, which is a defect; see the log")]
    BrokeOff,
    /// Another has taken over.
    #[error("the lock on {key:?} was lost to another process, for this one was away for too long")]
    Lost { key: String },
    /// A file or directory cannot be used.
    #[error("cannot {action} {}: {source}; check that it is there and who owns it", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The text is no key.
    #[error("{0:?} is no storage key")]
    Key(String),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(text: &str) -> Key {
        text.parse().expect("a key")
    }

    #[test]
    fn keys_lead_nowhere_else() {
        for good in ["a", "local_ca/root.key", "certs/*.a.example/meta.json"] {
            assert_eq!(key(good).as_str(), good);
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

    /// What every storage keeps to.
    fn keeps_the_contract(storage: Arc<dyn Storage>) {
        let (one, two) = (key("a/one"), key("a/b/two"));
        assert!(storage.load(&one).expect("readable").is_none());
        assert_eq!(storage.list(&key("a")).expect("readable"), []);
        storage.delete(&one).expect("nothing to delete is well");
        storage.store(&one, b"1").expect("writable");
        storage.store(&two, b"2").expect("writable");
        storage.store(&one, b"one").expect("writable");
        storage.store(&key("ab"), b"3").expect("writable");
        let load = |key: &Key| {
            storage
                .load(key)
                .expect("readable")
                .map(|value| value.to_vec())
        };
        assert_eq!(load(&one), Some(b"one".to_vec()));
        assert_eq!(
            storage.list(&key("a")).expect("readable"),
            [two.clone(), one.clone()]
        );
        storage.delete(&one).expect("writable");
        assert_eq!((load(&one), load(&two)), (None, Some(b"2".to_vec())));

        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let lease = storage.lock(&key("a/lock")).expect("a lease");
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(5));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(lease);
                });
            }
        });
        assert_eq!(most.into_inner(), 1, "one at a time");
        assert_eq!(
            storage.list(&key("a")).expect("readable"),
            [two],
            "locks are no values"
        );
    }

    #[test]
    fn file_storage_keeps_the_contract() {
        let directory = tempfile::tempdir().expect("a directory");
        keeps_the_contract(Arc::new(FileStorage::new(directory.path().join("data"))));
    }

    #[test]
    fn memory_storage_keeps_the_contract() {
        keeps_the_contract(Arc::new(MemoryStorage::default()));
    }
}
