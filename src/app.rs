//! The gateway put together: from a configuration to a running Pingora server, and nothing else.
//!
//! The order matters. Sockets are bound before rights are dropped, rights are dropped before any
//! key is read, and certificates are loaded before the first connection is accepted. Where there are
//! very many, the admin interface tells meanwhile how far that is.

mod control;
mod init;
mod logging;
mod process;
mod services;
mod sockets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::background::background_service;
use thiserror::Error;
use tokio::sync::watch;

use crate::acme::{self, AcmeIssuer};
use crate::admin;
use crate::certificate::sni::SniMap;
use crate::challenge::{
    self, ChallengeSolver, Challenges, DnsSolvers, Http01Solver, TlsAlpn01Solver,
};
use crate::clock::{Clock, SystemClock};
use crate::config::Loaded;
use crate::config::model::{self, Config};
use crate::edge::{BindError, Edge};
use crate::event::EventBus;
use crate::manager::{MakeIssuer, Setup, TlsManager};
use crate::metrics::Metrics;
use crate::proxy::{self, Gateway, SiteTable};
use crate::pulse::Pulse;
use crate::readiness::Readiness;
use crate::service::cancel_on_stop::CancelOnStop;
use crate::service::on_demand::OnDemandMaintenance;
use crate::service::reload;
use crate::service::renewal::Renewal;
use crate::service::signals::Signals;
use crate::service::start_gate::StartGate;
use crate::service::state::{self, GatewayEdge, GatewayState, ReloadError, StateDeps};
use crate::service::stop::Stop;
use crate::service::systemd;
use crate::service::validity::Validity;
use crate::storage::{FileStorage, PendingWrites, Storage};
use crate::tls::GlobalCertificate;

pub use self::init::leave_first_process;

use self::control::AppControl;
use self::logging::Level;
use self::process::{Descriptors, UserError};
use self::services::{BackgroundTasks, BackgroundTasksService, EdgeService, START};
use self::sockets::Sockets;

/// How long the end of the process waits for the last access lines to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits at most for a certificate that is being stored.
const HALT_PATIENCE: Duration = Duration::from_secs(5);

