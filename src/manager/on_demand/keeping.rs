//! What clients use is kept, and what nobody uses any more goes: from the map, and from the storage.
//!
//! Handshakes only leave a mark at the certificates that they present. Now and then the marks are
//! gathered here, and the use of a name is written down, at most once a day. Names that were of no
//! use for long go; where another instance uses them they stay.

use std::sync::Arc;

use super::super::TlsManager;
use super::super::job::Tools;
use super::super::managed::{Stand, teller};
use super::super::report::Report;
use super::look::{Batch, Wish};
use super::record::{Fate, Going, Gone, Record};
use super::{Names, from_cas};
use crate::clock::{UnixTime, rfc3339};
use crate::config::model::{Issuer as Configured, OnDemand};
use crate::host::{HostName, Pattern};
use crate::storage::{Key, StorageError, keys};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// For how long, in seconds, a name without a certificate is tried again by itself after a client
/// has last asked for it.
const TRIED_FOR: i64 = DAY;

/// How many names are written or dropped at a time.
const AT_A_TIME: usize = 1_000;

/// How long names are kept that nobody uses, and what follows from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// In seconds.
    unused: i64,
}

/// A name that is to go from the storage.
pub(super) struct Leaving {
    name: HostName,
    why: Why,
}

/// Why a name is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody has used it for long.
    Unused,
    /// Who decides on names does not want it any more, and its certificate has ended.
    Unwanted,
    /// The configuration has come to ask for it: the certificate stays.
    TakenOver,
}

/// The use of a name, to be written down.
pub struct Note {
    name: HostName,
    record: Record,
}

impl Terms {
    pub(super) fn of(on_demand: &OnDemand) -> Self {
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

    /// How many seconds lie between two looks at what was used.
    pub fn looked_every(self) -> i64 {
        (self.unused / 8).clamp(1, 10 * MINUTE)
    }

    /// How many seconds lie between two walks through all that is stored.
    pub fn walked_every(self) -> i64 {
        self.written_every()
    }
}

impl Names {
    /// Has a name go from the storage.
    pub(super) fn leave(&mut self, name: HostName, why: Why) {
        if self.leaving.len() < AT_A_TIME * 100 {
            self.leaving.push(Leaving { name, why });
        }
    }
}

impl Tools {
    /// All names that have certificates on demand, by their records.
    ///
    /// # Errors
    /// Where the storage cannot be read.
    pub fn on_demand(&self) -> Result<Vec<Key>, StorageError> {
        self.storage.list(&keys::all_on_demand()?)
    }

    /// Writes down what was used.
    pub fn note(&self, notes: Vec<Note>) {
        for Note { name, record } in notes {
            let subject = keys::subject(&[Pattern::Exact(name)]);
            let stored =
                keys::on_demand(&subject).and_then(|key| record.store(&*self.storage, &key));
            if let Err(error) = stored {
                tracing::warn!(%error, "the use of certificates on demand is not written down");
                return;
            }
        }
    }
}

impl TlsManager {
    /// How long names are kept that nobody uses; `None` where none has a certificate on demand from
    /// a CA.
    pub fn terms_on_demand(&self) -> Option<Terms> {
        let config = self.config.as_deref()?;
        from_cas(config).map(Terms::of)
    }

    /// Those of the names with these records that are to be looked at.
    pub fn stored_on_demand(&mut self, records: Vec<Key>) -> Batch {
        let now = self.clock.now();
        self.batch(records.into_iter().map(Wish::Stored).collect(), now)
    }

    /// Notes that these names were used. Returns what is to be written down.
    pub fn used_on_demand(&mut self, names: &[HostName]) -> Vec<Note> {
        let Some(terms) = self.terms_on_demand() else {
            return Vec::new();
        };
        let (now, every) = (self.clock.now(), terms.written_every());
        let mut notes = Vec::new();
        for name in names {
            self.names.used(name, now);
            let Some(known) = self.names.known.get_mut(name) else {
                continue;
            };
            if known.used.saturating_sub(known.written) >= every && notes.len() < AT_A_TIME {
                known.written = known.used;
                notes.push(Note {
                    name: name.clone(),
                    record: Record {
                        name: name.to_string(),
                        allowed: known.allowed,
                        used: known.used,
                    },
                });
            }
        }
        notes
    }

    /// The names that are to go from the storage now, some at a time. What becomes of each goes to
    /// [`Self::gone_on_demand`].
    pub fn going_on_demand(&mut self) -> Vec<Going> {
        let Some((config, terms)) = self.config.clone().zip(self.terms_on_demand()) else {
            self.names.leaving.clear();
            return Vec::new();
        };
        let now = self.clock.now();
        let unless_used = terms.unless_used(now);
        self.give_up_pending(now);
        let left = self.names.leaving.len().saturating_sub(AT_A_TIME);
        let mut leaving = self.names.leaving.split_off(left);
        let unused = self.names.by_use.iter();
        let unused = unused.take_while(|(used, _)| *used < unless_used);
        let room = AT_A_TIME.saturating_sub(leaving.len());
        leaving.extend(unused.take(room).map(|(_, name)| Leaving {
            name: name.clone(),
            why: Why::Unused,
        }));
        if leaving.is_empty() {
            return Vec::new();
        }
        let all = config.issuers.iter();
        let remote = all.filter(|(_, issuer)| matches!(issuer, Configured::Acme(_)));
        let names: Vec<_> = remote.map(|(name, _)| Arc::clone(name)).collect();
        let issuers = self.remote(&names);
        let configured = self.managed.configured_subjects();
        let going = leaving.into_iter().map(|Leaving { name, why }| {
            let subject = keys::subject(&[Pattern::Exact(name.clone())]);
            Going {
                keeps_certificate: why == Why::TakenOver || configured.contains(&*subject),
                unless_used: (why == Why::Unused).then_some(unless_used),
                issuers: issuers.clone(),
                name,
                subject,
            }
        });
        going.collect()
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
            let need = Arc::clone(&known.need);
            // What is being obtained comes to its end.
            if !matches!(self.managed.stand(&need, now), Stand::Coming) {
                self.names.remove(&name);
                self.managed.let_go(&need);
            }
        }
    }

    /// Takes what became of names that were to go: those that went are no longer served.
    pub fn gone_on_demand(&mut self, gone: Vec<Gone>) -> Report {
        let mut report = Report::default();
        let Some(config) = self.config.clone() else {
            return report;
        };
        let now = self.clock.now();
        for Gone {
            name,
            fate,
            is_unwanted,
        } in gone
        {
            match fate {
                Fate::Used(at) => self.names.used(&name, at),
                // It is found again; what is unwanted with its next renewal.
                Fate::Stays => {}
                Fate::Dropped => self.drop_name(&name, is_unwanted, now, &mut report),
            }
        }
        self.publish(&config, now, &mut report);
        report
    }

    fn drop_name(
        &mut self,
        name: &HostName,
        is_unwanted: bool,
        now: UnixTime,
        report: &mut Report,
    ) {
        let Some(known) = self.names.known.get(name) else {
            return;
        };
        let (need, used) = (Arc::clone(&known.need), known.used);
        if self.managed.has(&need) {
            let what = match is_unwanted {
                true => "has ended and goes, since it is no longer wanted".to_owned(),
                false => format!("goes: nobody has asked for it since {}", rfc3339(used)),
            };
            teller(self.managed.tools(), &need, now).dropped(&what, None);
        }
        self.let_go(name, report);
    }
}
