//! When persistent records expire: remembered in the storage, so that it is reported in time even
//! if no certificate is due.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::DnsContext;
use super::entry::Entry;
use super::persist_record::judge_records;
use crate::clock::{Clock, UnixTime};
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::host::HostName;
use crate::lock::MutexExt;
use crate::storage::{Key, Storage, StorageError, blocking, damaged, keys};

const DAY: Duration = Duration::from_secs(86_400);

/// How long before a record's end it is reported.
const NOTICE: Duration = Duration::from_secs(30 * 86_400);

/// How long an unused note is kept: the certificate is gone.
const LIFE: Duration = Duration::from_secs(400 * 86_400);

/// The known expiry dates of persistent records.
pub(super) struct PersistExpiry {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    events: EventBus,
    /// When each note was last reported.
    last_reports: Mutex<HashMap<Key, UnixTime>>,
}

/// The note of a record, as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    domain: String,
    /// The name of the record.
    name: String,
    account: String,
    is_wildcard: bool,
    issuers: Vec<String>,
    until: UnixTime,
    /// When a validation last used it.
    seen: UnixTime,
    /// The entry of `dns` that looked it up; empty for none.
    entry: String,
}

impl Note {
    fn dns(&self) -> DnsContext {
        DnsContext {
            account: self.account.clone(),
            is_wildcard: self.is_wildcard,
            issuers: self.issuers.clone(),
        }
    }
}

impl PersistExpiry {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, events: EventBus) -> Self {
        Self {
            storage,
            clock,
            events,
            last_reports: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Records until when a record is valid, and reports it if that is soon.
    pub(super) async fn record_expiry(
        &self,
        entry: &Entry,
        domain: &HostName,
        name: &HostName,
        dns: &DnsContext,
        until: Option<UnixTime>,
    ) {
        let note = until.map(|until| Note {
            domain: domain.to_string(),
            name: name.to_string(),
            account: dns.account.clone(),
            is_wildcard: dns.is_wildcard,
            issuers: dns.issuers.clone(),
            until,
            seen: self.now(),
            entry: entry.name.to_string(),
        });
        let Ok(key) = keys::persistent_proof(&dns.account, domain) else {
            return;
        };
        let is_soon = note
            .as_ref()
            .is_some_and(|note| note.until <= self.now() + NOTICE);
        match &note {
            Some(note) if is_soon => self.report_expiry(&key, note),
            _ => {
                let reported = self.last_reports.lock_unpoisoned().remove(&key);
                if reported.is_some() {
                    self.report_end(domain.as_str(), name.as_str(), until);
                }
            }
        }
        self.store_note(key, note).await;
    }

    async fn store_note(&self, key: Key, note: Option<Note>) {
        let place = key.clone();
        let stored = blocking(&self.storage, move |storage| match note {
            Some(note) => storage.store(&key, &serde_json::to_vec(&note).unwrap_or_default()),
            None if storage.exists(&key)? => storage.delete(&key),
            None => Ok(()),
        });
        if let Err(error) = stored.await {
            tracing::warn!(key = %place, %error, "cannot store when a record expires");
        }
    }

    /// Reports, at most once a day, records that expire soon and have not been replaced.
    pub(super) async fn check_expiries(
        &self,
        entry_of: impl Fn(&str) -> Arc<Entry>,
    ) -> Result<(), StorageError> {
        let notes = blocking(&self.storage, |storage| {
            let mut notes = Vec::new();
            for key in storage.list(&keys::persistent_proofs()?)? {
                let Some(note) = damaged::read_json::<Note>(storage, &key)? else {
                    continue;
                };
                notes.push((move_to_current_key(storage, key, &note)?, note));
            }
            Ok(notes)
        });
        let now = self.now();
        for (key, note) in notes.await? {
            let is_told = self
                .last_reports
                .lock_unpoisoned()
                .get(&key)
                .is_some_and(|at| *at + DAY > now);
            if is_told || note.until > now + NOTICE {
                continue;
            }
            let Ok(name) = note.name.parse::<HostName>() else {
                continue;
            };
            if note.seen + LIFE < now {
                self.store_note(key, None).await;
                continue;
            }
            let entry = entry_of(&note.entry);
            let looked = async { entry.get_or_open().await?.lookups.txt(&name).await };
            // If the lookup fails, the noted date is reported.
            let judged = looked
                .await
                .map(|values| judge_records(&values, &note.dns(), now));
            match judged {
                Ok(Ok(None)) => {
                    self.last_reports.lock_unpoisoned().remove(&key);
                    self.report_end(&note.domain, &note.name, None);
                    self.store_note(key, None).await;
                }
                Ok(Ok(Some(until))) if until != note.until => {
                    let note = Note { until, ..note };
                    if until <= now + NOTICE {
                        self.report_expiry(&key, &note);
                    } else {
                        self.last_reports.lock_unpoisoned().remove(&key);
                        self.report_end(&note.domain, &note.name, Some(until));
                    }
                    self.store_note(key, Some(note)).await;
                }
                _ => self.report_expiry(&key, &note),
            }
        }
        Ok(())
    }

    /// Reports that a record no longer expires soon.
    fn report_end(&self, domain: &str, name: &str, until: Option<UnixTime>) {
        let until = match until {
            Some(until) => format!("until {until}"),
            None => "without an end".to_owned(),
        };
        let message = format!("the record {name} proves {domain} to the CA {until}");
        let (kind, severity) = (EventKind::CertificateRecovered, Severity::Info);
        let mut event = Event::new(self.now(), kind, severity, domain, message);
        event.reason = Some("validation".to_owned());
        self.events.emit(event);
    }

    fn report_expiry(&self, key: &Key, note: &Note) {
        let now = self.now();
        if note.until > now + NOTICE {
            return;
        }
        self.last_reports.lock_unpoisoned().insert(key.clone(), now);
        let Note { name, until, .. } = note;
        let (verb, severity) = match *until < now {
            true => ("expired", Severity::Error),
            false => ("expires", Severity::Warning),
        };
        let message = format!(
            "the record {name}, which proves {} to the CA, {verb} at {}: extend its \
             'persistUntil', or the next certificate cannot be obtained",
            note.domain, until,
        );
        let kind = EventKind::ValidationExpiring;
        self.events.emit(Event::new(
            now,
            kind,
            severity,
            note.domain.clone(),
            message,
        ));
    }
}

/// The key of a note, by account and domain. Until 0.1 there was one for each domain, whatever the
/// CA: such a note is moved, unless its new key has one already.
fn move_to_current_key(storage: &dyn Storage, key: Key, note: &Note) -> Result<Key, StorageError> {
    let Ok(domain) = note.domain.parse() else {
        return Ok(key);
    };
    let own = keys::persistent_proof(&note.account, &domain)?;
    if own != key {
        if !storage.exists(&own)? {
            storage.store(&own, &serde_json::to_vec(note).unwrap_or_default())?;
        }
        storage.delete(&key)?;
    }
    Ok(own)
}
