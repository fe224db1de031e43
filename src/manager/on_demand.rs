//! Names that get a certificate from a CA because a client asked for them.
//!
//! They are specifications beside those of the configuration, and are obtained, stored and renewed
//! like those. What differs: they appear without a configuration and are removed when nobody uses
//! them ([`expiry`]); the configuration takes precedence where it has a certificate for the same
//! name; a name that cannot be validated is not retried without a request. Each name is recorded
//! in the storage, so that it is served after a restart without an order.

mod answers;
mod clock_guard;
mod expiry;
mod lookup;
mod reconfigure;
mod record;
mod requests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use self::expiry::Retention;
pub use self::lookup::{Lookup, LookupResults};
pub use self::record::{Removal, Removed};
pub use self::requests::Requests;

use self::answers::duration_of_seconds;
use self::lookup::{Found, LookupKey, State};
use self::record::Record;
use super::TlsManager;
use super::report::Report;
use crate::certificate::Validity;
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::config::model::{Config, OnDemand};
use crate::host::{HostName, Pattern};
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::issuer::spec::is_remote_issuer;
use crate::renewal::{NameStatus, StoredState};
use crate::storage::{Key, keys};

/// How many names may have certificates on demand from CAs.
const MOST: usize = 1_000_000;

/// How many that are asked for are looked up before those are answered.
const LOOKED_UP_AT_ONCE: usize = 64;

/// How many of them may be without one: being obtained, or tried again after a failure.
const MOST_PENDING: usize = 10_000;

/// After how long it is worth another try where there are too many, or where the storage fails.
const LATER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

/// The names that clients have asked for.
#[derive(Default)]
pub(super) struct OnDemandNames {
    known: HashMap<HostName, KnownName>,
    /// By when they were last of use.
    by_use: BTreeSet<(UnixTime, HostName)>,
    /// Those whose use is to be written down.
    unwritten: HashSet<HostName>,
    /// Those without a certificate, and when they were last asked for.
    pending: HashMap<HostName, UnixTime>,
    /// What is to go from the storage, and why: see [`expiry`].
    leaving: HashMap<HostName, expiry::RemovalReason>,
    /// Whether the time of day can be trusted with what cannot be undone.
    clock_guard: clock_guard::ClockGuard,
    /// Whether what may have certificates has changed since they were last gone through.
    is_stale: bool,
    /// Those that the configuration has come to have certificates for since.
    doubted: HashSet<HostName>,
}

/// What is known of one.
struct KnownName {
    spec: Arc<CertSpec>,
    allowed: UnixTime,
    used: UnixTime,
    /// When it was last of use by what is written.
    written: UnixTime,
}

impl OnDemandNames {
    /// Has all of them gone through, since what may have certificates may be another.
    pub(super) fn recheck_all(&mut self) {
        self.is_stale = true;
    }

    /// Has those gone through that are of `names`, which the configuration now has a certificate for.
    pub(super) fn recheck_covered(&mut self, names: &[Pattern]) {
        if self.known.is_empty() {
            return;
        }
        for pattern in names {
            match pattern {
                Pattern::Exact(name) if self.known.contains_key(name) => {
                    self.doubted.insert(name.clone());
                }
                Pattern::Wildcard(_) => self.is_stale = true,
                _ => {}
            }
        }
    }

    /// Whether the name is known that has its record at `key`.
    fn has_record(&self, key: &Key) -> bool {
        let stem = key.as_str().strip_prefix("on_demand/");
        let stem = stem.and_then(|stem| stem.strip_suffix(".json"));
        // Where a name is too long for a key, it is looked up.
        let name = stem.and_then(|stem| stem.parse::<HostName>().ok());
        name.is_some_and(|name| {
            self.known.contains_key(&name)
                && keys::on_demand(name.as_str()).is_ok_and(|own| own == *key)
        })
    }

    fn add(&mut self, name: &HostName, spec: &Arc<CertSpec>, record: &Record, used: UnixTime) {
        let known = KnownName {
            spec: Arc::clone(spec),
            allowed: record.allowed,
            used,
            written: record.used,
        };
        self.remove(name);
        self.known.insert(name.clone(), known);
        self.by_use.insert((used, name.clone()));
    }

