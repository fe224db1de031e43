//! The one writer of the certificates that are served.
//!
//! [`TlsManager`] brings an [`SniMap`] to what the configuration asks for: from files, and from
//! issuers for what files do not cover. Each pass publishes at most one new map, whole. Whatever
//! fails is reported and leaves what was served before. Its calls do file I/O and take their time:
//! they belong on a thread of their own. When to call them is for others to decide.

mod asked;
mod directory;
mod early;
mod entry;
mod files;
mod gauges;
mod health;
mod hosts;
mod index;
mod inquiry;
mod issued;
mod job;
mod kept;
mod managed;
mod missing;
mod needs;
mod on_demand;
mod parallel;
mod publish;
mod report;
mod retired;
mod revocation;
mod sources;
mod stored;
mod sweep;
mod told;
mod upkeep;
mod work;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use openssl::error::ErrorStack;

pub use self::asked::{Why, WouldAsk, WouldBe};
use self::early::Early;
use self::gauges::Gauges;
use self::health::Health;
use self::hosts::Hosts;
pub use self::index::Flusher;
pub use self::inquiry::{Answer, Inquiry};
use self::issued::{Access, Issued};
pub use self::job::{Done, Job, Tools};
use self::kept::Keepers;
use self::managed::Managed;
pub use self::managed::{Held, MakeIssuer, ManagedView, Start, Watched};
use self::needs::{Need, is_acme, is_remote};
use self::on_demand::Names;
pub use self::on_demand::{Batch, Demands, Going, Gone, Looked, Terms};
use self::publish::Demand;
pub use self::report::{Missing, Problem, Report};
use self::revocation::Looks;
pub use self::revocation::{CareError, Revoke};
use self::sources::Sources;
use crate::certificate::sni::{Candidates, Precedence, SniMap};
use crate::certificate::{Loader, TlsCertificate};
use crate::challenge::DnsSolvers;
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Config, InMemory};
use crate::event::EventBus;
use crate::host::Pattern;
use crate::issuer::Nobody;
use crate::local_ca::LocalCa;
use crate::metrics::Metrics;
use crate::storage::{Backlog, Storage};

/// What a [`TlsManager`] is made of.
pub struct Setup {
    /// What it publishes to.
    pub published: Arc<ArcSwap<SniMap>>,
    /// Holds what was issued, and the local CA.
    pub storage: Arc<dyn Storage>,
    /// Where all wait that could not store something.
    pub backlog: Backlog,
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
}

/// Keeps the certificates that are served as the configuration asks.
pub struct TlsManager {
    published: Arc<ArcSwap<SniMap>>,
    /// What is published, or in a trial would be.
    map: SniMap,
    clock: Arc<dyn Clock>,
    loader: Arc<Loader>,
    dry: bool,
    config: Option<Arc<Config>>,
    sources: Sources,
    issued: Issued,
    managed: Managed,
    dns: Option<DnsSolvers>,
    /// See [`retired`].
    retired: Vec<Arc<TlsCertificate>>,
    /// Whether no configuration has been applied yet.
    is_new: bool,
    candidates: Candidates,
    /// The hosts of the sites that are configured.
    hosts: Hosts,
    on_demand: Option<Demand>,
    /// Where clients ask CAs for certificates, and the names that they have asked for.
    demands: Demands,
    names: Names,
    /// Whether `on_demand` is as an earlier configuration had it.
    stale_on_demand: bool,
    /// Why it could not be made as the configuration has it, and when that was tried.
    broken_on_demand: Option<(UnixTime, String)>,
    metrics: Option<Metrics>,
    gauges: Option<Gauges>,
    last_pass: UnixTime,
    /// Whether the files are looked at for the first time, and what handshakes wait for meanwhile.
    is_loading: bool,
    early: Early,
    /// When the last map was published.
    last_published: Instant,
    /// What the last pass reported, to tell what is new.
    reported: HashSet<String>,
}

