//! DNS challenges: which record to set, through which provider, until when.
//!
//! [`DnsSolvers`] has a solver for each entry of `dns` in the configuration. Records are noted in
//! the storage before they are set, and [`DnsSolvers::keep_clean`] removes those of processes that
//! were killed in between.

mod entry;
mod journal;
mod persist;
mod persist_expiry;
mod persist_record;
mod proof;
mod solver;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use indexmap::IndexMap;

use self::entry::Entry;
use self::journal::{Abandoned, Journal};
pub use self::persist::DnsPersist01Solver;
use self::persist_expiry::PersistExpiry;
pub use self::solver::Dns01Solver;
use super::{ChallengeSolver, ChallengeType};
use crate::clock::{Clock, UnixTime};
use crate::config::model;
use crate::dns::DnsProvider;
use crate::event::EventBus;
use crate::lock::RwLockExt;
use crate::shutdown::{ShutdownWatch, requested};
use crate::storage::{Key, Storage};

/// How long after the start leftover records are first looked for: an attempt that resumes an order
/// needs its own record again before that.
const GRACE: Duration = Duration::from_secs(5);

/// How often the leftover records of other instances are looked for.
const EVERY: Duration = Duration::from_secs(60);

/// After how long a failed removal is retried.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1200),
];
const LAST_PAUSE: Duration = Duration::from_secs(3600);

/// How many records are removed at once.
const AT_ONCE: usize = 16;

/// How long the removal of one record may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// After how long the note of a record that cannot be removed is dropped.
const LIFE: Duration = Duration::from_secs(30 * 86_400);

/// The solvers for DNS challenges. A handle; clones share everything.
#[derive(Clone)]
pub struct DnsSolvers(Arc<Shared>);

struct Shared {
    entries: RwLock<IndexMap<Arc<str>, Arc<Entry>>>,
    /// The program's own providers, by their entries.
    own: HashMap<Arc<str>, Arc<dyn DnsProvider>>,
    /// For preflights, which set nothing and only look things up.
    system: Arc<Entry>,
    journal: Arc<Journal>,
    persist_expiry: Arc<PersistExpiry>,
    clock: Arc<dyn Clock>,
}

impl DnsSolvers {
    /// Without any entry yet. `own` are providers of the program's own, by the names of their
    /// entries.
    pub fn new(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        events: EventBus,
        own: HashMap<Arc<str>, Arc<dyn DnsProvider>>,
    ) -> Self {
        let journal = Journal::new(Arc::clone(&storage), Arc::clone(&clock));
        Self(Arc::new(Shared {
            entries: RwLock::default(),
            own,
            system: Arc::new(Entry::new("".into(), None, None)),
            journal: Arc::new(journal),
            persist_expiry: Arc::new(PersistExpiry::new(storage, Arc::clone(&clock), events)),
            clock,
        }))
    }

    /// Sets the entries of a configuration. Unchanged entries stay open.
    pub fn configure(&self, dns: &IndexMap<Arc<str>, Arc<model::Dns>>) {
        let mut entries = self.0.entries.write_unpoisoned();
        let entry = |(name, config): (&Arc<str>, &Arc<model::Dns>)| {
            let before = entries.get(name);
            let kept = before.filter(|before| before.config.as_ref() == Some(config));
            let new = || {
                let (name, own) = (Arc::clone(name), self.0.own.get(name).cloned());
                Arc::new(Entry::new(name, Some(Arc::clone(config)), own))
            };
            (Arc::clone(name), kept.cloned().unwrap_or_else(new))
        };
        *entries = dns.iter().map(entry).collect();
    }

    /// The solver of this type for the entry `name`, or for the only one. `None` if that is
    /// ambiguous.
    pub fn solver(
        &self,
        kind: ChallengeType,
        name: Option<&str>,
    ) -> Option<Arc<dyn ChallengeSolver>> {
        let shared = &self.0;
        let entry = self.entry(name);
        match kind {
            ChallengeType::Http01 | ChallengeType::TlsAlpn01 => None,
            ChallengeType::Dns01 | ChallengeType::DnsAccount01 => {
                let journal = Arc::clone(&shared.journal);
                Some(Arc::new(Dns01Solver::new(kind, entry?, journal)))
            }
            ChallengeType::DnsPersist01 => {
                let entry = entry.unwrap_or_else(|| Arc::clone(&shared.system));
                let persist_expiry = Arc::clone(&shared.persist_expiry);
                Some(Arc::new(DnsPersist01Solver::new(entry, persist_expiry)))
            }
        }
    }

