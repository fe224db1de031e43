//! What an engine is made of, and the issuers that it asks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use openssl::error::ErrorStack;
use thiserror::Error;
use tokio::sync::watch;

use super::cancel_on_stop::CancelOnStop;
use crate::acme::{self, AcmeIssuer};
use crate::challenge::{ChallengeSolver, Challenges, Http01Solver, TlsAlpn01Solver};
use crate::clock::{Clock, SystemClock};
use crate::config::model::{InMemory, Issuer as Configured};
use crate::dns::DnsProvider;
use crate::issuer::{Issuer, NullIssuer};
use crate::metrics::Metrics;
use crate::on_demand::Decider;
use crate::readiness::Readiness;
use crate::renewal::MakeIssuer;
use crate::storage::Storage;

/// What an [`Engine`](super::Engine) is made of.
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
    /// Decides on names on demand where the configuration leaves that to the program.
    pub decider: Option<Arc<dyn Decider>>,
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
            decider: None,
        }
    }
}

/// The solvers of challenges that are not over the DNS, in the order in which they are chosen.
pub(super) fn solvers(
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
pub(super) fn issuer_maker(
    shared: acme::Shared,
    solvers: Vec<Arc<dyn ChallengeSolver>>,
    own: HashMap<Arc<str>, Arc<dyn Issuer>>,
    cancel: CancelOnStop,
) -> MakeIssuer {
    let shared = Arc::new(shared);
    Box::new(move |name, configured| {
        let issuer: Arc<dyn Issuer> = match (configured, own.get(name)) {
            (Configured::Acme(acme), _) => Arc::new(AcmeIssuer::new(
                Arc::clone(name),
                Arc::clone(acme),
                solvers.clone(),
                Arc::clone(&shared),
            )),
            (Configured::Own, Some(own)) => Arc::clone(own),
            // No issuer was handed over under this name, or the manager issues itself.
            (Configured::Own, None) | (Configured::LocalCa { .. }, _) => {
                Arc::new(NullIssuer::new(name))
            }
        };
        cancel.wrap_issuer(issuer)
    })
}
