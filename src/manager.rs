//! The one writer of the certificates that are served.
//!
//! [`TlsManager`] brings an [`SniMap`] to what the configuration asks for: from files, and from
//! issuers for what files do not cover. Each pass publishes at most one new map, whole. Whatever
//! fails is reported and leaves what was served before. Its calls do file I/O and take their time:
//! they belong on a thread of their own. When to call them is for others to decide.

mod desired;
mod desired_hosts;
mod gauges;
mod issuance_plan;
mod jobs;
mod local_certs;
mod on_demand;
mod publish;
mod reconcile;
mod report;
mod revocation;
mod scan;
mod superseded;
mod uncovered_hosts;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use openssl::error::ErrorStack;

use self::desired_hosts::DesiredHosts;
use self::gauges::Gauges;
pub use self::issuance_plan::{IssuancePlan, PlannedIssuer, Reason};
use self::local_certs::{LocalCaDeps, LocalCerts};
use self::on_demand::OnDemandNames;
pub use self::on_demand::{Lookup, LookupResults, Removal, Removed, Requests, Retention};
use self::publish::OnDemandIssuance;
pub use self::report::{Report, UncoveredHost};
use crate::cert_files::{CertFiles, FileCertSources, LoadPriority};
use crate::cert_store::StorageHealth;
use crate::certificate::sni::{Candidates, SniMap};
use crate::certificate::{Loader, TlsCertificate};
use crate::challenge::DnsSolvers;
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Config, InMemory};
use crate::event::EventBus;
use crate::issuer::NullIssuer;
use crate::local_ca::LocalCa;
use crate::metrics::Metrics;
use crate::on_demand::Decider;
pub use crate::renewal::{
    ActionError, AriQuery, AriResult, Deps, IssuerLimit, Job, JobResult, MakeIssuer, ManagedView,
    MonitoredCert, RevocationJob, StartupStatus,
};
use crate::renewal::{LastCheck, Renewals};
use crate::storage::{PendingWrites, Storage};

/// What a [`TlsManager`] is made of.
pub struct Setup {
    /// What it publishes to.
    pub published: Arc<ArcSwap<SniMap>>,
    /// Holds what was issued, and the local CA.
    pub storage: Arc<dyn Storage>,
    /// Where all wait that could not store something.
    pub pending_writes: PendingWrites,
    pub clock: Arc<dyn Clock>,
    pub metrics: Option<Metrics>,
    pub events: EventBus,
    pub make_issuer: MakeIssuer,
    /// Whether certificates are held in memory that are kept elsewhere too.
    pub in_memory: InMemory,
    /// The directory of the index of very many files.
    pub index: Option<PathBuf>,
    /// What issuers prove names with over the DNS: told of each configuration.
    pub dns: Option<DnsSolvers>,
    /// Decides on names on demand where the configuration leaves that to the program.
    pub decider: Option<Arc<dyn Decider>>,
}

/// Keeps the certificates that are served as the configuration asks.
pub struct TlsManager {
    published: Arc<ArcSwap<SniMap>>,
    /// What is published, or in a dry run would be.
    map: SniMap,
    clock: Arc<dyn Clock>,
    loader: Arc<Loader>,
    dry: bool,
    config: Option<Arc<Config>>,
    cert_files: CertFiles,
    local_certs: LocalCerts,
    renewals: Renewals,
    dns: Option<DnsSolvers>,
    /// See [`superseded`].
    superseded: Vec<Arc<TlsCertificate>>,
    /// Whether no configuration has been applied yet.
    is_new: bool,
    candidates: Candidates,
    /// The hosts of the sites that are configured.
    hosts: DesiredHosts,
    on_demand: Option<OnDemandIssuance>,
    decider: Option<Arc<dyn Decider>>,
    /// Where clients ask CAs for certificates, and the names that they have asked for.
    requests: Requests,
    names: OnDemandNames,
    /// Whether `on_demand` is as an earlier configuration had it.
    stale_on_demand: bool,
    /// Why it could not be made as the configuration has it, and when that was tried.
    broken_on_demand: Option<(UnixTime, String)>,
    metrics: Option<Metrics>,
    gauges: Option<Gauges>,
    last_pass: UnixTime,
    /// Whether the files are looked at for the first time, and what handshakes wait for meanwhile.
    is_loading: bool,
    load_priority: LoadPriority,
    /// When the last map was published.
    last_published: Instant,
    /// What the last pass reported, to tell what is new.
    reported: HashSet<String>,
}

impl TlsManager {
    /// A manager with nothing to serve yet.
    ///
    /// # Errors
    /// If OpenSSL cannot make a context, which is for want of memory.
    pub fn new(setup: Setup) -> Result<Self, ErrorStack> {
        Self::with_setup(setup, false)
    }