    fn remove(&mut self, name: &HostName) -> Option<KnownName> {
        self.pending.remove(name);
        self.unwritten.remove(name);
        self.doubted.remove(name);
        let known = self.known.remove(name)?;
        self.by_use.remove(&(known.used, name.clone()));
        Some(known)
    }

    /// Notes that a name was of use.
    fn record_use(&mut self, name: &HostName, at: UnixTime) {
        if let Some(known) = self.known.get_mut(name)
            && known.used < at
        {
            self.by_use.remove(&(known.used, name.clone()));
            known.used = at;
            self.by_use.insert((at, name.clone()));
        }
    }
}

fn on_demand_spec(name: &HostName, issuers: &[Arc<str>]) -> Arc<CertSpec> {
    Arc::new(CertSpec {
        names: vec![Pattern::Exact(name.clone())],
        issuers: issuers.to_vec(),
        dns: None,
        precedence: Precedence::OnDemand,
    })
}

/// What the configuration says of certificates on demand from CAs; `None` where there are none.
fn from_cas(config: &Config) -> Option<&OnDemand> {
    let on_demand = config.on_demand.as_ref()?;
    let first = on_demand.issuers.first()?;
    is_remote_issuer(first, config).then_some(on_demand)
}

impl TlsManager {
    /// Where clients ask for certificates.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Takes up some of what clients have asked for, as far as it is known; what else there is has to
    /// be looked up in the storage. What comes of that goes to [`Self::apply_lookup`].
    pub fn take_requests(&mut self) -> Option<Lookup> {
        let now = self.clock.now();
        let mut wanted = Vec::new();
        for name in self.requests.take_new(LOOKED_UP_AT_ONCE) {
            if let Some(known) = self.names.known.get(&name) {
                // Whether the name is allowed was checked before.
                self.renewals.resume_renewal(&known.spec, now);
                self.names.record_use(&name, now);
                if let Some(asked) = self.names.pending.get_mut(&name) {
                    *asked = now;
                }
                self.answer_waiting(&name, now, false);
            } else if self.may_have(&name) {
                wanted.push(LookupKey::Asked(name));
            } else {
                self.refuse_waiting(&name, "it is not allowed to have one", None);
            }
        }
        (!wanted.is_empty()).then(|| self.prepare_lookup(wanted, now))
    }

    fn prepare_lookup(&mut self, wanted: Vec<LookupKey>, now: UnixTime) -> Lookup {
        let config = self.config.clone();
        let on_demand = config.as_deref().and_then(from_cas);
        let retention = on_demand.map(Retention::from_config).unwrap_or_default();
        let issuers = on_demand.map_or(&[][..], |on_demand| &on_demand.issuers);
        let asked = wanted.iter().filter_map(|wish| match wish {
            LookupKey::Asked(name) => Some(name.clone()),
            LookupKey::Stored(_) => None,
        });
        Lookup {
            looking_up: self.requests.begin_lookup(asked.collect()),
            keys: wanted,
            issuers: self.all_remote(issuers),
            written_every: retention.written_every(),
            unless_used: retention.unless_used(now),
        }
    }

    /// All issuers over the network: those of `first`, then the others, which may have issued what
    /// is good still.
    pub(super) fn all_remote(&mut self, first: &[Arc<str>]) -> Vec<Arc<dyn Issuer>> {
        let Some(config) = self.config.clone() else {
            return Vec::new();
        };
        let others = config.issuers.keys().filter(|name| !first.contains(name));
        let names: Vec<_> = first.iter().chain(others).cloned().collect();
        self.renewals.open_remote(&names, &config.issuers)
    }

    /// Applies the results of a lookup, and serves what there is.
    pub fn apply_lookup(&mut self, looked: LookupResults) -> Report {
        let mut report = Report::default();
        let Some(config) = self.config.clone() else {
            return report;
        };
        let now = self.clock.now();
        let issuers = from_cas(&config).map_or(&[][..], |on_demand| &on_demand.issuers);
        let mut asked = Vec::new();
        let LookupResults { found, looking_up } = looked;
        for found in found {
            if found.is_asked {
                asked.push(found.name.clone());
            }
            if !self.names.known.contains_key(&found.name) {
                self.adopt_found(found, issuers, now, &mut report);
            }
        }
        self.publish(&config, now, &mut report);
        for name in asked {
            self.answer_waiting(&name, now, false);
        }
        drop(looking_up);
        report
    }

