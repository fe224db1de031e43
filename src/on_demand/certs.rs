//! The certificates that clients ask for: what issues them, and the names that have one from a CA.
//!
//! Such a name is a specification beside those of the configuration, and is obtained, stored and
//! renewed like those. What differs: it appears without a configuration and is removed when it is
//! unused ([`super::removal`]); the configuration takes precedence where it has a certificate for
//! the same name; a name that cannot be validated is not retried without a request. Each name is
//! recorded in the storage, so that it is served after a restart without an order.

mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::issuance::OnDemandIssuance;
use super::lookup::{Found, Lookup, LookupKey, LookupResults, State};
use super::name_table::{NameState, NameTable};
use super::removal::{RemovalQueue, RemovalReason, Retention};
use super::request_table::LookupGuard;
use super::requests::Requests;
use super::{Decider, Gate, ObtainError};
use crate::certificate::sni::{Candidates, Precedence, SniMap};
use crate::certificate::{Change, TlsCertificate, Validity};
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Config, OnDemand};
use crate::host::{HostName, Pattern};
use crate::issuer::spec::{CertSpec, is_remote_issuer};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::renewal::{Deps, NameStatus, OpenLocalCa, Renewals, StoredState};
use crate::storage::Key;

/// How many names may have certificates on demand from CAs.
const MOST: usize = 1_000_000;

/// How many of them may be without one: being obtained, or tried again after a failure.
const MOST_PENDING: usize = 10_000;

/// How many requested names are looked up before they are answered.
const LOOKED_UP_AT_ONCE: usize = 64;

/// After how long another try is worth it where there are too many names, or the storage fails.
const LATER: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

/// The certificates on demand.
pub(crate) struct OnDemandCerts {
    clock: Arc<dyn Clock>,
    /// The configuration, where CAs issue; the local CA's certificates have no names here.
    from_cas: Option<OnDemand>,
    issuance: OnDemandIssuance,
    requests: Requests,
    names: NameTable,
    removals: RemovalQueue,
}

/// The names of a lookup that clients wait for.
pub(crate) struct Adopted {
    requested: Vec<HostName>,
    _looking_up: LookupGuard,
}

impl OnDemandCerts {
    /// Nothing is issued before there is a configuration.
    pub(crate) fn new(
        published: Arc<ArcSwap<SniMap>>,
        deps: &Deps,
        metrics: Option<Metrics>,
        decider: Option<Arc<dyn Decider>>,
    ) -> Self {
        Self {
            requests: Requests::new(published, deps),
            issuance: OnDemandIssuance::new(Arc::clone(&deps.clock), metrics, decider),
            clock: Arc::clone(&deps.clock),
            from_cas: None,
            names: NameTable::default(),
            removals: RemovalQueue::default(),
        }
    }

    /// Adopts another configuration. [`Self::update_issuance`] and [`Self::recheck_names`] follow
    /// it.
    pub(crate) fn configure(&mut self, before: Option<&Config>, config: &Config) {
        let on_demand = config.on_demand.as_ref();
        let is_from_cas = |config_of: &&OnDemand| {
            let first = config_of.issuers.first();
            first.is_some_and(|first| is_remote_issuer(first, config))
        };
        self.from_cas = on_demand.filter(is_from_cas).cloned();
        let is_other = |before: &Config| {
            before.on_demand != config.on_demand
                || before.issuers != config.issuers
                || before.renewal != config.renewal
        };
        if before.is_some_and(is_other) {
            self.issuance.mark_stale();
            self.names.recheck_all();
            self.requests.notify_change();
        }
    }

    /// Where clients ask for certificates.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// What issues the certificates.
    pub(crate) fn issuance(&self) -> &OnDemandIssuance {
        &self.issuance
    }

    /// Sets up what issues the certificates, where it is not as `config` asks.
    ///
    /// # Errors
    /// Where that fails: then what there was before stays.
    pub(crate) fn update_issuance(
        &mut self,
        config: &Config,
        local_ca: &mut OpenLocalCa<'_>,
        renewals: &mut Renewals,
        now: UnixTime,
    ) -> Result<(), Problem> {
        self.issuance
            .update(config, &self.requests, local_ca, renewals, now)
    }

    /// How long unused names are kept; `None` if no name gets a certificate from a CA.
    pub(crate) fn retention(&self) -> Option<Retention> {
        self.from_cas.as_ref().map(Retention::from_config)
    }

    fn issuers(&self) -> &[Arc<str>] {
        let config = self.from_cas.as_ref();
        config.map_or(&[], |config| &config.issuers)
    }

