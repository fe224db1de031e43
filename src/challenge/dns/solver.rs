//! Validates names by records that a provider sets: `dns-01` (RFC 8555, section 8.4) and
//! `dns-account-01` (draft-ietf-acme-dns-account-label).

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use super::super::{Challenge, ChallengeSolver, ChallengeType};
use super::entry::{Entry, failure};
use super::journal::{HeldRecord, Journal, SetError};
use super::proof;
use crate::dns::{DnsError, TxtRecord};
use crate::host::HostName;
use crate::lock::MutexExt;
use crate::schedule::{Failure, FailureClass};

/// How long to wait for a clean-up, which then continues in the background.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an abandoned record is left for a CA that may still look it up.
const LIFE: Duration = Duration::from_secs(3600);

/// Validates names by records that a provider sets.
pub struct Dns01Solver {
    kind: ChallengeType,
    entry: Arc<Entry>,
    journal: Arc<Journal>,
    /// The records that are visible.
    presented: Mutex<Vec<(Challenge, Arc<HeldRecord>)>>,
}

impl Dns01Solver {
    pub(super) fn new(kind: ChallengeType, entry: Arc<Entry>, journal: Arc<Journal>) -> Self {
        Self {
            kind,
            entry,
            journal,
            presented: Mutex::default(),
        }
    }

    async fn set_record(&self, challenge: &Challenge) -> Result<(), Failure> {
        let (domain, by) = (&challenge.domain, self.kind.as_str());
        let entry = &self.entry.name;
        let failed = |what: &str, error: &DnsError| {
            failure(
                error,
                format!("{domain} cannot be validated by {by}: {what}: {error}"),
            )
        };
        let opened = self.entry.get_or_open().await;
        let opened = opened.map_err(|error| failed("'dns' cannot be used", &error))?;
        let provider = opened.provider.as_ref().ok_or_else(|| {
            let message =
                format!("{by} for {domain} has no DNS provider; this is a bug, please report it");
            Failure::new(FailureClass::Internal, message)
        })?;
        let lookups = &opened.lookups;
        // With split DNS, the resolvers may know nothing of the name.
        let needs_zone = provider.needs_zone() || opened.propagation.is_some();
        let own = proof::record_name(challenge)?;
        let place = async {
            // The name may be delegated to a zone that can be changed.
            let name = match lookups.target(&own).await {
                Err(DnsError::Unreachable(_)) if !needs_zone => own.clone(),
                name => name.map_err(|error| failed("its record cannot be looked up", &error))?,
            };
            if !needs_zone {
                return Ok::<_, Failure>((name.clone(), name));
            }
            let zone = lookups.zone(&name).await;
            let zone = zone.map_err(|error| {
                let alias = alias_of(&own, &name);
                failed(&format!("cannot find the zone of {name}{alias}"), &error)
            })?;
            Ok((name, zone))
        };
        let (name, zone) = place.await?;
        let alias = alias_of(&own, &name);
        let record = TxtRecord {
            name,
            value: proof::record_value(challenge),
        };
        let held = self.journal.acquire(provider, zone.clone(), record.clone());
        let held = held
            .map_err(|error| Failure::new(FailureClass::Internal, format!("{domain}: {error}")))?;
        // Recorded before the first await: if this is dropped midway, the record is cleaned up.
        self.presented()
            .push((challenge.clone(), Arc::clone(&held)));
        match self.journal.set_record(&held).await {
            Ok(()) => {}
            Err(SetError::Dns(error)) => {
                let place = match needs_zone {
                    true => format!(" in {zone}"),
                    false => String::new(),
                };
                let what = format!("'{entry}' did not set {}{place}{alias}", record.name);
                return Err(failed(&what, &error));
            }
            Err(SetError::Busy) => {
                let message = format!(
                    "another instance is validating {domain} with the same record, {}{alias}, and \
                     does not finish; the next attempt tries again",
                    record.name
                );
                return Err(Failure::new(FailureClass::Network, message));
            }
        }
        if let Some(propagation) = &opened.propagation {
            let seen = lookups.wait_for(&zone, &record, propagation).await;
            seen.map_err(|error| {
                let what = format!(
                    "'{entry}' has set {}{alias}, but it is not visible",
                    record.name
                );
                failed(&what, &error)
            })?;
        }
        Ok(())
    }

    /// Takes the record of a challenge off the list.
    fn take_presented(&self, challenge: &Challenge) -> Option<Arc<HeldRecord>> {
        let mut presented = self.presented();
        let at = presented.iter().position(|(one, _)| one == challenge)?;
        Some(presented.swap_remove(at).1)
    }

    /// No critical section leaves it half changed.
    fn presented(&self) -> MutexGuard<'_, Vec<(Challenge, Arc<HeldRecord>)>> {
        self.presented.lock_unpoisoned()
    }
}

#[async_trait]
impl ChallengeSolver for Dns01Solver {
    fn kind(&self) -> ChallengeType {
        self.kind
    }

    async fn present(&self, challenge: &Challenge) -> Result<(), Failure> {
        self.set_record(challenge).await
    }

    async fn clean_up(&self, challenge: &Challenge) {
        let Some(held) = self.take_presented(challenge) else {
            return;
        };
        self.journal.release(&held);
        let unset = tokio::spawn(remove_record(Arc::clone(&self.journal), held));
        // Nobody needs to wait for a slow provider.
        let _ = tokio::time::timeout(PATIENCE, unset).await;
    }

    fn abandon(&self, challenge: &Challenge) {
        let Some(held) = self.take_presented(challenge) else {
            return;
        };
        // The next attempt needs the record again, and then removes it. If none comes:
        self.journal.release(&held);
        let journal = Arc::clone(&self.journal);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(LIFE).await;
                remove_record(journal, held).await;
            });
        }
    }
}

/// How to say that `own` leads to `name`, where the record is; empty if they are the same.
fn alias_of(own: &HostName, name: &HostName) -> String {
    match name == own {
        true => String::new(),
        false => format!(", to which {own} is an alias (CNAME)"),
    }
}

/// Removes a record, as well as possible.
async fn remove_record(journal: Arc<Journal>, held: Arc<HeldRecord>) {
    let Err((error, is_noted)) = journal.remove_unwanted(&held).await else {
        return;
    };
    let next = match is_noted {
        true => "it will be retried within a minute",
        false => "remove it by hand: the storage is failing, so it is not noted",
    };
    tracing::warn!(
        record = %held.record.name,
        zone = %held.zone,
        %error,
        "cannot remove a record from the DNS, where it does no harm; {next}"
    );
}