    fn adopt_found(
        &mut self,
        found: Found,
        issuers: &[Arc<str>],
        now: UnixTime,
        report: &mut Report,
    ) {
        let Found {
            name,
            subject,
            is_asked,
            outcome,
        } = found;
        let pattern = Pattern::Exact(name.clone());
        let (record, mut read) = match outcome {
            _ if issuers.is_empty() => return,
            // Also one that may have none any more.
            Ok(State::Unused) => {
                return self
                    .names
                    .queue_removal(name, expiry::RemovalReason::Unused);
            }
            // It may have been released since.
            _ if !self.may_have(&name) => return,
            // Who asks finds what the configuration has.
            Ok(_) if self.candidates.covers_without_demand(&pattern, now) => {
                return self.requests.answer_name(&name, &Ok(()));
            }
            Ok(State::Known { record, read }) => (record, *read),
            Err(error) => {
                let why = format!("{error}; nothing is ordered until it can be stored");
                return self.refuse_waiting(&name, &why, Some(SOON));
            }
        };
        if let Some(damaged) = read.damaged.take() {
            tracing::error!(domain = %name, "{damaged}");
        }
        let is_valid =
            |one: &crate::certificate::TlsCertificate| one.validity(now) == Validity::Valid;
        read.certificate = read.certificate.filter(is_valid);
        if read.certificate.is_none()
            && !self.is_to_be_obtained(&name, is_asked, (&read, issuers), now)
        {
            return;
        }
        if self.names.known.len() >= MOST {
            let why = format!("{MOST} names already have on-demand certificates");
            return self.refuse_waiting(&name, &why, Some(LATER));
        }
        let spec = on_demand_spec(&name, issuers);
        let used = if is_asked { now } else { record.used };
        self.names.add(&name, &spec, &record, used);
        if read.certificate.is_none() {
            self.names.pending.insert(name, now);
        }
        if let Some(change) = self.renewals.adopt_spec(&spec, subject, read, now) {
            self.apply_change(change, spec.precedence, report);
        }
    }

    /// Whether a name without a certificate is to have one now. Where it is not, who waits for it
    /// is told why.
    fn is_to_be_obtained(
        &self,
        name: &HostName,
        is_asked: bool,
        (read, issuers): (&StoredState, &[Arc<str>]),
        now: UnixTime,
    ) -> bool {
        let deferred = self.renewals.deferral(&read.retries, issuers, now);
        if let Some(deferred) = deferred.filter(|deferred| deferred.is_of_name) {
            let retry_after = deferred
                .next
                .map(|next| duration_of_seconds(next.saturating_sub(now)));
            self.refuse_waiting(name, &deferred.why, retry_after);
            return false;
        }
        if is_asked && self.names.pending.len() >= MOST_PENDING {
            let why = format!("{MOST_PENDING} other names are waiting for theirs");
            self.refuse_waiting(name, &why, Some(LATER));
            return false;
        }
        // One that nobody asks for is obtained when somebody does.
        is_asked
    }

    /// Whether a name may have a certificate on demand from a CA, whatever has come of that of late.
    fn may_have(&self, name: &HostName) -> bool {
        let is_from_cas = self.config.as_deref().and_then(from_cas).is_some();
        let on_demand = self.on_demand.as_ref().filter(|_| is_from_cas);
        on_demand.is_some_and(|on_demand| on_demand.gate.covers(name.as_str()))
    }

    /// After the work on what a client has asked for.
    pub(super) fn finish_on_demand_job(&mut self, name: &HostName, now: UnixTime) {
        self.answer_waiting(name, now, true);
        let Some(known) = self.names.known.get(name) else {
            return;
        };
        let spec = Arc::clone(&known.spec);
        if self.renewals.is_over(&spec, now) {
            // Nothing is left to be done for it but to let it go.
            self.renewals.stop_renewal(&spec);
            self.names
                .queue_removal(name.clone(), expiry::RemovalReason::Unwanted);
            return;
        }
        match self.renewals.name_status(&spec, now) {
            NameStatus::Served => drop(self.names.pending.remove(name)),
            // What is stored of the failure is what the next client who asks is told.
            NameStatus::Deferred(deferred)
                if deferred.is_of_name && !self.renewals.has_certificate(&spec) =>
            {
                self.names.remove(name);
                self.renewals.release_spec(&spec);
            }
            _ => {}
        }
    }
}