    /// Removes what killed processes have left in the DNS, and reports persistent records that
    /// expire, until `shutdown` says stop.
    pub async fn keep_clean(self, mut shutdown: ShutdownWatch) {
        let sweep = async {
            let mut sweeper = Sweeper::default();
            tokio::time::sleep(GRACE).await;
            loop {
                self.sweep_abandoned(&mut sweeper).await;
                tokio::time::sleep(EVERY).await;
            }
        };
        // Separate from the removals, so that a silent resolver does not delay them.
        let watch = async {
            tokio::time::sleep(GRACE).await;
            loop {
                self.check_expiries().await;
                tokio::time::sleep(EVERY).await;
            }
        };
        tokio::select! {
            () = sweep => {}
            () = watch => {}
            () = requested(&mut shutdown) => {}
        }
    }

    async fn sweep_abandoned(&self, sweeper: &mut Sweeper) {
        let now = self.0.clock.now();
        let abandoned = match self.0.journal.abandoned().await {
            Ok(abandoned) => abandoned,
            Err(error) => {
                tracing::debug!(%error, "cannot look for records left in the DNS");
                return;
            }
        };
        let mut removals = Vec::with_capacity(abandoned.len());
        for one in abandoned {
            let failed = sweeper.failed.get(&one.key);
            if failed.is_none_or(|(_, next)| *next <= now) {
                removals.push(self.remove_abandoned(one, now));
            }
        }
        // Nearly all at once: each keeps the lock of its note meanwhile.
        let mut removals = stream::iter(removals).buffer_unordered(AT_ONCE);
        while let Some((key, name, removed)) = removals.next().await {
            match removed {
                Ok(()) => _ = sweeper.failed.remove(&key),
                Err(error) => {
                    let pause = sweeper.postpone(key, now).as_secs();
                    tracing::warn!(
                        record = name,
                        error,
                        "cannot remove a record left in the DNS, trying again in {pause} s; it \
                         does no harm and can be removed by hand"
                    );
                }
            }
        }
    }

    /// Removes a leftover record. Returns its note, its name, and the result.
    async fn remove_abandoned(
        &self,
        one: Abandoned,
        now: UnixTime,
    ) -> (Key, String, Result<(), String>) {
        let journal = &self.0.journal;
        let (key, name) = (one.key.clone(), one.name().to_owned());
        if now.since(one.note.at) > LIFE {
            tracing::warn!(record = name, "gave up removing a record from the DNS");
            journal.delete_note(one.key, one.lease).await;
            return (key, name, Ok(()));
        }
        let entry = self.named(&one.note.provider);
        let removal = async {
            let entry = entry.ok_or_else(|| {
                format!("the configuration's 'dns' has no {:?}", one.note.provider)
            })?;
            let opened = entry
                .get_or_open()
                .await
                .map_err(|error| error.to_string())?;
            let provider = opened.provider.as_deref();
            let provider = provider.ok_or("no provider is configured there")?;
            let removed = journal.remove_abandoned(one, provider).await;
            removed.map_err(|error| error.to_string())
        };
        let removed = tokio::time::timeout(PATIENCE, removal).await;
        let removed = removed.unwrap_or_else(|_| Err("no response in time".to_owned()));
        (key, name, removed)
    }

    async fn check_expiries(&self) {
        let entry_of = |name: &str| {
            let entry = self.named(name);
            entry.unwrap_or_else(|| Arc::clone(&self.0.system))
        };
        if let Err(error) = self.0.persist_expiry.check_expiries(entry_of).await {
            tracing::debug!(%error, "cannot check when records in the DNS expire");
        }
    }

    /// The requested entry, or the only one.
    fn entry(&self, name: Option<&str>) -> Option<Arc<Entry>> {
        match name {
            Some(name) => self.named(name),
            None => {
                let entries = self.0.entries.read_unpoisoned();
                let only = entries.values().next().filter(|_| entries.len() == 1);
                only.cloned()
            }
        }
    }

    fn named(&self, name: &str) -> Option<Arc<Entry>> {
        let entries = self.0.entries.read_unpoisoned();
        entries.get(name).cloned()
    }
}

/// Records of others that could not be removed: how many times, and when to retry.
#[derive(Default)]
struct Sweeper {
    failed: HashMap<Key, (usize, UnixTime)>,
}

impl Sweeper {
    /// Records a failure. Returns after how long it is retried.
    fn postpone(&mut self, key: Key, now: UnixTime) -> Duration {
        let (count, next) = self.failed.entry(key).or_default();
        let pause = PAUSES.get(*count).copied().unwrap_or(LAST_PAUSE);
        *count = count.saturating_add(1);
        *next = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests;
