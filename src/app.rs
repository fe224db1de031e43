//! The gateway put together: from a configuration to a running Pingora server, and nothing else.
//!
//! The order matters. Sockets are bound before rights are dropped, rights are dropped before any
//! key is read, and certificates are loaded before the first connection is accepted. If there are
//! very many, the admin interface reports the progress meanwhile.

mod control;
mod init;
mod logging;
mod privileges;
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

use crate::access_log::AccessLog;
use crate::admin;
use crate::config::Loaded;
use crate::config::model::{self, Config};
use crate::edge::{BindError, Edge, Listeners};
use crate::engine::{Engine, EngineError, EngineSetup, Loops};
use crate::metrics::Metrics;
use crate::notify::{Notifier, NotifierSetup};
use crate::proxy::{Gateway, Lane, Overload, ProxyApp, SiteTable};
use crate::pulse::Pulse;
use crate::readiness::Readiness;
use crate::reload::{self, GatewayEdge, GatewayListeners, GatewayState, ReloadError, StateDeps};
use crate::service::signals::Signals;
use crate::service::start_gate::StartGate;
use crate::service::stop::Stop;
use crate::service::systemd;
use crate::storage::{FileStorage, Storage};
use crate::trace::{Exporter, Tracer};

pub use self::init::leave_first_process;
pub use self::privileges::forbid_new_privileges;
pub use self::process::withhold_descriptors;

use self::control::AppControl;
use self::logging::OwnLog;
use self::privileges::UserError;
use self::process::Descriptors;
use self::services::{BackgroundTasks, BackgroundTasksService, EdgeService, EngineService, START};
use self::sockets::Sockets;