    /// Whether a name may have a certificate from a CA, whatever has failed for it lately.
    fn may_have(&self, name: &HostName) -> bool {
        let gate = self.issuance.gate().filter(|_| self.from_cas.is_some());
        gate.is_some_and(|gate: &Arc<Gate>| gate.covers(name.as_str()))
    }

    /// Takes some of the names that clients have asked for, and answers what is known. The rest has
    /// to be looked up in the storage; the result goes to [`Self::adopt`].
    pub(crate) fn take_requests(&mut self, renewals: &mut Renewals) -> Option<Lookup> {
        let now = self.clock.now();
        let mut unknown = Vec::new();
        for name in self.requests.table().take_queued(LOOKED_UP_AT_ONCE) {
            if let Some(spec) = self.names.spec(&name) {
                // The gate has checked that the name is allowed.
                renewals.resume_renewal(spec, now);
                self.names.record_request(&name, now);
                self.answer(&name, renewals, now, false);
            } else if self.may_have(&name) {
                unknown.push(LookupKey::Asked(name));
            } else {
                self.refuse(&name, "it is not allowed to have one", None);
            }
        }
        (!unknown.is_empty()).then(|| self.prepare_lookup(unknown, renewals, now))
    }

    /// The lookup of the names with these records; known names are not read again.
    pub(crate) fn look_up_records(&mut self, records: Vec<Key>, renewals: &mut Renewals) -> Lookup {
        let records = records.into_iter();
        let unknown = records.filter(|key| !self.names.has_record(key));
        let keys = unknown.map(LookupKey::Stored).collect();
        self.prepare_lookup(keys, renewals, self.clock.now())
    }

    fn prepare_lookup(
        &self,
        keys: Vec<LookupKey>,
        renewals: &mut Renewals,
        now: UnixTime,
    ) -> Lookup {
        let retention = self.retention().unwrap_or_default();
        let requested = keys.iter().filter_map(|key| match key {
            LookupKey::Asked(name) => Some(name.clone()),
            LookupKey::Stored(_) => None,
        });
        Lookup {
            looking_up: self.requests.table().begin_lookup(requested.collect()),
            keys,
            issuers: renewals.open_all_remote(self.issuers()),
            written_every: retention.written_every(),
            unless_used: retention.unless_used(now),
        }
    }

    /// Adopts the names that were looked up. [`Self::answer_adopted`] is to follow once the changes
    /// are served.
    pub(crate) fn adopt(
        &mut self,
        results: LookupResults,
        renewals: &mut Renewals,
        candidates: &Candidates,
        now: UnixTime,
    ) -> (Vec<Change>, Adopted) {
        let LookupResults { found, looking_up } = results;
        let (mut changes, mut requested) = (Vec::new(), Vec::new());
        for found in found {
            if found.is_asked {
                requested.push(found.name.clone());
            }
            if !self.names.contains(&found.name) {
                changes.extend(self.adopt_name(found, renewals, candidates, now));
            }
        }
        let adopted = Adopted {
            requested,
            _looking_up: looking_up,
        };
        (changes, adopted)
    }

    fn adopt_name(
        &mut self,
        found: Found,
        renewals: &mut Renewals,
        candidates: &Candidates,
        now: UnixTime,
    ) -> Option<Change> {
        let Found {
            name,
            subject,
            is_asked,
            outcome,
        } = found;
        let pattern = Pattern::Exact(name.clone());
        let (record, mut stored) = match outcome {
            _ if self.issuers().is_empty() => return None,
            // Also a name that may no longer have a certificate.
            Ok(State::Unused) => {
                self.removals.push(name, RemovalReason::Unused);
                return None;
            }
            // It may have been released since.
            _ if !self.may_have(&name) => return None,
            // Clients get the certificate of the configuration.
            Ok(_) if candidates.covers_without_demand(&pattern, now) => {
                self.requests.table().answer(&name, &Ok(()));
                return None;
            }
            Ok(State::Known { record, read }) => (record, *read),
            Err(error) => {
                let why = format!("{error}; nothing is ordered until it can be stored");
                self.refuse(&name, &why, Some(SOON));
                return None;
            }
        };
        if let Some(damaged) = stored.damaged.take() {
            tracing::error!(domain = %name, "{damaged}");
        }
        let is_valid = |one: &TlsCertificate| one.validity(now) == Validity::Valid;
        stored.certificate = stored.certificate.filter(is_valid);
        let state = match stored.certificate {
            Some(_) => NameState::Served,
            None => NameState::Pending(now),
        };
        if state != NameState::Served && !self.is_to_obtain(&name, is_asked, &stored, renewals, now)
        {
            return None;
        }
        if self.names.len() >= MOST {
            let why = format!("{MOST} names already have on-demand certificates");
            self.refuse(&name, &why, Some(LATER));
            return None;
        }
        let spec = on_demand_spec(&name, self.issuers());
        let used = if is_asked { now } else { record.used };
        self.names.insert(&name, &spec, state, &record, used);
        renewals.adopt_spec(&spec, subject, stored, now)
    }

