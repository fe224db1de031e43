//! Leases: the right to be the only one that works on something, and what a backend implements for
//! them.

use super::{Key, StorageError};

/// The right to be the only one that works on something. It ends when it is dropped.
#[must_use = "a lease ends when it is dropped"]
pub struct Lease {
    backend: Box<dyn LeaseBackend>,
}

/// What a backend implements for its leases, and hands out with [`Lease::new`].
///
/// Dropping the value gives the lease back, unless another holder has taken it over by then. `drop`
/// may block for as long as a write.
pub trait LeaseBackend: Send + Sync {
    /// See [`Lease::token`]. At least 1: 0 stands for a lease [that is not
    /// stored](Lease::unstored).
    fn token(&self) -> u64;

    /// See [`Lease::is_held`]. Where the storage cannot be reached, the answer is what was known
    /// last.
    fn is_held(&self) -> bool;

    /// Sets the value of `key` if the lease is still held, checking and writing in one step: in one
    /// transaction, or by a condition on the token. [`super::Storage::store_under`] calls it.
    ///
    /// # Errors
    /// [`StorageError::Lost`] where the lease is no longer held, and others where the storage cannot
    /// be written.
    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError>;
}

impl Lease {
    /// A lease that `backend` stands behind.
    pub fn new(backend: impl LeaseBackend + 'static) -> Self {
        Self {
            backend: Box::new(backend),
        }
    }

    /// A lease that no storage stands behind, for work that has to continue where the storage cannot
    /// lock. Nothing can be stored under it.
    pub fn unstored() -> Self {
        Self::new(Unstored)
    }

    /// Whether the storage stands behind it, see [`Self::unstored`].
    pub fn is_stored(&self) -> bool {
        self.token() != 0
    }

    /// A number that is higher with each lease on the same key (a fencing token).
    pub fn token(&self) -> u64 {
        self.backend.token()
    }

    /// Whether no other holder has taken over. Blocks for no longer than a read. The answer may be
    /// out of date at once: what must not be written twice goes through
    /// [`super::Storage::store_under`].
    pub fn is_held(&self) -> bool {
        self.backend.is_held()
    }

    /// See [`LeaseBackend::store`].
    pub(super) fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.backend.store(key, value)
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
