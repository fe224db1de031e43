//! The record of a name that has a certificate on demand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::expiry::RemovalReason;
use crate::cert_store::Use;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};
use crate::issuer::Issuer;
use crate::renewal::Deps;
use crate::renewal::read_stored_state;
use crate::storage::{Key, Storage, StorageError, damaged, keys};

/// Since when a name has its certificate on demand, and when it was last of use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::manager) struct Record {
    pub(in crate::manager) name: String,
    /// When it was let have one.
    pub(in crate::manager) allowed: UnixTime,
    /// When a client was last presented it, as far as that has been written: it is behind by a day
    /// at most.
    pub(in crate::manager) used: UnixTime,
}

impl Record {
    /// That of a name which has just been let have a certificate.
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

    /// Writes it, with what others have written since: the latest use counts.
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

/// The outcome of a removal.
pub(super) enum RemovalOutcome {
    /// Nothing of it is left in the storage but what the configuration asks for.
    Dropped,
    /// Another instance has presented its certificate at this time.
    Used(UnixTime),
    /// This valid certificate of it is stored.
    Renewed(Box<TlsCertificate>),
    /// It is being worked on, or the storage fails: it stays for now.
    Stays,
}

/// A name that is to be removed from the storage.
pub struct Removal {
    pub(super) name: HostName,
    pub(super) subject: String,
    pub(super) why: RemovalReason,
    /// Where certificates of it may be.
    pub(super) issuers: Vec<Arc<dyn Issuer>>,
    /// Whether its certificate stays, which the configuration asks for.
    pub(super) keeps_certificate: bool,
    /// What is unused stays where it was of use at this time or later.
    pub(super) unless_used: UnixTime,
}

impl Removal {
    /// Deletes what is stored, where nobody needs it. Blocks on the storage.
    pub fn run(self, deps: &Deps) -> Removed {
        let outcome = match self.delete_stored(deps) {
            Ok(outcome) => outcome,
            Err(error) => {
                deps.health.record_failure(Use::Writing, &error);
                RemovalOutcome::Stays
            }
        };
        Removed {
            name: self.name,
            why: self.why,
            outcome,
        }
    }

    fn delete_stored(&self, deps: &Deps) -> Result<RemovalOutcome, StorageError> {
        let storage = &*deps.storage;
        let record = keys::on_demand(&self.subject)?;
        let Some(_lease) = storage.try_lock(&keys::lock(&self.subject)?)? else {
            return Ok(RemovalOutcome::Stays);
        };
        match self.why {
            RemovalReason::Unused => match Record::load(storage, &record)? {
                // Another instance was faster: what there is is not of this name on demand.
                None => return Ok(RemovalOutcome::Dropped),
                Some(found) if found.used >= self.unless_used => {
                    return Ok(RemovalOutcome::Used(found.used));
                }
                Some(_) => {}
            },
            // Another instance may have been told that it is wanted.
            RemovalReason::Unwanted => {
                if let Some(certificate) = self.stored_valid(deps)? {
                    return Ok(RemovalOutcome::Renewed(Box::new(certificate)));
                }
            }
            RemovalReason::TakenOver => {}
        }
        if !self.keeps_certificate {
            for issuer in &self.issuers {
                let (ca, subject) = (issuer.ca(), &self.subject);
                storage.delete(&keys::certificate(ca, subject)?)?;
                storage.delete(&keys::metadata(ca, subject)?)?;
                storage.delete(&keys::renewal_info(ca, subject)?)?;
                storage.delete(&keys::order(ca, subject)?)?;
                storage.delete(&keys::retry(issuer.account_id(), subject)?)?;
            }
            storage.delete(&keys::former_retry(&self.subject)?)?;
        }
        // Last, so that what is left half done is found again.
        storage.delete(&record)?;
        Ok(RemovalOutcome::Dropped)
    }

    /// The certificate that is stored, where it is valid.
    fn stored_valid(&self, deps: &Deps) -> Result<Option<TlsCertificate>, StorageError> {
        let names = [Pattern::Exact(self.name.clone())];
        let read = read_stored_state(deps, &names, &self.subject, &self.issuers)?;
        let now = deps.clock.now();
        let is_valid = |one: &TlsCertificate| one.validity(now) == Validity::Valid;
        Ok(read.certificate.filter(is_valid))
    }
}

impl Removed {
    /// Whether it was decided: what stays is to be looked at again, and not at once.
    pub fn is_settled(&self) -> bool {
        !matches!(self.outcome, RemovalOutcome::Stays)
    }
}

/// The result of a [`Removal`].
pub struct Removed {
    pub(super) name: HostName,
    pub(super) why: RemovalReason,
    pub(super) outcome: RemovalOutcome,
}
