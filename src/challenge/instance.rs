//! Which instances share the storage, so that a challenge is given time to reach them, and only
//! where there are any.
//!
//! Each instance stores a record and holds the lock of its key for as long as it lives: the lock is
//! free as soon as the process is gone, so no clocks are compared and nothing is refreshed. What
//! dead ones have left is deleted by whoever comes across it.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sync::WITHOUT_WATCH;
use crate::storage::{Key, Lease, Storage, StorageError, keys};

/// How long it takes at most until an instance on this machine answers what has been stored: the
/// system tells it.
const NEAR: Duration = Duration::from_millis(400);

/// The same for one on another machine, which may have to look: one look may just be over, and the
/// next one takes its time.
const FAR: Duration = WITHOUT_WATCH.saturating_mul(2);

/// This instance among those that share a storage.
pub(super) struct Instance {
    id: String,
    /// Held while others are to know of it.
    lease: Mutex<Option<Lease>>,
}

/// What is stored of one.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Made anew by each start of a machine's system; `None` where there is none to be read.
    machine: Option<String>,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            id: format!("{:032x}", fastrand::u128(..)),
            lease: Mutex::default(),
        }
    }
}

impl Instance {
    /// Its name among those that share the storage.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether another instance of this name lives.
    pub(super) fn is_other(&self, storage: &dyn Storage, id: &str) -> Result<bool, StorageError> {
        Ok(id != self.id && is_alive(storage, &keys::instance(id)?)?)
    }

    /// Makes known that this instance answers from now on, where that is not known already.
    pub(super) fn write_record(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let key = keys::instance(&self.id)?;
        let mut lease = self.lease();
        if !lease.as_ref().is_some_and(Lease::is_held) {
            *lease = None;
            // Locked first, so that nobody takes it for dead.
            *lease = Some(storage.lock(&key)?);
            self.peers(storage)?;
        }
        if !storage.exists(&key)? {
            let machine = machine();
            storage.store(
                &key,
                &serde_json::to_vec(&Record { machine }).unwrap_or_default(),
            )?;
        }
        Ok(())
    }

    /// Takes back what [`Self::write_record`] made known.
    pub(super) fn delete_record(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        match self.lease().take() {
            Some(_held) => storage.delete(&keys::instance(&self.id)?),
            None => Ok(()),
        }
    }

    /// How long it takes until what has been stored is answered by all others that live; `None`
    /// where there are none.
    pub(super) fn delay(&self, storage: &dyn Storage) -> Result<Option<Duration>, StorageError> {
        let here = machine();
        let mut delay = None;
        for key in self.peers(storage)? {
            let record = storage.load(&key)?;
            let record = record.and_then(|json| serde_json::from_slice::<Record>(&json).ok());
            let is_near = here.is_some() && record.is_some_and(|record| record.machine == here);
            delay = delay.max(Some(if is_near { NEAR } else { FAR }));
        }
        Ok(delay)
    }

    /// The records of all others that live. Deletes those of others.
    fn peers(&self, storage: &dyn Storage) -> Result<Vec<Key>, StorageError> {
        let own = keys::instance(&self.id)?;
        let mut peers = Vec::new();
        for key in storage.list(&keys::instances()?)? {
            if key != own && is_alive(storage, &key)? {
                peers.push(key);
            }
        }
        Ok(peers)
    }

    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the instance with this record lives; deletes the record where it does not.
fn is_alive(storage: &dyn Storage, key: &Key) -> Result<bool, StorageError> {
    match storage.try_lock(key)? {
        None => Ok(true),
        Some(_lease) => storage.delete(key).map(|()| false),
    }
}

/// This machine, until its system is started again.
fn machine() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}
