//! The journal of records in the DNS: each is noted in the storage before it is set and until it is
//! gone, so that the next start, or another instance, removes what a killed process has left.
//!
//! The lock of a note is held for as long as this process needs the record. A note whose lock is
//! free belongs to a dead process, or to a record that could not be removed: whoever finds it
//! removes the record.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use crate::clock::{Clock, UnixTime};
use crate::dns::{DnsError, DnsProvider, TxtRecord};
use crate::host::HostName;
use crate::lock::MutexExt;
use crate::storage::{Key, Lease, Storage, StorageError, blocking, damaged, keys, release};

/// The note of a record, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The entry of `dns` in the configuration that set it.
    pub(super) provider: String,
    zone: String,
    name: String,
    value: String,
    /// When it was written.
    pub(super) at: UnixTime,
}

impl Note {
    fn new(provider: &str, zone: &HostName, record: &TxtRecord, at: UnixTime) -> Self {
        Self {
            provider: provider.to_owned(),
            zone: zone.to_string(),
            name: record.name.to_string(),
            value: record.value.clone(),
            at,
        }
    }

    fn key(&self) -> Result<Key, StorageError> {
        let Self {
            provider,
            name,
            value,
            ..
        } = self;
        keys::dns_record(&format!("{provider} {name} {value}"))
    }

    /// Zone and record; `None` if the stored text is malformed.
    fn record(&self) -> Option<(HostName, TxtRecord)> {
        let name = self.name.parse().ok()?;
        let value = self.value.clone();
        Some((self.zone.parse().ok()?, TxtRecord { name, value }))
    }
}

/// The notes of all records.
pub(super) struct Journal {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    /// The records that this process holds, each with the number of its users.
    held: Mutex<HashMap<Key, (usize, Arc<HeldRecord>)>>,
}

/// A record that this process holds.
pub(super) struct HeldRecord {
    key: Key,
    pub(super) zone: HostName,
    pub(super) record: TxtRecord,
    provider: Arc<dyn DnsProvider>,
    /// Locked while the record is worked on.
    state: AsyncMutex<State>,
}

#[derive(Default)]
struct State {
    /// Shows others that the record is needed; `None` if the storage fails.
    lease: Option<Lease>,
    /// Whether the record may be there.
    may_be_set: bool,
}

/// Why a record was not set.
pub(super) enum SetError {
    Dns(DnsError),
    /// Another instance has set it, and is about to remove it.
    Busy,
}

