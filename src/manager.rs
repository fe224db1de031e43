//! The one writer of the certificates that are served.
//!
//! [`TlsManager`] brings an [`SniMap`] to what the configuration asks for: from files, and from
//! issuers for what files do not cover. Its parts each own their state and return what changes: the
//! certificate files, the local CAs' certificates, the renewals, the certificates on demand, the
//! superseded ones. Each pass publishes at most one new map, whole. Whatever fails is reported and
//! leaves what was served before. Its calls do file I/O and take their time: they belong on a
//! thread of their own. Its callers decide when to call them.

mod desired;
mod desired_hosts;
mod gauges;
mod issuance_plan;
mod local_certs;
mod pass;
mod report;
mod served;
mod staples;
mod superseded;
mod uncovered_hosts;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;

pub use self::issuance_plan::{IssuancePlan, PlannedIssuer, Reason};
pub use self::report::{Report, UncoveredHost};
pub(crate) use self::staples::{KnownRevoked, Withheld, note_staples, status_watched, withheld};

use self::desired_hosts::DesiredHosts;
use self::gauges::Gauges;
use self::local_certs::{LocalCaDeps, LocalCerts};
use self::served::Served;
use self::superseded::Superseded;
use crate::cert_files::CertFiles;
use crate::cert_store::StorageHealth;
use crate::certificate::sni::SniMap;
use crate::certificate::{Loader, TlsCertificate};
use crate::challenge::DnsSolvers;
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Config, InMemory, Issuer as Configured};
use crate::event::EventBus;
use crate::host::Pattern;
use crate::issuer::{Issuer, NullIssuer, RevocationReason};
use crate::local_ca::LocalCa;
use crate::metrics::Metrics;
use crate::on_demand::{Decider, Lookup, OnDemandCerts, Removal};
use crate::renewal::{
    ActionError, CurrentHook, Deps, Job, LastCheck, MakeIssuer, RenewalPolicy, Renewals,
    RevocationJob,
};
use crate::schedule::WarnFrom;
use crate::storage::{Key, PendingWrites, Storage};

/// What a [`TlsManager`] is made of.
pub struct Setup {
    /// Where maps are published.
    pub published: Arc<ArcSwap<SniMap>>,
    /// Holds what was issued, and the local CA.
    pub storage: Arc<dyn Storage>,
    /// What could not be stored yet.
    pub pending_writes: PendingWrites,
    pub clock: Arc<dyn Clock>,
    pub metrics: Option<Metrics>,
    pub events: EventBus,
    pub make_issuer: MakeIssuer,
    /// Whether certificates are held in memory that are kept elsewhere too.
    pub in_memory: InMemory,
    /// The directory of the index of very many files.
    pub index: Option<PathBuf>,
    /// What issuers prove names with over the DNS; configured with each configuration.
    pub dns: Option<DnsSolvers>,
    /// Decides on names on demand where the configuration leaves that to the program.
    pub decider: Option<Arc<dyn Decider>>,
}

/// Keeps the certificates that are served as the configuration asks.
pub struct TlsManager {
    config: Option<Arc<Config>>,
    dns: Option<DnsSolvers>,
    cert_files: CertFiles,
    local_certs: LocalCerts,
    renewals: Renewals,
    on_demand: OnDemandCerts,
    superseded: Superseded,
    /// The hosts of the sites that are configured.
    hosts: DesiredHosts,
    served: Served,
    gauges: Option<Gauges>,
    /// What the last pass reported, to know what is new.
    reported: HashSet<String>,
    /// Whether issuers have not been asked for anything yet.
    is_new: bool,
}

/// From when on the end of a certificate is reported.
pub(crate) fn warn_from(config: &Config) -> WarnFrom {
    WarnFrom {
        before: config.validity.warn_before,
        fraction: config.validity.warn_fraction,
    }
}

impl TlsManager {
    /// A manager with nothing to serve yet.
    ///
    /// # Errors
    /// If OpenSSL has no memory for a context.
    pub fn new(setup: Setup) -> Result<Self, ErrorStack> {
        Self::with_setup(setup, false)
    }