/// How long the end of the process waits for the last access lines to be written, and for the last
/// spans to be exported.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits at most for a certificate that is being stored.
const SAVE_PATIENCE: Duration = Duration::from_secs(5);

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
    #[error(transparent)]
    Engine(#[from] EngineError),
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

/// Runs the gateway for a configuration that was loaded from `file`, until a stop is requested. A
/// signal to stop ends the start, too.
///
/// # Errors
/// Where it cannot start; nothing is left behind then.
pub fn run(file: PathBuf, loaded: Loaded, lane: Lane, signals: Signals) -> Result<(), StartError> {
    let config = loaded.config.clone();
    let metrics = Metrics::new()?;
    let log = OwnLog::init(&config.log, metrics.log_lines_lost.clone())?;
    log.show_depth(&metrics.depths);
    let _last_lines = log.watch_panics();
    process::restrict_core_dumps();
    privileges::keep_capabilities_from_children();
    let sockets = Sockets::bind(&config)?;
    if let Some(user) = &config.server.user {
        privileges::become_user(user, |user, group| sockets.set_owner(user, group))?;
        process::restrict_core_dumps();
    }
    // As the user that has to open it again.
    log.redirect(&config.log)?;
    let storage = storage(&config);
    let app = App::new(file, loaded, lane, log, metrics, storage)?;
    if signals.is_to_stop() {
        tracing::info!("stopped before startup was complete");
        return Ok(());
    }
    app.serve(sockets, &config, signals)
}

/// The parts that services share.
struct App {
    metrics: Metrics,
    readiness: Readiness,
    overload: Overload,
    sites: Arc<ArcSwap<SiteTable>>,
    access: Arc<ArcSwap<AccessLog>>,
    edge: Arc<GatewayEdge>,
    listeners: Arc<GatewayListeners>,
    engine: Arc<Engine>,
    state: Arc<GatewayState>,
    notifier: Arc<Notifier>,
    log: OwnLog,
    tracer: Tracer,
    exporter: Exporter,
    /// Stops every part of the gateway.
    stop: watch::Sender<bool>,
}

impl App {
    fn new(
        file: PathBuf,
        loaded: Loaded,
        lane: Lane,
        log: OwnLog,
        metrics: Metrics,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, StartError> {
        let config = loaded.config.clone();
        let readiness = Readiness::default();
        readiness.set(START, ["the gateway is starting"]);
        let stop = watch::Sender::default();
        let engine = Engine::new(EngineSetup {
            metrics: Some(metrics.clone()),
            readiness: readiness.clone(),
            stop: stop.clone(),
            in_memory: config.certificates_in_memory,
            index: Some(index_directory(&config)),
            ..EngineSetup::new(storage)
        })?;
        let certificates = engine.certificates();

        let sites = Arc::new(ArcSwap::from_pointee(SiteTable::default()));
        let access = reload::access_log(&config, &metrics)?;
        access.show_depth(&metrics.depths);
        let access = Arc::new(ArcSwap::from_pointee(access));
        let (tracer, exporter) = Tracer::new(metrics.trace_spans.clone());
        tracer.set_target(reload::trace_target(&config)?);
        let descriptors = Descriptors::claim();
        let gateway = Gateway::new(
            Arc::clone(&sites),
            &metrics,
            Arc::clone(&access),
            certificates.clone(),
        )
        .with_start_time(engine.clock().now())
        .with_tracer(tracer.clone())
        .with_upstream_connections(descriptors.upstreams)
        .with_files(descriptors.files);
        let overload = gateway.overload();
        let edge = Edge::new(
            Arc::new(ProxyApp::new(gateway, &config, descriptors.kept).with_lane(lane)),
            certificates.clone(),
            reload::settings(certificates, &config)?,
            metrics.clone(),
            descriptors.clients,
            config.server.threads,
        );
        edge.log_refused_to(Arc::clone(&access));
        let listeners = Listeners::new(Arc::clone(&edge));
        let notifier = Notifier::new(NotifierSetup {
            events: engine.events().clone(),
            clock: Arc::clone(engine.clock()),
            metrics: metrics.notify.clone(),
            directory: Some(&notify_directory(&config)),
            config: &file,
        });
        let state = GatewayState::start(StateDeps {
            file,
            loaded,
            engine: Arc::clone(&engine),
            metrics: metrics.clone(),
            sites: Arc::clone(&sites),
            access: Arc::clone(&access),
            edge: Arc::clone(&edge),
            listeners: Arc::clone(&listeners),
            log: Arc::new(log.clone()),
            notifier: Arc::clone(&notifier),
            tracer: tracer.clone(),
        });
        Ok(Self {
            metrics,
            readiness,
            overload,
            sites,
            access,
            edge,
            listeners,
            engine,
            state,
            notifier,
            log,
            tracer,
            exporter,
            stop,
        })
    }

    /// Runs Pingora's server with our services until a stop is requested.
    fn serve(self, sockets: Sockets, config: &Config, signals: Signals) -> Result<(), StartError> {
        let pulse = Pulse::default();
        systemd::begin(pulse.clone());
        let drain = {
            let (edge, engine) = (Arc::clone(&self.edge), Arc::clone(&self.engine));
            let (state, tracer) = (Arc::clone(&self.state), self.tracer);
            Box::new(move || {
                let grace = state.current().config.server.grace_period;
                let (edge, engine) = (Arc::clone(&edge), Arc::clone(&engine));
                let tracer = tracer.clone();
                Box::pin(async move {
                    let saved = tokio::time::timeout(SAVE_PATIENCE, engine.wait_until_saved());
                    let (is_drained, _) = tokio::join!(edge.drained(grace), saved);
                    tracer.flush(LOG_PATIENCE).await;
                    is_drained
                }) as _
            })
        };
        let stopping = self.stop.subscribe();
        let (stop, stopper) = Stop::new(signals.clone(), self.readiness.clone(), self.stop, drain);
        let (reload_task, reloader) = reload::task(Arc::clone(&self.state), signals);
        let gate = StartGate::new(config.renewal.required_at_start, stopper.clone());

        let admin = match sockets.admin {
            None => None,
            Some(listener) => {
                let admin_state = admin::AdminState {
                    place: listener.place().map_err(StartError::Place)?,
                    control: Arc::new(AppControl {
                        engine: Arc::clone(&self.engine),
                        state: Arc::clone(&self.state),
                        edge: Arc::clone(&self.edge),
                        listeners: Arc::clone(&self.listeners),
                        notifier: Arc::clone(&self.notifier),
                        log: self.log.clone(),
                        started: self.engine.clock().now(),
                        reloader,
                        stopper,
                    }),
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
        self.listeners.commit(sockets.listeners);
        server.add_service(EdgeService {
            listeners: self.listeners,
            sites: Arc::clone(&self.sites),
            stopping: stopping.clone(),
            readiness: self.readiness.clone(),
            pulse,
            gate: gate.clone(),
            engine: Arc::clone(&self.engine),
            state: Arc::clone(&self.state),
        });
        let loops = Loops {
            config_files: Some(self.state),
            start_observer: Some(Arc::new(gate.clone())),
            orders_after: None,
        };
        let engine = EngineService::new(Arc::clone(&self.engine), loops);
        server.add_service(background_service("engine", engine));
        server.add_service(BackgroundTasksService {
            tasks: Some(BackgroundTasks {
                reload: reload_task,
                sites: self.sites,
                metrics: self.metrics,
                readiness: self.readiness,
                overload: self.overload,
                events: self.engine.events().clone(),
                notifier: self.notifier,
                exporter: self.exporter,
                admin,
            }),
            stopping,
        });
        server.run(RunArgs {
            shutdown_signal: Box::new(stop),
        });
        self.access.load().flush(LOG_PATIENCE);
        self.engine.flush_index(LOG_PATIENCE);
        gate.outcome().map_err(StartError::Certificates)
    }
}

fn storage(config: &Config) -> Arc<dyn Storage> {
    match &config.storage {
        model::Storage::File { path } => Arc::new(FileStorage::new(path)),
    }
}

/// Where the index of certificate files is kept: in a hidden folder of the storage.
fn index_directory(config: &Config) -> PathBuf {
    match &config.storage {
        model::Storage::File { path } => path.join(".index"),
    }
}

/// Where notifications are kept until they are delivered: likewise.
fn notify_directory(config: &Config) -> PathBuf {
    match &config.storage {
        model::Storage::File { path } => path.join(".notify"),
    }
}

#[cfg(test)]
mod tests;