    /// What applying `config` would report: reads all it names, publishes and makes nothing.
    ///
    /// # Errors
    /// If OpenSSL cannot make a context, which is for want of memory.
    pub fn check(
        config: &Config,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Result<Report, ErrorStack> {
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
        Ok(Self::with_setup(setup, true)?.apply(config))
    }

    fn with_setup(setup: Setup, dry: bool) -> Result<Self, ErrorStack> {
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
        let cert_sources = FileCertSources::new(in_memory, &loader, &clock);
        let reads = metrics.as_ref().map(|metrics| metrics.files_read.clone());
        let ca_deps = LocalCaDeps {
            storage: Arc::clone(&storage),
            clock: Arc::clone(&clock),
            loader: Arc::clone(&loader),
            dry,
        };
        let deps = Deps {
            storage,
            clock: Arc::clone(&clock),
            loader: Arc::clone(&loader),
            health: Arc::new(StorageHealth::new(events.clone(), Arc::clone(&clock))),
            pending_writes,
            last_check: LastCheck::default(),
            in_memory,
            renewals: metrics.as_ref().map(|metrics| metrics.renewals.clone()),
            events,
        };
        Ok(Self {
            requests: Requests::new(Arc::clone(&published), &deps),
            published,
            map: SniMap::default(),
            last_pass: clock.now(),
            is_loading: false,
            load_priority: LoadPriority::new(Arc::clone(&clock)),
            last_published: Instant::now(),
            clock,
            loader,
            dry,
            config: None,
            cert_files: CertFiles::new(cert_sources, index, reads),
            local_certs: LocalCerts::new(ca_deps),
            renewals: Renewals::new(deps, make_issuer),
            dns,
            superseded: Vec::new(),
            is_new: true,
            candidates: Candidates::default(),
            hosts: DesiredHosts::default(),
            on_demand: None,
            decider,
            names: OnDemandNames::default(),
            stale_on_demand: false,
            broken_on_demand: None,
            gauges: metrics.clone().map(Gauges::new),
            metrics,
            reported: HashSet::new(),
        })
    }

    /// What this manager publishes to.
    pub fn published(&self) -> &Arc<ArcSwap<SniMap>> {
        &self.published
    }

    /// Serves what `config` asks for. Certificates that it still names stay as they are.
    pub fn apply(&mut self, config: &Config) -> Report {
        self.configure(config);
        self.refresh()
    }

    fn configure(&mut self, config: &Config) {
        self.cert_files.configure(&config.certificates);
        self.hosts = DesiredHosts::from_config(config);
        if let Some(dns) = &self.dns {
            dns.configure(&config.dns);
        }
        if let Some(before) = self.config.replace(Arc::new(config.clone())) {
            self.local_certs
                .close_changed_cas(&before.issuers, &config.issuers);
            let now = self.clock.now();
            let is_other_dns = before.dns != config.dns;
            self.renewals
                .close_changed_issuers(&config.issuers, is_other_dns, now);
            // What it has made is kept where it would make the same again.
            if before.on_demand != config.on_demand
                || before.issuers != config.issuers
                || before.renewal != config.renewal
            {
                self.stale_on_demand = true;
                self.names.recheck_all();
                self.requests.notify_change();
            }
        }
    }

    /// Does what time asks for: renews what soon ends, serves what has begun to be valid. Reads no
    /// certificate's file.
    pub fn tick(&mut self) -> Report {
        let now = self.pass_time();
        self.finish_pass(Report::default(), now)
    }

    /// Every certificate that is loaded or issued, whether it is served or another goes before it.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        let from_files = self.cert_files.certificates();
        from_files
            .chain(self.local_certs.certificates())
            .chain(self.renewals.certificates())
            .chain(&self.superseded)
    }

    /// The certificates that the local CA has made on demand and keeps, bounded in number. They are
    /// served, and are none of [`Self::certificates`].
    pub fn made_on_demand(&self) -> Vec<Arc<TlsCertificate>> {
        let on_demand = self.on_demand.as_ref();
        on_demand.map_or_else(Vec::new, OnDemandIssuance::certificates)
    }

    /// The local CA that the configuration calls `name`, opened where it was not needed so far.
    ///
    /// # Errors
    /// If there is no such issuer or it cannot be opened.
    pub fn local_ca(&mut self, name: &Arc<str>) -> Result<Option<Arc<LocalCa>>, String> {
        let none = IndexMap::new();
        let issuers = self.config.as_ref().map_or(&none, |config| &config.issuers);
        self.local_certs.local_ca(name, issuers)
    }

    fn pass_time(&mut self) -> UnixTime {
        let now = self.clock.now();
        self.candidates.pass_time(self.last_pass, now);
        self.cert_files.pass_time(now);
        self.last_pass = now;
        now
    }
}

#[cfg(test)]
mod tests;
