//! Puts an engine together: storage, challenges, issuers, manager.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use super::cancel_on_stop::CancelOnStop;
use super::publish::{Locked, Publication};
use super::{Engine, Progress};
use crate::acme::{self, AcmeIssuer};
use crate::certificate::sni::SniMap;
use crate::challenge::{ChallengeSolver, Challenges, DnsSolvers, Http01Solver, TlsAlpn01Solver};
use crate::clock::{Clock, SystemClock};
use crate::config::model::{InMemory, Issuer as Configured};
use crate::dns::DnsProvider;
use crate::event::EventBus;
use crate::issuer::{Issuer, NullIssuer};
use crate::manager::{MakeIssuer, Setup, TlsManager};
use crate::metrics::Metrics;
use crate::on_demand::Decision;
use crate::readiness::Readiness;
use crate::storage::{PendingWrites, Storage};
use crate::tls::GlobalCertificate;

/// What an [`Engine`] is made of.
pub struct EngineSetup {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    /// `None` for metrics that nobody reads.
    pub metrics: Option<Metrics>,
    pub readiness: Readiness,
    /// Stops the engine once it says `true`. Other parts of the program may share it.
    pub stop: watch::Sender<bool>,
    /// Whether certificates are held in memory that are kept elsewhere too.
    pub in_memory: InMemory,
    /// The directory of the index of certificate files; `None` for no index.
    pub index: Option<PathBuf>,
    /// Issuers of the program's own, by the entries of `issuers` in the configuration
    /// ([`crate::config::model::Issuer::Own`]).
    pub own_issuers: HashMap<Arc<str>, Arc<dyn Issuer>>,
    /// DNS providers of the program's own, by the entries of `dns` in the configuration
    /// ([`crate::config::model::DnsService::Own`]).
    pub own_dns: HashMap<Arc<str>, Arc<dyn DnsProvider>>,
    /// Solvers of the program's own. They go before ours of the same type.
    pub own_solvers: Vec<Arc<dyn ChallengeSolver>>,
    /// Decides on names on demand that the configuration covers, instead of `on_demand.ask`.
    pub decision: Option<Arc<dyn Decision>>,
}

/// Why an engine cannot be made.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("the metrics clash: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("OpenSSL cannot be used: {0}")]
    OpenSsl(#[from] ErrorStack),
}

impl EngineSetup {
    /// An engine over `storage` with the system's clock and nothing of the program's own.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            clock: Arc::new(SystemClock),
            metrics: None,
            readiness: Readiness::default(),
            stop: watch::Sender::default(),
            in_memory: InMemory::All,
            index: None,
            own_issuers: HashMap::new(),
            own_dns: HashMap::new(),
            own_solvers: Vec::new(),
            decision: None,
        }
    }
}

impl Engine {
    /// An engine with nothing to serve yet. Reads and asks nothing.
    ///
    /// # Errors
    /// Where metrics clash, or OpenSSL cannot make a context, which is for want of memory.
    pub fn new(setup: EngineSetup) -> Result<Arc<Self>, EngineError> {
        let EngineSetup {
            storage,
            clock,
            metrics,
            readiness,
            stop,
            in_memory,
            index,
            own_issuers,
            own_dns,
            own_solvers,
            decision,
        } = setup;
        let metrics = metrics.map_or_else(Metrics::new, Ok)?;
        let challenges = Challenges::stored_in(Arc::clone(&storage), Arc::clone(&clock));
        let certificates = GlobalCertificate::new(metrics.clone(), challenges.clone())?;
        let map = Arc::new(ArcSwap::from_pointee(SniMap::default()));
        let events = EventBus::default();
        let dns = DnsSolvers::new(
            Arc::clone(&storage),
            Arc::clone(&clock),
            events.clone(),
            own_dns,
        );
        let cancel = CancelOnStop::new(stop.subscribe());
        let pending_writes = PendingWrites::default();
        let shared = acme::Shared::new(Arc::clone(&storage), Arc::clone(&clock), events.clone());
        let issuers = IssuerMaker {
            acme: Arc::new(
                shared
                    .with_dns(dns.clone())
                    .with_backlog(pending_writes.clone()),
            ),
            solvers: solvers(own_solvers, &challenges, &storage, &clock),
            own: own_issuers,
            cancel: cancel.clone(),
        };
        let manager = TlsManager::new(Setup {
            published: Arc::clone(&map),
            storage: Arc::clone(&storage),
            clock: Arc::clone(&clock),
            metrics: Some(metrics),
            events,
            in_memory,
            index,
            make_issuer: issuers.into_function(),
            pending_writes,
            dns: Some(dns.clone()),
            decision,
        })?;
        Ok(Arc::new(Self {
            deps: manager.deps().clone(),
            requests: manager.requests().clone(),
            flusher: manager.flusher().clone(),
            manager: Mutex::new(Locked::new(manager)),
            publication: Publication::new(certificates, readiness),
            map,
            storage,
            clock,
            challenges,
            dns,
            planned: Notify::new(),
            cancel,
            stop,
            progress: watch::Sender::new(Progress::Running),
        }))
    }
}

/// The solvers of challenges that are not over the DNS, in the order in which they are chosen.
fn solvers(
    own: Vec<Arc<dyn ChallengeSolver>>,
    challenges: &Challenges,
    storage: &Arc<dyn Storage>,
    clock: &Arc<dyn Clock>,
) -> Vec<Arc<dyn ChallengeSolver>> {
    let parts = || (challenges.clone(), Arc::clone(storage), Arc::clone(clock));
    let (challenges, http_storage, http_clock) = parts();
    let http = Http01Solver::new(challenges, http_storage, http_clock);
    let (challenges, alpn_storage, alpn_clock) = parts();
    let alpn = TlsAlpn01Solver::new(challenges, alpn_storage, alpn_clock);
    let mut solvers = own;
    solvers.push(Arc::new(http));
    solvers.push(Arc::new(alpn));
    solvers
}

/// Makes the issuers that the manager asks. They share their accounts and limits, and give no answer
/// once the engine stops.
struct IssuerMaker {
    acme: Arc<acme::Shared>,
    solvers: Vec<Arc<dyn ChallengeSolver>>,
    own: HashMap<Arc<str>, Arc<dyn Issuer>>,
    cancel: CancelOnStop,
}

impl IssuerMaker {
    fn into_function(self) -> MakeIssuer {
        Box::new(move |name, configured| {
            let issuer: Arc<dyn Issuer> = match (configured, self.own.get(name)) {
                (Configured::Acme(acme), _) => Arc::new(AcmeIssuer::new(
                    Arc::clone(name),
                    Arc::clone(acme),
                    self.solvers.clone(),
                    Arc::clone(&self.acme),
                )),
                (Configured::Own, Some(own)) => Arc::clone(own),
                // Nobody was handed over under this name, or the manager issues itself.
                (Configured::Own, None) | (Configured::LocalCa { .. }, _) => {
                    Arc::new(NullIssuer::new(name))
                }
            };
            self.cancel.wrap_issuer(issuer)
        })
    }
}