    /// What applying `config` would report: reads all it names, publishes and makes nothing.
    ///
    /// # Errors
    /// If OpenSSL has no memory for a context.
    pub fn check(
        config: &Config,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Result<Report, ErrorStack> {
        let now = clock.now();
        let setup = Setup {
            published: Arc::default(),
            storage,
            pending_writes: PendingWrites::default(),
            clock,
            metrics: None,
            events: EventBus::default(),
            make_issuer: Box::new(|name, _| Arc::new(NullIssuer::new(name))),
            in_memory: InMemory::All,
            index: None,
            dns: None,
            decider: None,
        };
        let mut manager = Self::with_setup(setup, true)?;
        let mut report = manager.apply(config);
        let near = manager.cert_files.near_ends(warn_from(config), now);
        report.warnings.extend(near);
        Ok(report)
    }

    fn with_setup(setup: Setup, is_dry: bool) -> Result<Self, ErrorStack> {
        let Setup {
            published,
            storage,
            pending_writes,
            clock,
            metrics,
            events,
            make_issuer,
            in_memory,
            index,
            dns,
            decider,
        } = setup;
        let loader = Arc::new(Loader::with_clock(Arc::clone(&clock))?);
        let reads = metrics.as_ref().map(|metrics| metrics.files_read.clone());
        let ca_deps = LocalCaDeps {
            storage: Arc::clone(&storage),
            clock: Arc::clone(&clock),
            loader: Arc::clone(&loader),
            dry: is_dry,
        };
        let deps = Deps {
            storage,
            clock: Arc::clone(&clock),
            loader: Arc::clone(&loader),
            health: Arc::new(StorageHealth::new(events.clone(), Arc::clone(&clock))),
            pending_writes,
            last_check: LastCheck::default(),
            hook: CurrentHook::default(),
            in_memory,
            renewals: metrics.as_ref().map(|metrics| metrics.renewals.clone()),
            running: (metrics.as_ref()).map(|metrics| metrics.renewals_running.clone()),
            events,
        };
        Ok(Self {
            config: None,
            dns,
            cert_files: CertFiles::new(in_memory, &loader, &clock, index, reads),
            local_certs: LocalCerts::new(ca_deps),
            on_demand: OnDemandCerts::new(Arc::clone(&published), &deps, metrics.clone(), decider),
            renewals: Renewals::new(deps, make_issuer),
            superseded: Superseded::default(),
            hosts: DesiredHosts::default(),
            served: Served::new(published, is_dry, clock.now()),
            gauges: metrics.map(Gauges::new),
            reported: HashSet::new(),
            is_new: true,
        })
    }

    fn configure(&mut self, config: &Config) {
        self.cert_files.configure(&config.certificates);
        self.hosts = DesiredHosts::from_config(config);
        if let Some(dns) = &self.dns {
            dns.configure(&config.dns);
        }
        let needs_staples = config.revocation.ocsp && !self.served.is_dry();
        let candidates = self.served.candidates_mut();
        candidates.wait_for_staples(needs_staples);
        let before = self.config.replace(Arc::new(config.clone()));
        if needs_staples && before.as_ref().is_some_and(|one| !one.revocation.ocsp) {
            staples::restore_all(self);
        }
        self.local_certs.configure(&config.issuers);
        let is_other_dns = before
            .as_ref()
            .is_some_and(|before| before.dns != config.dns);
        self.renewals.configure(&config.issuers, is_other_dns);
        if let Some(gauges) = &mut self.gauges {
            gauges.show_issuers(config.issuers.keys());
        }
        self.on_demand.configure(before.as_deref(), config);
    }

    fn now(&self) -> UnixTime {
        self.renewals.deps().clock.now()
    }

    /// Where maps are published.
    pub fn published(&self) -> &Arc<ArcSwap<SniMap>> {
        self.served.published()
    }

    /// The certificates from files.
    pub(crate) fn cert_files(&self) -> &CertFiles {
        &self.cert_files
    }

    pub(crate) fn cert_files_mut(&mut self) -> &mut CertFiles {
        &mut self.cert_files
    }

    /// The certificates that CAs are asked for.
    pub(crate) fn renewals(&self) -> &Renewals {
        &self.renewals
    }

    pub(crate) fn renewals_mut(&mut self) -> &mut Renewals {
        &mut self.renewals
    }

    /// The certificates that clients ask for.
    pub(crate) fn on_demand(&self) -> &OnDemandCerts {
        &self.on_demand
    }

    pub(crate) fn on_demand_mut(&mut self) -> &mut OnDemandCerts {
        &mut self.on_demand
    }

    /// Every certificate that is loaded or issued, whether it is served or another has precedence.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        let from_files = self.cert_files.certificates();
        from_files
            .chain(self.local_certs.certificates())
            .chain(self.renewals.certificates())
            .chain(self.superseded.certificates())
    }

    /// The local CA that the configuration calls `name`, opened where it was not needed so far.
    ///
    /// # Errors
    /// If there is no such issuer or it cannot be opened.
    pub fn local_ca(&mut self, name: &Arc<str>) -> Result<Option<Arc<LocalCa>>, String> {
        self.local_certs.local_ca(name)
    }

