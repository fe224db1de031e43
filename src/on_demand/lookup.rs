//! Looks names up in the storage, while the manager continues.

use std::sync::Arc;

use super::record::Record;
use super::request_table::LookupGuard;
use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};
use crate::issuer::Issuer;
use crate::parallel;
use crate::renewal::Deps;
use crate::renewal::{StoredState, read_stored_state};
use crate::storage::{Key, StorageError, keys};

/// Names to be looked up.
pub struct Lookup {
    pub(super) keys: Vec<LookupKey>,
    /// The issuers whose certificates for them may be stored.
    pub(super) issuers: Vec<Arc<dyn Issuer>>,
    /// How many seconds the use in a record may be behind.
    pub(super) written_every: i64,
    /// Names that were last used before this time are not looked up.
    pub(super) unless_used: UnixTime,
    /// Those that clients wait for.
    pub(super) looking_up: LookupGuard,
}

/// One of a [`Lookup`].
pub(super) enum LookupKey {
    /// A client has asked for this name.
    Asked(HostName),
    /// There is a record.
    Stored(Key),
}

/// The results of a [`Lookup`].
pub struct LookupResults {
    pub(super) found: Vec<Found>,
    /// Dropped once the waiting clients are answered.
    pub(super) looking_up: LookupGuard,
}

/// What was found for one name.
pub(super) struct Found {
    pub(super) name: HostName,
    pub(super) subject: String,
    pub(super) is_asked: bool,
    pub(super) outcome: Result<State, StorageError>,
}

/// What the storage has of a name.
pub(super) enum State {
    /// It was unused for too long.
    Unused,
    Known {
        record: Record,
        read: Box<StoredState>,
    },
}

impl Lookup {
    /// Whether there is nothing to be looked up.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Looks all of them up, on all cores. Blocks on the storage.
    pub fn run(self, deps: &Deps) -> LookupResults {
        let found = parallel::map(&self.keys, |wish| match wish {
            LookupKey::Asked(name) => Some(self.look_up_name(deps, name.clone(), None)),
            LookupKey::Stored(key) => {
                let (name, record) = read_record(deps, key)?;
                Some(self.look_up_name(deps, name, Some(record)))
            }
        });
        LookupResults {
            found: found.into_iter().flatten().collect(),
            looking_up: self.looking_up,
        }
    }

    /// Looks up a name with its record, or one that a client has asked for.
    fn look_up_name(&self, deps: &Deps, name: HostName, stored: Option<Record>) -> Found {
        let is_asked = stored.is_none();
        let names = [Pattern::Exact(name.clone())];
        let subject = keys::subject(&names);
        let outcome = self.read_state(deps, &name, &names, &subject, stored);
        Found {
            name,
            subject,
            is_asked,
            outcome,
        }
    }

    fn read_state(
        &self,
        deps: &Deps,
        name: &HostName,
        names: &[Pattern],
        subject: &str,
        stored: Option<Record>,
    ) -> Result<State, StorageError> {
        let (storage, now) = (&*deps.storage, deps.clock.now());
        let key = keys::on_demand(subject)?;
        let record = match stored {
            Some(record) if record.used < self.unless_used => return Ok(State::Unused),
            Some(record) => record,
            None => {
                let stored = Record::load(storage, &key)?;
                let mut record = stored.unwrap_or_else(|| Record {
                    // Written below.
                    used: UnixTime::MIN,
                    ..Record::new(name, now)
                });
                if record.used < now - self.written_every {
                    record.used = now;
                    record.store(storage, &key)?;
                }
                record
            }
        };
        let read = Box::new(read_stored_state(deps, names, subject, &self.issuers)?);
        Ok(State::Known { record, read })
    }
}

/// A record with its name; `None` if it has no valid one, or cannot be read, which is logged.
fn read_record(deps: &Deps, key: &Key) -> Option<(HostName, Record)> {
    let record = match Record::load(&*deps.storage, key) {
        Ok(record) => record?,
        Err(error) => {
            tracing::warn!(%key, %error, "cannot be read");
            return None;
        }
    };
    let name: HostName = record.name.parse().ok()?;
    let subject = keys::subject(&[Pattern::Exact(name.clone())]);
    (keys::on_demand(&subject).ok()? == *key).then_some((name, record))
}
