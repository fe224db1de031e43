//! Keeps names that clients use, and removes unused ones from the map and the storage.
//!
//! Handshakes only mark the certificates that they present. The marks are collected here now and
//! then, and the use of a name is recorded in the storage, at most once a day. Names that were
//! unused for long are removed, unless another instance uses them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::TlsManager;
use super::super::report::Report;
use super::lookup::{Lookup, LookupKey};
use super::record::{Record, Removal, RemovalOutcome, Removed};
use super::{OnDemandNames, from_cas};
use crate::certificate::TlsCertificate;
use crate::clock::{UnixTime, rfc3339};
use crate::config::model::OnDemand;
use crate::host::{HostName, Pattern};
use crate::renewal::Deps;
use crate::renewal::{NameStatus, cert_events};
use crate::storage::{Key, StorageError, keys};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// For how long, in seconds, a name without a certificate is tried again by itself after a client
/// has last asked for it.
const TRIED_FOR: i64 = DAY;

/// How many names are written or dropped at a time.
const AT_A_TIME: usize = 1_000;

/// How many wait to be dropped. What finds no room is found again.
const MOST_LEAVING: usize = 100_000;

/// How long names are kept that nobody uses, and what follows from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// In seconds.
    unused: i64,
}

/// Why a name is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemovalReason {
    /// It was unused for long.
    Unused,
    /// Who decides on names does not want it any more, and its certificate has ended.
    Unwanted,
    /// The configuration has come to ask for it: the certificate stays.
    TakenOver,
}

/// The use of a name, to be written to the storage.
pub struct UseRecord {
    name: HostName,
    record: Record,
}