    /// Why clients refuse what the local CA of this name issues; `None` where they need not.
    pub fn not_yet_valid(&self, issuer: &str) -> Option<String> {
        self.local_certs.not_yet_valid(issuer)
    }

    /// The certificates that are due now, as many as may be worked on at a time. Each is held until
    /// [`Self::apply_job_results`] has its result.
    pub fn due_jobs(&mut self) -> Vec<Job> {
        if self.config.is_none() {
            return Vec::new();
        }
        let gate = self.on_demand.issuance().gate();
        let policy = gate.map(|gate| Arc::clone(gate) as Arc<dyn RenewalPolicy>);
        let mut local_ca = |name: &Arc<str>| self.local_certs.local_ca(name);
        let jobs = self.renewals.begin_due_jobs(&mut local_ca, policy.as_ref());
        // A certificate that waits for a limit comes late, or not at all.
        self.on_demand.answer_decided(&self.renewals, self.now());
        if let Some(gauges) = &mut self.gauges {
            gauges.show_limits(self.renewals.limits());
            gauges.show_waiting(self.renewals.waiting());
        }
        jobs
    }

    /// Takes some of the names that clients have asked for, see [`OnDemandCerts::take_requests`].
    /// The result of the lookup goes to [`Self::apply_lookup`].
    pub fn take_requests(&mut self) -> Option<Lookup> {
        self.on_demand.take_requests(&mut self.renewals)
    }

    /// The lookup of the names with these records, see [`OnDemandCerts::look_up_records`].
    pub fn look_up_records(&mut self, records: Vec<Key>) -> Lookup {
        self.on_demand.look_up_records(records, &mut self.renewals)
    }

    /// The on-demand names to be removed from the storage now, see
    /// [`OnDemandCerts::begin_removals`]. The results go to [`Self::finish_on_demand_removals`].
    pub fn on_demand_removals(&mut self, up: Duration) -> Vec<Removal> {
        self.on_demand.begin_removals(up, &mut self.renewals)
    }

    /// Which issuers would be asked for a certificate for `name`.
    pub fn plan_issuance(&mut self, name: &Pattern) -> IssuancePlan {
        let Some(config) = &self.config else {
            return IssuancePlan::empty();
        };
        let renewals = &mut self.renewals;
        IssuancePlan::new(config, name, |issuer| renewals.open_issuer(issuer))
    }

    /// What revoking the certificate with this fingerprint takes. [`Self::replace_revoked`] is to
    /// follow once it is revoked.
    ///
    /// # Errors
    /// Where there is none, or no issuer here can have it revoked.
    pub fn plan_revocation(
        &mut self,
        fingerprint: &str,
        reason: RevocationReason,
    ) -> Result<RevocationJob, ActionError> {
        let is_meant = |one: &&Arc<TlsCertificate>| one.fingerprint().to_string() == fingerprint;
        let certificate = self.certificates().find(is_meant).cloned();
        let certificate = certificate.ok_or(ActionError::Unknown)?;
        let config = self.config.as_ref().ok_or(ActionError::Unknown)?;
        RevocationJob::plan(certificate, reason, config, &mut self.renewals)
    }

    /// Sees that another certificate takes the place of one that was revoked, and emits the event.
    /// Whether a CA is asked for it.
    ///
    /// # Errors
    /// Where the local CA cannot issue another; the present one stays.
    pub fn replace_revoked(&mut self, revoked: &RevocationJob) -> Result<bool, ActionError> {
        let fingerprint = revoked.fingerprint();
        let is_asked = self.renewals.replace_revoked(fingerprint);
        match self.local_certs.replace(fingerprint) {
            Some(Ok((spec, change))) => {
                let mut report = Report::default();
                self.apply_change(change, spec.precedence, &mut report);
                if let Some(config) = self.config.clone() {
                    self.publish(&config, self.now(), &mut report);
                }
            }
            Some(Err(why)) => return Err(ActionError::Failed(revoked.failed_to_store(&why))),
            None => {}
        }
        revoked.emit_event(self.renewals.deps());
        Ok(is_asked)
    }

    /// The issuer of this name, where it has accounts.
    ///
    /// # Errors
    /// Where there is none, or it has none.
    pub fn acme_issuer(&mut self, name: &str) -> Result<Arc<dyn Issuer>, ActionError> {
        let config = self.config.as_ref().ok_or(ActionError::Unknown)?;
        if let Some(Configured::LocalCa { .. }) = config.issuers.get(name) {
            return Err(ActionError::Refused(format!(
                "{name} is a local CA, which has no accounts"
            )));
        }
        let issuer = self.renewals.open_issuer(name);
        issuer.ok_or(ActionError::Unknown)
    }
}

#[cfg(test)]
mod tests;
