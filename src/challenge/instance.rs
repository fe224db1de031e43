//! The instances that share the storage. Challenges are given time to reach them, if there are any.
//!
//! Each instance stores a record and holds the lock of its key for as long as it lives: the lock is
//! free as soon as the process is gone, so no clocks are compared and nothing is refreshed. Whoever
//! finds the record of a dead instance deletes it.

use std::fs;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sync::WITHOUT_WATCH;
use crate::lock::MutexExt;
use crate::storage::{Key, Lease, Storage, StorageError, keys};

/// How long an instance on this machine takes to respond to what has been stored: the system
/// notifies it.
const NEAR: Duration = Duration::from_millis(400);

/// The same for another machine, which may have to poll: one poll may have just passed, and the
/// next takes its time.
const FAR: Duration = WITHOUT_WATCH.saturating_mul(2);

/// This instance among those that share a storage.
pub(super) struct Instance {
    id: String,
    /// Held while others should know of this instance.
    lease: Mutex<Option<Lease>>,
}

/// The record of an instance, as stored.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Changes with each boot of the machine; `None` if it cannot be read.
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

    /// Returns true if `id` is another instance, and alive.
    pub(super) fn is_other(&self, storage: &dyn Storage, id: &str) -> Result<bool, StorageError> {
        Ok(id != self.id && is_alive(storage, &keys::instance(id)?)?)
    }

    /// Announces that this instance responds from now on, if that has not been done.
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

    /// Withdraws what [`Self::write_record`] announced.
    pub(super) fn delete_record(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        match self.lease().take() {
            Some(_held) => storage.delete(&keys::instance(&self.id)?),
            None => Ok(()),
        }
    }

    /// How long it takes until all other instances respond to what has been stored; `None` if there
    /// are none.
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

    /// The records of all other live instances. Deletes those of dead ones.
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
        self.lease.lock_unpoisoned()
    }
}

/// Returns true if the instance of this record is alive; deletes the record otherwise.
fn is_alive(storage: &dyn Storage, key: &Key) -> Result<bool, StorageError> {
    match storage.try_lock(key)? {
        None => Ok(true),
        Some(_lease) => storage.delete(key).map(|()| false),
    }
}

/// This machine, until it is rebooted.
fn machine() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}