/// Why a gateway cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("{0}")]
    Configuration(String),
    #[error("{0}; 'renewal.required_at_start' is set, so the gateway does not start without it")]
    Certificates(String),
    #[error("the metrics clash: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("OpenSSL cannot be used: {0}")]
    OpenSsl(#[from] openssl::error::ErrorStack),
    #[error("cannot read the admin listener's address: {0}")]
    Place(std::io::Error),
    #[error("Pingora cannot start: {0}")]
    Pingora(Box<pingora_core::Error>),
    #[error(transparent)]
    Log(#[from] logging::LogError),
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<ReloadError> for StartError {
    fn from(refused: ReloadError) -> Self {
        Self::Configuration(match refused {
            ReloadError::Invalid(diagnostics) => diagnostics.to_string(),
            ReloadError::Unable(why) => why,
        })
    }
}

/// Runs the gateway for a configuration that was loaded from `file`, until it is told to stop. A
/// signal to stop ends the start, too.
///
/// # Errors
/// Where it cannot start; nothing is left behind then.
pub fn run(file: PathBuf, loaded: Loaded, signals: Signals) -> Result<(), StartError> {
    let config = loaded.config.clone();
    let metrics = Metrics::new()?;
    let level = Level::init(&config.log, metrics.log_lines_lost.clone())?;
    let _last_lines = level.watch_panics();
    process::forbid_core_dumps();
    let sockets = Sockets::bind(&config)?;
    if let Some(user) = &config.server.user {
        process::become_user(user)?;
    }
    let storage = storage(&config);
    let app = App::new(file, loaded, level, metrics, storage)?;
    if signals.is_to_stop() {
        tracing::info!("stopped before startup was complete");
        return Ok(());
    }
    app.serve(sockets, &config, signals)
}

/// The parts that services share.
struct App {
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    readiness: Readiness,
    sites: Arc<ArcSwap<SiteTable>>,
    edge: Arc<GatewayEdge>,
    state: Arc<GatewayState>,
    challenges: Challenges,
    dns: DnsSolvers,
    storage: Arc<dyn Storage>,
    /// Says that the gateway stops.
    stop: watch::Sender<bool>,
    cancel: CancelOnStop,
}

impl App {
    fn new(
        file: PathBuf,
        loaded: Loaded,
        level: Level,
        metrics: Metrics,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, StartError> {
        let config = loaded.config.clone();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let readiness = Readiness::default();
        readiness.set(START, ["the gateway is starting"]);

        let challenges = Challenges::stored_in(Arc::clone(&storage), Arc::clone(&clock));
        let certificates = GlobalCertificate::new(metrics.clone(), challenges.clone())?;
        let map = Arc::new(ArcSwap::from_pointee(SniMap::default()));
        let events = EventBus::default();
        let dns = DnsSolvers::new(Arc::clone(&storage), Arc::clone(&clock), events.clone());
        let (stop, stopping) = watch::channel(false);
        let cancel = CancelOnStop::new(stopping);
        let pending_writes = PendingWrites::default();
        let manager = TlsManager::new(Setup {
            published: Arc::clone(&map),
            storage: Arc::clone(&storage),
            clock: Arc::clone(&clock),
            metrics: Some(metrics.clone()),
            events: events.clone(),
            in_memory: config.certificates_in_memory,
            index: Some(index_directory(&config)),
            make_issuer: make_issuer(
                (&storage, &pending_writes),
                &clock,
                &challenges,
                &dns,
                &events,
                &cancel,
            ),
            pending_writes,
            dns: Some(dns.clone()),
        })?;

        let sites = Arc::new(ArcSwap::from_pointee(SiteTable::default()));
        let access = Arc::new(ArcSwap::from_pointee(state::access_log(&config, &metrics)?));
        let descriptors = Descriptors::claim();
        let gateway = Gateway::new(
            Arc::clone(&sites),
            &metrics,
            Arc::clone(&access),
            certificates.clone(),
        )
        .with_start_time(clock.now())
        .with_upstream_connections(descriptors.upstreams);
        let edge = Edge::new(
            Arc::new(proxy::ProxyApp::new(gateway, &config, descriptors.kept)),
            certificates.clone(),
            state::settings(&certificates, &config)?,
            metrics.clone(),
            descriptors.clients,
            config.server.threads,
        );
        let (state, _) = GatewayState::start(StateDeps {
            file,
            loaded,
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            certificates,
            map,
            sites: Arc::clone(&sites),
            access,
            edge: Arc::clone(&edge),
            manager,
            set_level: Box::new(move |log| level.set(log)),
        });
        challenge::read_once(&challenges, &storage, &clock);
        Ok(Self {
            clock,
            metrics,
            readiness,
            sites,
            edge,
            state,
            challenges,
            dns,
            storage,
            stop,
            cancel,
        })
    }

    /// Runs Pingora's server with our services until it is told to stop.
    fn serve(self, sockets: Sockets, config: &Config, signals: Signals) -> Result<(), StartError> {
        let pulse = Pulse::default();
        systemd::begin(pulse.clone());
        let drain = {
            let (edge, state) = (Arc::clone(&self.edge), Arc::clone(&self.state));
            let cancel = self.cancel.clone();
            Box::new(move || {
                let grace = state.current().config.server.grace_period;
                let (edge, cancel) = (Arc::clone(&edge), cancel.clone());
                Box::pin(async move {
                    let halted = tokio::time::timeout(HALT_PATIENCE, cancel.wait_until_finished());
                    tokio::join!(edge.drained(grace), halted).0
                }) as _
            })
        };
        let stopping = self.stop.subscribe();
        let (stop, stopper) = Stop::new(signals.clone(), self.readiness.clone(), self.stop, drain);
        let state = Arc::clone(&self.state);
        let (task, reloader) = reload::task(Arc::clone(&state), signals);
        let gate = StartGate::new(config.renewal.required_at_start, stopper.clone());

        let admin = match sockets.admin {
            None => None,
            Some(listener) => {
                let admin_state = admin::AdminState {
                    place: listener.place().map_err(StartError::Place)?,
                    control: Arc::new(AppControl::new(
                        Arc::clone(&self.state),
                        Arc::clone(&self.edge),
                        Arc::clone(&self.clock),
                        reloader,
                        stopper,
                    )),
                    metrics: self.metrics.clone(),
                    readiness: self.readiness.clone(),
                    pulse: pulse.clone(),
                };
                Some((listener, admin::router(admin_state)))
            }
        };

        let mut server = Server::new_with_opt_and_conf(
            None,
            ServerConf {
                threads: config.server.threads,
                ..ServerConf::default()
            },
        );
        server.add_service(EdgeService {
            edge: self.edge,
            listeners: sockets.listeners,
            sites: Arc::clone(&self.sites),
            stopping: stopping.clone(),
            readiness: self.readiness,
            pulse,
            gate: gate.clone(),
            state: Arc::clone(&state),
        });
        let renewal = Renewal::new(
            Arc::clone(&state),
            gate.clone(),
            self.cancel,
            stopping.clone(),
        );
        let validity = Validity::new(Arc::clone(&state), stopping.clone());
        server.add_service(background_service("renewal", renewal));
        let keeping = OnDemandMaintenance::new(Arc::clone(&state), stopping.clone());
        server.add_service(background_service("validity", validity));
        server.add_service(background_service("on_demand", keeping));
        server.add_service(BackgroundTasksService {
            parts: Some(BackgroundTasks {
                task,
                sites: self.sites,
                challenges: self.challenges,
                dns: self.dns,
                storage: self.storage,
                clock: self.clock,
                admin,
            }),
            stopping,
        });
        server.run(RunArgs {
            shutdown_signal: Box::new(stop),
        });
        state.flush_log(LOG_PATIENCE);
        state.flush_index(LOG_PATIENCE);
        gate.outcome().map_err(StartError::Certificates)
    }
}

/// Makes the issuers that the manager asks, which share their accounts and limits.
fn make_issuer(
    (storage, pending_writes): (&Arc<dyn Storage>, &PendingWrites),
    clock: &Arc<dyn Clock>,
    challenges: &Challenges,
    dns: &DnsSolvers,
    events: &EventBus,
    cancel: &CancelOnStop,
) -> MakeIssuer {
    let cancel = cancel.clone();
    let shared = acme::Shared::new(Arc::clone(storage), Arc::clone(clock), events.clone());
    let shared = shared
        .with_dns(dns.clone())
        .with_backlog(pending_writes.clone());
    let shared = Arc::new(shared);
    let parts = || (challenges.clone(), Arc::clone(storage), Arc::clone(clock));
    let (challenges, of_http, of_http_clock) = parts();
    let http = Http01Solver::new(challenges, of_http, of_http_clock);
    let (challenges, of_alpn, of_alpn_clock) = parts();
    let alpn = TlsAlpn01Solver::new(challenges, of_alpn, of_alpn_clock);
    let solvers: [Arc<dyn ChallengeSolver>; 2] = [Arc::new(http), Arc::new(alpn)];
    Box::new(move |name, acme| {
        let (name, acme) = (Arc::clone(name), Arc::clone(acme));
        let shared = Arc::clone(&shared);
        cancel.wrap_issuer(Arc::new(AcmeIssuer::new(
            name,
            acme,
            solvers.to_vec(),
            shared,
        )))
    })
}

fn storage(config: &Config) -> Arc<dyn Storage> {
    match &config.storage {
        model::Storage::File { path } => Arc::new(FileStorage::new(path)),
    }
}

/// Where what is known of certificates' files is kept: hidden among what is stored.
fn index_directory(config: &Config) -> PathBuf {
    match &config.storage {
        model::Storage::File { path } => path.join(".index"),
    }
}

#[cfg(test)]
mod tests;