impl Journal {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self {
            storage,
            clock,
            held: Mutex::default(),
        }
    }

    /// Holds a record until [`Self::release`].
    pub(super) fn acquire(
        &self,
        provider: &Arc<dyn DnsProvider>,
        zone: HostName,
        record: TxtRecord,
    ) -> Result<Arc<HeldRecord>, StorageError> {
        let key = Note::new(provider.name(), &zone, &record, UnixTime::default()).key()?;
        let mut held = self.held();
        let (wanted, of_it) = held.entry(key.clone()).or_insert_with(|| {
            let held = HeldRecord {
                key,
                zone,
                record,
                provider: Arc::clone(provider),
                state: AsyncMutex::default(),
            };
            (0, Arc::new(held))
        });
        *wanted += 1;
        Ok(Arc::clone(of_it))
    }

    /// Undoes one [`Self::acquire`].
    pub(super) fn release(&self, of_it: &HeldRecord) {
        if let Some((wanted, _)) = self.held().get_mut(&of_it.key) {
            *wanted = wanted.saturating_sub(1);
        }
    }

    /// Notes a record, and sets it.
    pub(super) async fn set_record(&self, held: &HeldRecord) -> Result<(), SetError> {
        let mut state = held.state.lock().await;
        if state.lease.is_none() {
            state.lease = self.write_note(held).await?;
        }
        let was_set = std::mem::replace(&mut state.may_be_set, true);
        let set = held.provider.add(&held.zone, &held.record).await;
        if let Err(DnsError::Refused(_)) = &set {
            // A client that may not set it need not remove it.
            state.may_be_set = was_set;
        }
        set.map_err(SetError::Dns)
    }

    /// Removes a record that nobody needs any more, and its note.
    ///
    /// # Errors
    /// If the record cannot be removed; true if its note is left, like one of a dead process.
    pub(super) async fn remove_unwanted(&self, held: &HeldRecord) -> Result<(), (DnsError, bool)> {
        let mut state = held.state.lock().await;
        if self.is_wanted(held) {
            return Ok(());
        }
        let removed = match state.may_be_set {
            true => held.provider.remove(&held.zone, &held.record).await,
            false => Ok(()),
        };
        let lease = state.lease.take();
        let is_noted = lease.is_some();
        state.may_be_set = false;
        match (&removed, lease) {
            (Ok(()), Some(lease)) => self.delete_note(held.key.clone(), lease).await,
            (Err(_), Some(lease)) => release(&self.storage, lease).await,
            (_, None) => {}
        }
        let mut all = self.held();
        if all.get(&held.key).is_some_and(|(wanted, _)| *wanted == 0) {
            all.remove(&held.key);
        }
        removed.map_err(|error| (error, is_noted))
    }

    /// The notes of dead processes, each with its lock.
    pub(super) async fn abandoned(&self) -> Result<Vec<Abandoned>, StorageError> {
        let found = blocking(&self.storage, |storage| {
            let mut found = Vec::new();
            for key in storage.list(&keys::dns_records()?)? {
                let Some(lease) = storage.try_lock(&key)? else {
                    continue;
                };
                // Read under the lock: it may have been deleted until then.
                if let Some(note) = damaged::read_json(storage, &key)? {
                    found.push(Abandoned { key, note, lease });
                }
            }
            Ok(found)
        });
        found.await
    }

    /// Removes the record of an abandoned note, and the note.
    pub(super) async fn remove_abandoned(
        &self,
        abandoned: Abandoned,
        provider: &dyn DnsProvider,
    ) -> Result<(), DnsError> {
        let Abandoned { key, note, lease } = abandoned;
        if let Some((zone, record)) = note.record() {
            provider.remove(&zone, &record).await?;
            tracing::info!(
                record = %record.name,
                provider = provider.name(),
                "removed a record left in the DNS"
            );
        }
        self.delete_note(key, lease).await;
        Ok(())
    }

    /// Locks a note and stores it. Continues without a note if the storage fails: that is no reason
    /// not to validate a name.
    async fn write_note(&self, held: &HeldRecord) -> Result<Option<Lease>, SetError> {
        let now = self.clock.now();
        let note = Note::new(held.provider.name(), &held.zone, &held.record, now);
        let key = held.key.clone();
        let noted = blocking(&self.storage, move |storage| {
            let lease = storage.lock(&key)?;
            let value = serde_json::to_vec(&note).unwrap_or_default();
            storage.store_under(&lease, &key, &value)?;
            Ok(lease)
        });
        match noted.await {
            Ok(lease) => Ok(Some(lease)),
            Err(StorageError::Busy { .. }) => Err(SetError::Busy),
            Err(error) => {
                tracing::warn!(
                    record = %held.record.name,
                    %error,
                    "cannot note a record in the DNS: it will stay there if this process is killed"
                );
                Ok(None)
            }
        }
    }

    /// Deletes a note, and gives its lock back.
    pub(super) async fn delete_note(&self, key: Key, lease: Lease) {
        let forgotten = blocking(&self.storage, move |storage| {
            let deleted = storage.delete(&key);
            drop(lease);
            deleted
        });
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "cannot delete the note of a record removed from the DNS");
        }
    }

    fn is_wanted(&self, of_it: &HeldRecord) -> bool {
        let held = self.held();
        held.get(&of_it.key).is_some_and(|(wanted, _)| *wanted > 0)
    }

    /// No critical section leaves it half changed.
    fn held(&self) -> MutexGuard<'_, HashMap<Key, (usize, Arc<HeldRecord>)>> {
        self.held.lock_unpoisoned()
    }
}

/// The note of a dead process.
pub(super) struct Abandoned {
    pub(super) key: Key,
    pub(super) note: Note,
    pub(super) lease: Lease,
}

impl Abandoned {
    /// The name of the record.
    pub(super) fn name(&self) -> &str {
        &self.note.name
    }
}
