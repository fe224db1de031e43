//! The record of a name that has a certificate on demand.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};
use crate::renewal::Deps;
use crate::storage::{Key, Storage, StorageError, damaged, keys};

/// Since when a name has its certificate on demand, and when it was last used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    /// When it was allowed to have one.
    pub(super) allowed: UnixTime,
    /// When a client was last presented its certificate, as far as that has been written: a day
    /// behind at most.
    pub(super) used: UnixTime,
}

impl Record {
    /// The record of a name that has just been allowed to have a certificate.
    pub(super) fn new(name: &HostName, now: UnixTime) -> Self {
        Self {
            name: name.to_string(),
            allowed: now,
            used: now,
        }
    }

    /// Reads it; `None` where there is none.
    pub(super) fn load(storage: &dyn Storage, key: &Key) -> Result<Option<Self>, StorageError> {
        damaged::read_json(storage, key)
    }

    /// Writes it, merged with what others have written since: the latest use counts.
    pub(super) fn store(&self, storage: &dyn Storage, key: &Key) -> Result<(), StorageError> {
        let mut record = self.clone();
        if let Some(other) = Self::load(storage, key)? {
            record.used = record.used.max(other.used);
            record.allowed = record.allowed.min(other.allowed);
        }
        let value = serde_json::to_vec(&record).unwrap_or_default();
        storage.store(key, &value)
    }
}

/// The use of a name, to be written to the storage.
pub struct UseRecord {
    pub(super) name: HostName,
    pub(super) record: Record,
}

/// The records of all names that have certificates on demand.
///
/// # Errors
/// Where the storage cannot be read.
pub fn list_records(deps: &Deps) -> Result<Vec<Key>, StorageError> {
    deps.storage.list(&keys::all_on_demand()?)
}

/// Writes these uses until the storage fails. Returns those that are written.
pub fn write_uses(deps: &Deps, uses: Vec<UseRecord>) -> Vec<UseRecord> {
    let mut written = Vec::with_capacity(uses.len());
    for used in uses {
        let stored = keys::on_demand(&subject(&used.name))
            .and_then(|key| used.record.store(&*deps.storage, &key));
        if let Err(error) = stored {
            tracing::warn!(%error, "cannot record the last use of on-demand certificates");
            break;
        }
        written.push(used);
    }
    written
}

/// The segment of storage keys for the certificate of `name`.
pub(super) fn subject(name: &HostName) -> String {
    keys::subject(&[Pattern::Exact(name.clone())])
}
