//! Removes unused names from the storage.
//!
//! Handshakes only mark the certificates that they present. The marks are collected now and then,
//! and the use of a name is written to its record, at most once a day. Names that were unused for
//! long are removed, unless another instance uses them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock_guard::ClockGuard;
use super::record::Record;
use crate::cert_store::Use;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::OnDemand;
use crate::host::{HostName, Pattern};
use crate::issuer::Issuer;
use crate::renewal::{Deps, read_stored_state};
use crate::storage::{StorageError, keys};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// How many names wait to be removed. One that finds no room is found again.
const MOST_LEAVING: usize = 100_000;

/// How long unused names are kept, and what follows from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// In seconds.
    unused: i64,
}

impl Retention {
    pub(super) fn from_config(on_demand: &OnDemand) -> Self {
        Self {
            unused: i64::try_from(on_demand.unused.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// A name that was last used before this time is removed.
    pub(super) fn unless_used(self, now: UnixTime) -> UnixTime {
        now - self.unused
    }

    /// How many seconds the use in a record may be behind.
    pub(super) fn written_every(self) -> i64 {
        (self.unused / 4).clamp(1, DAY)
    }

    /// How many seconds lie between two collections of what was used.
    pub fn looked_every(self) -> i64 {
        (self.unused / 8).clamp(1, 10 * MINUTE)
    }

    /// How many seconds lie between two walks through all records.
    pub fn walked_every(self) -> i64 {
        self.written_every()
    }
}

/// Why a name is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemovalReason {
    /// It was unused for long.
    Unused,
    /// It is no longer allowed to have a certificate, and its certificate has expired.
    Unwanted,
    /// The configuration has come to ask for its certificate, which stays.
    TakenOver,
}

/// The names that are to be removed from the storage.
#[derive(Default)]
pub(super) struct RemovalQueue {
    leaving: HashMap<HostName, RemovalReason>,
    clock_guard: ClockGuard,
}

impl RemovalQueue {
    pub(super) fn push(&mut self, name: HostName, why: RemovalReason) {
        if self.leaving.len() < MOST_LEAVING || self.leaving.contains_key(&name) {
            self.leaving.insert(name, why);
        }
    }

    pub(super) fn clear(&mut self) {
        self.leaving.clear();
    }

    /// Whether the clock can be trusted with what cannot be undone; the process has been `up` so
    /// long.
    pub(super) fn is_clock_trusted(&mut self, now: UnixTime, up: Duration) -> bool {
        self.clock_guard.is_trusted(now, up)
    }

    /// Takes at most so many names that still are `to_go`: much may have happened since they were
    /// queued.
    pub(super) fn take_due(
        &mut self,
        most: usize,
        to_go: impl Fn(&HostName, RemovalReason) -> bool,
    ) -> HashMap<HostName, RemovalReason> {
        let (mut going, mut left) = (HashMap::new(), HashMap::new());
        for (name, why) in std::mem::take(&mut self.leaving) {
            if going.len() >= most {
                left.insert(name, why);
            } else if to_go(&name, why) {
                going.insert(name, why);
            }
        }
        self.leaving = left;
        going
    }
}

/// A name that is to be removed from the storage.
pub struct Removal {
    pub(super) name: HostName,
    pub(super) subject: String,
    pub(super) why: RemovalReason,
    /// The issuers whose certificates for it may be stored.
    pub(super) issuers: Vec<Arc<dyn Issuer>>,
    /// Whether its certificate stays, because the configuration asks for it.
    pub(super) keeps_certificate: bool,
    /// An unused name stays where it was used at this time or later.
    pub(super) unless_used: UnixTime,
}

/// The result of a [`Removal`].
pub struct Removed {
    pub(super) name: HostName,
    pub(super) why: RemovalReason,
    pub(super) outcome: RemovalOutcome,
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

impl Removal {
    /// Deletes what is stored, unless it is still needed. Blocks on the storage.
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
            // Another instance may have learnt that it is allowed again.
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
        // Last, so that a removal that is cut short is found again.
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