impl TlsManager {
    /// A manager with nothing to serve yet.
    ///
    /// # Errors
    /// Where OpenSSL cannot make a context, which is for want of memory.
    pub fn new(setup: Setup) -> Result<Self, ErrorStack> {
        Self::build(setup, false)
    }

    /// What applying `config` would report: reads all it names, publishes and makes nothing.
    ///
    /// # Errors
    /// Where OpenSSL cannot make a context, which is for want of memory.
    pub fn check(
        config: &Config,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Result<Report, ErrorStack> {
        let setup = Setup {
            published: Arc::default(),
            storage,
            backlog: Backlog::default(),
            clock,
            metrics: None,
            events: EventBus::default(),
            make_issuer: Box::new(|name, _| Arc::new(Nobody::new(name))),
            in_memory: InMemory::All,
            index: None,
            dns: None,
        };
        Ok(Self::build(setup, true)?.apply(config))
    }

    fn build(setup: Setup, dry: bool) -> Result<Self, ErrorStack> {
        let Setup {
            published,
            storage,
            backlog,
            clock,
            metrics,
            events,
            make_issuer,
            in_memory,
            index,
            dns,
        } = setup;
        let loader = Arc::new(Loader::with_clock(Arc::clone(&clock))?);
        let keepers = Keepers::new(in_memory, &loader, &clock);
        let reads = metrics.as_ref().map(|metrics| metrics.files_read.clone());
        let access = Access {
            storage: Arc::clone(&storage),
            clock: Arc::clone(&clock),
            loader: Arc::clone(&loader),
            dry,
        };
        let tools = Tools {
            storage,
            clock: Arc::clone(&clock),
            loader: Arc::clone(&loader),
            health: Arc::new(Health::new(events.clone(), Arc::clone(&clock))),
            backlog,
            looks: Looks::default(),
            in_memory,
            renewals: metrics.as_ref().map(|metrics| metrics.renewals.clone()),
            events,
        };
        Ok(Self {
            demands: Demands::new(Arc::clone(&published), &tools),
            published,
            map: SniMap::default(),
            last_pass: clock.now(),
            is_loading: false,
            early: Early::new(Arc::clone(&clock)),
            last_published: Instant::now(),
            clock,
            loader,
            dry,
            config: None,
            sources: Sources::new(keepers, index, reads),
            issued: Issued::new(access),
            managed: Managed::new(tools, make_issuer),
            dns,
            retired: Vec::new(),
            is_new: true,
            candidates: Candidates::default(),
            hosts: Hosts::default(),
            on_demand: None,
            names: Names::default(),
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
        self.sources.configure(&config.certificates);
        self.hosts = Hosts::of(config);
        if let Some(dns) = &self.dns {
            dns.configure(&config.dns);
        }
        if let Some(before) = self.config.replace(Arc::new(config.clone())) {
            self.issued.close_others(&before.issuers, &config.issuers);
            let now = self.clock.now();
            let is_other_dns = before.dns != config.dns;
            self.managed
                .close_others(&config.issuers, is_other_dns, now);
            // What it has made is kept where it would make the same again.
            if before.on_demand != config.on_demand
                || before.issuers != config.issuers
                || before.renewal != config.renewal
            {
                self.stale_on_demand = true;
                self.names.doubt();
                self.demands.change();
            }
        }
    }

    /// Does what time asks for: renews what soon ends, serves what has begun to be valid. Reads no
    /// certificate's file.
    pub fn tick(&mut self) -> Report {
        let now = self.pass_time();
        self.conclude(Report::default(), now)
    }

    /// Every certificate that is loaded or issued, whether it is served or another goes before it.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        let from_files = self.sources.certificates();
        from_files
            .chain(self.issued.certificates())
            .chain(self.managed.certificates())
            .chain(&self.retired)
    }

    /// The certificates that the local CA has made on demand and keeps, bounded in number. They are
    /// served, and are none of [`Self::certificates`].
    pub fn made_on_demand(&self) -> Vec<Arc<TlsCertificate>> {
        let on_demand = self.on_demand.as_ref();
        on_demand.map_or_else(Vec::new, Demand::certificates)
    }

    /// The local CA that the configuration calls `name`, opened where it was not needed so far.
    ///
    /// # Errors
    /// Where there is no such issuer or it cannot be opened.
    pub fn local_ca(&mut self, name: &Arc<str>) -> Result<Option<Arc<LocalCa>>, String> {
        let none = IndexMap::new();
        let issuers = self.config.as_ref().map_or(&none, |config| &config.issuers);
        self.issued.local_ca(name, issuers)
    }

    fn pass_time(&mut self) -> UnixTime {
        let now = self.clock.now();
        self.candidates.pass_time(self.last_pass, now);
        self.sources.pass_time(now);
        self.last_pass = now;
        now
    }

    /// Brings everything else up to what the files are now, and publishes.
    fn conclude(&mut self, mut report: Report, now: UnixTime) -> Report {
        let Some(config) = self.config.clone() else {
            return report;
        };
        for change in self.sources.end_vanished(now) {
            self.take(change, Precedence::Configured, &mut report);
        }
        if self.is_loading {
            // What files do not cover is not known yet, so nobody is asked for it.
            self.publish(&config, now, &mut report);
            report.loading = Some(self.sources.swept());
        } else {
            self.issued.maintain(&mut report.problems);
            self.sweep_retired(&config, now, &mut report);
            let issued = self.issue(&config, now, &mut report);
            self.issued.tell_unripe(&mut report.problems);
            if std::mem::take(&mut self.is_new) && !self.dry {
                self.stand_in(now, &mut report);
                if config.renewal.required_at_start {
                    self.managed.ask_again(now);
                }
            }
            self.publish(&config, now, &mut report);
            self.miss(&config, &issued, &mut report);
        }
        let mut wrong = std::mem::take(&mut report.problems);
        self.sources
            .report(now, &mut report.problems, &mut report.warnings);
        report.problems.append(&mut wrong);
        report.watch = Arc::clone(self.sources.watch());
        report.certificates = self.sources.loaded()
            + self.issued.len()
            + self.managed.certificates().count()
            + self.retired.len();
        self.note_new(&mut report);
        report
    }

    /// Sees that all that issuers are asked for is there, and nothing else. Returns the names.
    fn issue(&mut self, config: &Config, now: UnixTime, report: &mut Report) -> HashSet<Pattern> {
        let window = config.renewal.window;
        self.managed.set_ari(config.renewal.ari, now);
        let mut needs: HashSet<Need> = HashSet::new();
        let managed = needs::managed(config);
        let mut hosts = std::mem::take(&mut self.hosts);
        for step in 0..2 {
            let asked = match step {
                0 => managed.clone(),
                // What was issued in the first step may cover a site.
                _ => {
                    let has = |need: &Need| self.managed.has(need) || self.issued.has(need);
                    hosts.review(&mut self.candidates, now);
                    needs::of_sites(&hosts, &managed, &self.candidates, has, now)
                }
            };
            let (remote, local) = asked
                .iter()
                .cloned()
                .partition::<Vec<_>, _>(|(need, _)| is_remote(need, config));
            report.to_obtain += remote.len();
            let problems = &mut report.problems;
            let mut served = self
                .issued
                .issue(&local, &config.issuers, window, now, problems);
            if !self.dry {
                served.extend(self.managed.ensure(&remote, &config.issuers, window, now));
            }
            for (need, change) in served {
                self.take(change, need.standing, report);
            }
            needs.extend(asked.into_iter().map(|(need, _)| need));
        }
        self.hosts = hosts;
        for change in self.managed.retain(|need| needs.contains(need)) {
            self.retire(change, config, now, report);
        }
        for change in self.issued.retain(|need| needs.contains(need)) {
            self.take(change, Precedence::Fallback, report);
        }
        needs.into_iter().flat_map(|need| need.names).collect()
    }
}

#[cfg(test)]
mod tests;