    /// Whether a certificate is to be obtained now for a name that has none. Where it is not, the
    /// waiting clients learn why.
    fn is_to_obtain(
        &self,
        name: &HostName,
        is_asked: bool,
        stored: &StoredState,
        renewals: &Renewals,
        now: UnixTime,
    ) -> bool {
        let deferred = renewals.deferral(&stored.retries, self.issuers(), now);
        if let Some(deferred) = deferred.filter(|deferred| deferred.is_of_name) {
            let retry_after = deferred.next.map(|next| next.since(now));
            self.refuse(name, &deferred.why, retry_after);
            return false;
        }
        if is_asked && self.names.pending() >= MOST_PENDING {
            let why = format!("{MOST_PENDING} other names are waiting for theirs");
            self.refuse(name, &why, Some(LATER));
            return false;
        }
        // Without a request it is obtained when a client asks for it.
        is_asked
    }

    /// Answers the clients that wait for names that were looked up.
    pub(crate) fn answer_adopted(&self, adopted: Adopted, renewals: &Renewals, now: UnixTime) {
        for name in &adopted.requested {
            self.answer(name, renewals, now, false);
        }
    }

    /// Answers all clients that wait for a name that is decided.
    pub(crate) fn answer_decided(&self, renewals: &Renewals, now: UnixTime) {
        for name in self.requests.table().obtaining() {
            self.answer(&name, renewals, now, false);
        }
    }

    /// Tells the clients that wait for `name` how it stands, where that is decided; `is_begun`
    /// after work on it.
    fn answer(&self, name: &HostName, renewals: &Renewals, now: UnixTime, is_begun: bool) {
        let spec = self.names.spec(name);
        let status = spec.map_or(NameStatus::Unknown, |spec| renewals.name_status(spec, now));
        match status {
            NameStatus::Pending => {}
            NameStatus::Served => self.requests.table().answer(name, &Ok(())),
            NameStatus::Deferred(deferred) => {
                let error = ObtainError {
                    why: deferred.why,
                    retry_after: deferred.next.map(|next| next.since(now)),
                    is_begun,
                };
                self.requests.table().answer(name, &Err(error));
            }
            NameStatus::Unknown => self.refuse(name, "it is no longer allowed to have one", None),
        }
    }

    /// Tells the clients that wait for `name` that nothing was begun for it, and why.
    fn refuse(&self, name: &HostName, why: &str, retry_after: Option<Duration>) {
        let error = ObtainError {
            why: why.to_owned(),
            retry_after,
            is_begun: false,
        };
        self.requests.table().answer(name, &Err(error));
    }

    /// Answers the clients that wait for `name` after a job for it, and decides how it continues.
    pub(crate) fn finish_job(&mut self, name: &HostName, renewals: &mut Renewals, now: UnixTime) {
        self.answer(name, renewals, now, true);
        let Some(spec) = self.names.spec(name).cloned() else {
            return;
        };
        if renewals.is_over(&spec, now) {
            // Nothing is left to be done but to remove it.
            renewals.stop_renewal(&spec);
            self.removals.push(name.clone(), RemovalReason::Unwanted);
            return;
        }
        match renewals.name_status(&spec, now) {
            NameStatus::Served => self.names.record_served(name),
            // The next client that asks learns of the failure from the storage.
            NameStatus::Deferred(deferred)
                if deferred.is_of_name && !renewals.has_certificate(&spec) =>
            {
                self.names.remove(name);
                renewals.release_spec(&spec);
            }
            _ => {}
        }
    }
}

/// The specification of the certificate of a name.
fn on_demand_spec(name: &HostName, issuers: &[Arc<str>]) -> Arc<CertSpec> {
    Arc::new(CertSpec {
        names: vec![Pattern::Exact(name.clone())],
        issuers: issuers.to_vec(),
        dns: None,
        precedence: Precedence::OnDemand,
    })
}