impl Retention {
    pub(super) fn from_config(on_demand: &OnDemand) -> Self {
        Self {
            unused: i64::try_from(on_demand.unused.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// What was last of use before then goes.
    pub(super) fn unless_used(self, now: UnixTime) -> UnixTime {
        now.saturating_sub(self.unused)
    }

    /// How old what is written of a use may become.
    pub(super) fn written_every(self) -> i64 {
        (self.unused / 4).clamp(1, DAY)
    }

    /// How many seconds lie between two collections of what was used.
    pub fn looked_every(self) -> i64 {
        (self.unused / 8).clamp(1, 10 * MINUTE)
    }

    /// How many seconds lie between two walks through all that is stored.
    pub fn walked_every(self) -> i64 {
        self.written_every()
    }
}

impl OnDemandNames {
    /// Queues a name for removal from the storage.
    pub(super) fn queue_removal(&mut self, name: HostName, why: RemovalReason) {
        if self.leaving.len() < MOST_LEAVING || self.leaving.contains_key(&name) {
            self.leaving.insert(name, why);
        }
    }
}

impl Deps {
    /// All names that have certificates on demand, by their records.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    pub fn list_on_demand_records(&self) -> Result<Vec<Key>, StorageError> {
        self.storage.list(&keys::all_on_demand()?)
    }

    /// Writes down what was used. Returns what is written.
    pub fn write_on_demand_uses(&self, notes: Vec<UseRecord>) -> Vec<UseRecord> {
        let mut written = Vec::with_capacity(notes.len());
        for note in notes {
            let stored = keys::on_demand(&subject(&note.name))
                .and_then(|key| note.record.store(&*self.storage, &key));
            if let Err(error) = stored {
                tracing::warn!(%error, "cannot record the last use of on-demand certificates");
                break;
            }
            written.push(note);
        }
        written
    }
}

impl TlsManager {
    /// How long names are kept that nobody uses; `None` where none has a certificate on demand from
    /// a CA.
    pub fn on_demand_retention(&self) -> Option<Retention> {
        let config = self.config.as_deref()?;
        from_cas(config).map(Retention::from_config)
    }

    /// Those of the names with these records that are to be looked at: what is known is not read
    /// again.
    pub fn look_up_records(&mut self, records: Vec<Key>) -> Lookup {
        let now = self.clock.now();
        let records = records.into_iter();
        let unknown = records.filter(|key| !self.names.has_record(key));
        let keys = unknown.map(LookupKey::Stored).collect();
        self.prepare_lookup(keys, now)
    }

    /// Records that these names were used.
    pub fn record_on_demand_uses(&mut self, names: &[HostName]) {
        let Some(retention) = self.on_demand_retention() else {
            return;
        };
        let (now, every) = (self.clock.now(), retention.written_every());
        for name in names {
            self.names.record_use(name, now);
            let known = self.names.known.get(name);
            if known.is_some_and(|known| known.used.saturating_sub(known.written) >= every) {
                self.names.unwritten.insert(name.clone());
            }
        }
    }

    /// What is to be written down, some at a time. What is written goes to
    /// [`Self::mark_on_demand_uses_written`].
    pub fn unwritten_on_demand_uses(&self) -> Vec<UseRecord> {
        let names = self.names.unwritten.iter();
        let notes = names.filter_map(|name| {
            let known = self.names.known.get(name)?;
            Some(UseRecord {
                name: name.clone(),
                record: Record {
                    name: name.to_string(),
                    allowed: known.allowed,
                    used: known.used,
                },
            })
        });
        notes.take(AT_A_TIME).collect()
    }

    /// Marks these uses as written.
    pub fn mark_on_demand_uses_written(&mut self, written: &[UseRecord]) {
        for UseRecord { name, record } in written {
            self.names.unwritten.remove(name);
            if let Some(known) = self.names.known.get_mut(name) {
                known.written = record.used;
            }
        }
    }

    /// The names that are to go from the storage now, some at a time; none while the clock cannot be
    /// trusted, of a process that has been `up` so long. What becomes of each goes to
    /// [`Self::finish_on_demand_removals`].
    pub fn on_demand_removals(&mut self, up: Duration) -> Vec<Removal> {
        let Some(retention) = self.on_demand_retention() else {
            self.names.leaving.clear();
            return Vec::new();
        };
        let now = self.clock.now();
        let is_calm = self.names.clock_guard.is_trusted(now, up);
        self.give_up_pending(now);
        if !is_calm {
            return Vec::new();
        }
        let unless_used = retention.unless_used(now);
        let issuers = self.all_remote(&[]);
        let mut going = HashMap::new();
        let mut left = HashMap::new();
        let configured = self.renewals.configured_subjects();
        for (name, why) in std::mem::take(&mut self.names.leaving) {
            if going.len() >= AT_A_TIME {
                left.insert(name, why);
            } else if self.is_to_go(&name, why, &configured, unless_used, now) {
                going.insert(name, why);
            }
        }
        let unused = self.names.by_use.iter();
        let unused = unused.take_while(|(used, _)| *used < unless_used);
        let room = AT_A_TIME.saturating_sub(going.len());
        going.extend(
            unused
                .take(room)
                .map(|(_, name)| (name.clone(), RemovalReason::Unused)),
        );
        let going = going.into_iter().map(|(name, why)| {
            let subject = subject(&name);
            Removal {
                keeps_certificate: configured.contains(&*subject),
                why,
                unless_used,
                issuers: issuers.clone(),
                name,
                subject,
            }
        });
        let going = going.collect();
        self.names.leaving = left;
        going
    }

    /// Whether a name is to go still: much may have happened since that was found.
    fn is_to_go(
        &self,
        name: &HostName,
        why: RemovalReason,
        configured: &HashSet<&str>,
        unless_used: UnixTime,
        now: UnixTime,
    ) -> bool {
        let known = self.names.known.get(name);
        match why {
            RemovalReason::Unused => known.is_none_or(|known| known.used < unless_used),
            RemovalReason::Unwanted => {
                known.is_some_and(|known| self.renewals.is_over(&known.spec, now))
            }
            // Where it is covered by another certificate, its own stays until it is unused: nobody
            // else would ever delete that and its key.
            RemovalReason::TakenOver => known.is_none() && configured.contains(&*subject(name)),
        }
    }

    /// Names without a certificate that nobody has asked for lately are not tried again by
    /// themselves.
    fn give_up_pending(&mut self, now: UnixTime) {
        let oldest = now.saturating_sub(TRIED_FOR);
        let pending = self.names.pending.iter();
        let old: Vec<_> = pending
            .filter(|(_, asked)| **asked < oldest)
            .map(|(name, _)| name.clone())
            .collect();
        for name in old {
            let Some(known) = self.names.known.get(&name) else {
                continue;
            };
            let spec = Arc::clone(&known.spec);
            // What is being obtained comes to its end.
            if !matches!(self.renewals.name_status(&spec, now), NameStatus::Pending) {
                self.names.remove(&name);
                self.renewals.release_spec(&spec);
            }
        }
    }

    /// Applies the outcomes of removals: removed names are no longer served.
    pub fn finish_on_demand_removals(&mut self, gone: Vec<Removed>) -> Report {
        let mut report = Report::default();
        let Some(config) = self.config.clone() else {
            return report;
        };
        let now = self.clock.now();
        for Removed { name, why, outcome } in gone {
            match outcome {
                RemovalOutcome::Used(at) => self.names.record_use(&name, at),
                RemovalOutcome::Renewed(certificate) => {
                    self.keep_renewed(&name, *certificate, now, &mut report)
                }
                // It is found again.
                RemovalOutcome::Stays if why == RemovalReason::Unused => {}
                RemovalOutcome::Stays => self.names.queue_removal(name, why),
                RemovalOutcome::Dropped => self.drop_name(&name, why, now, &mut report),
            }
        }
        self.publish(&config, now, &mut report);
        report
    }

    fn keep_renewed(
        &mut self,
        name: &HostName,
        certificate: TlsCertificate,
        now: UnixTime,
        report: &mut Report,
    ) {
        if let Some(known) = self.names.known.get(name) {
            let spec = Arc::clone(&known.spec);
            if let Some(change) = self.renewals.install_renewed(&spec, certificate, now) {
                self.apply_change(change, spec.precedence, report);
            }
        }
    }

    fn drop_name(
        &mut self,
        name: &HostName,
        why: RemovalReason,
        now: UnixTime,
        report: &mut Report,
    ) {
        let Some(known) = self.names.known.get_mut(name) else {
            return;
        };
        let is_unwanted = why == RemovalReason::Unwanted;
        if is_unwanted && !self.renewals.is_over(&known.spec, now) {
            // A client has asked meanwhile: it is written down again.
            known.written = UnixTime::MIN;
            return;
        }
        let (spec, used) = (Arc::clone(&known.spec), known.used);
        if self.renewals.has_certificate(&spec) {
            let what = match is_unwanted {
                true => "has expired and is removed because it is no longer allowed".to_owned(),
                false => format!("is removed: unused since {}", rfc3339(used)),
            };
            cert_events(self.renewals.deps(), &spec, now).emit_dropped(&what, None);
        }
        self.release_name(name, report);
    }
}

fn subject(name: &HostName) -> String {
    keys::subject(&[Pattern::Exact(name.clone())])
}
