//! The certificate engine: everything that obtains, renews, loads and presents certificates.
//!
//! [`Engine`] owns the one [`TlsManager`] behind its lock, publishes what that makes to a
//! [`GlobalCertificate`], and runs every background loop: renewal, validity, certificates on demand,
//! files, challenges and their clean-up. It knows certificates and nothing of the requests that are
//! served with them. The gateway is one program built on it.

mod actions;
mod cancel_on_stop;
mod cert_status;
mod files;
mod on_demand;
mod publish;
mod renewal;
mod setup;
mod validity;

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::cancel_on_stop::CancelOnStop;
pub(crate) use self::files::FileScanner;
pub use self::files::{ConfigFiles, LoadPhase};
use self::on_demand::OnDemandMaintenance;
pub use self::publish::ManagerGuard;
pub(crate) use self::publish::{Judgement, log_problems};
use self::publish::{Locked, Publication};
use self::renewal::Renewal;
pub use self::setup::{EngineError, EngineSetup};
use crate::acme;
use crate::cert_files::Flusher;
use crate::certificate::sni::SniMap;
use crate::challenge::{self, Challenges, DnsSolvers};
use crate::clock::Clock;
use crate::config::model::Config;
use crate::event::EventBus;
use crate::lock::MutexExt as _;
use crate::manager::{Report, Setup, TlsManager};
use crate::metrics::{CertificateStates, Metrics, StatusMetrics};
use crate::on_demand::Requests;
use crate::renewal::{Deps, ObtainingHook, StartupStatus};
use crate::shutdown::ShutdownWatch;
use crate::storage::{PendingWrites, Storage};
use crate::tls::GlobalCertificate;

/// How long [`Engine::start`] loads certificates from files. If there are very many, the rest is
/// loaded by [`Engine::run`].
const LOAD_AT_START: Duration = Duration::from_millis(200);

/// What a program publishes together with its certificates, see
/// [`crate::tls::Snapshot::attachment`].
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// Obtains, renews, loads and presents certificates. Programs begin with [`Self::builder`].
pub struct Engine {
    manager: Mutex<Locked>,
    publication: Publication,
    /// What the manager publishes to.
    map: Arc<ArcSwap<SniMap>>,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    challenges: Challenges,
    dns: DnsSolvers,
    /// Where clients ask for certificates.
    requests: Requests,
    /// What jobs depend on.
    deps: Deps,
    /// Where it is shown how many certificates are in which state.
    states: CertificateStates,
    flusher: Flusher,
    status_metrics: StatusMetrics,
    /// Notified when what is due may have changed.
    planned: Notify,
    cancel: CancelOnStop,
    stop: watch::Sender<bool>,
    progress: watch::Sender<Progress>,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Running,
    /// Nothing is under way whose loss would matter.
    Saved,
    Ended,
}

/// The loops run until this is dropped, however that comes about.
struct Running<'a>(&'a watch::Sender<Progress>);

impl<'a> Running<'a> {
    fn begin(progress: &'a watch::Sender<Progress>) -> Self {
        progress.send_replace(Progress::Running);
        Self(progress)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_replace(Progress::Ended);
    }
}

/// Learns how a start stands that waits for required certificates.
pub trait StartObserver: Send + Sync {
    /// Whether the start still waits. While it does, [`Self::update`] is called every few seconds.
    fn is_waiting(&self) -> bool;

    /// How the start stands, and how many names have no certificate.
    fn update(&self, status: StartupStatus, missing: usize);
}

/// What the program adds to the loops of an [`Engine`].
#[derive(Clone, Default)]
pub struct Loops {
    /// The files of the program's configuration, watched together with those of certificates.
    pub config_files: Option<Arc<dyn ConfigFiles>>,
    pub start_observer: Option<Arc<dyn StartObserver>>,
    /// No job is begun before this moment; everything else is done from the start. `None` for at once.
    pub orders_after: Option<Instant>,
}

#[doc(hidden)]
impl Engine {
    /// An engine with nothing to serve yet. Reads and asks nothing.
    ///
    /// # Errors
    /// If metrics clash, or OpenSSL has no memory for a context.
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
            decider,
        } = setup;
        let metrics = metrics.map_or_else(Metrics::new, Ok)?;
        let challenges = Challenges::stored_in(Arc::clone(&storage), Arc::clone(&clock));
        let status_metrics = metrics.status.clone();
        let certificates = GlobalCertificate::new(metrics.clone(), challenges.clone())?;
        let map = Arc::new(ArcSwap::from_pointee(SniMap::default()));
        let states = metrics.certificate_states.clone();
        let events = EventBus::default();
        let dns = DnsSolvers::new(
            Arc::clone(&storage),
            Arc::clone(&clock),
            events.clone(),
            own_dns,
        );
        let cancel = CancelOnStop::new(stop.subscribe());
        let pending_writes = PendingWrites::default();
        let shared = acme::Shared::new(Arc::clone(&storage), Arc::clone(&clock), events.clone())
            .with_dns(dns.clone())
            .with_backlog(pending_writes.clone());
        let solvers = setup::solvers(own_solvers, &challenges, &storage, &clock);
        let manager = TlsManager::new(Setup {
            published: Arc::clone(&map),
            storage: Arc::clone(&storage),
            clock: Arc::clone(&clock),
            metrics: Some(metrics),
            events,
            in_memory,
            index,
            make_issuer: setup::issuer_maker(shared, solvers, own_issuers, cancel.clone()),
            pending_writes,
            dns: Some(dns.clone()),
            decider,
        })?;
        Ok(Arc::new(Self {
            deps: manager.renewals().deps().clone(),
            states,
            requests: manager.on_demand().requests().clone(),
            flusher: manager.cert_files().flusher().clone(),
            status_metrics,
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
            progress: watch::Sender::new(Progress::Ended),
        }))
    }

    /// Locks the manager. Whoever holds the guard keeps all others from changing certificates;
    /// handshakes continue.
    pub fn lock(&self) -> ManagerGuard<'_> {
        // A panic under the lock has published nothing, so the old state stays in force.
        let locked = self.manager.lock_unpoisoned();
        ManagerGuard::new(locked, self)
    }

    /// Begins with `config`: loads certificates, publishes them with `attachment`, and reads the
    /// pending challenges of other instances. Loads for 200 ms at most; [`Self::run`] loads the rest.
    /// Blocks on files and the storage.
    pub fn start(&self, config: &Config, attachment: Option<Attachment>) -> Report {
        let mut manager = self.lock();
        let report = manager.start(config, LOAD_AT_START);
        log_problems(&report);
        manager.publish_config(config, attachment, &report);
        drop(manager);
        challenge::read_once(&self.challenges, &self.storage, &self.clock);
        report
    }

    /// Replaces the configuration: certificates that it still names stay as they are. Publishes them
    /// with `attachment`. Blocks on files and the storage.
    pub fn apply(&self, config: &Config, attachment: Option<Attachment>) -> Report {
        let mut manager = self.lock();
        let report = manager.apply(config);
        log_problems(&report);
        manager.publish_config(config, attachment, &report);
        report
    }

    /// Runs every background loop on the current Tokio runtime until the engine is stopped. To be
    /// called once, after [`Self::start`].
    pub async fn run(self: Arc<Self>, loops: Loops) {
        let running = Running::begin(&self.progress);
        // Nobody obtains what is asked for once this has ended, or is dropped.
        let closing = self.requests.close_on_drop();
        let mut saving = JoinSet::new();
        let renewal = Renewal::new(Arc::clone(&self), loops.start_observer);
        saving.spawn(renewal.run(loops.orders_after));
        saving.spawn(challenge::sync_with_storage(
            self.challenges.clone(),
            Arc::clone(&self.storage),
            Arc::clone(&self.clock),
            self.stopping(),
        ));
        let mut others = JoinSet::new();
        others.spawn(validity::run(Arc::clone(&self)));
        others.spawn(cert_status::run(Arc::clone(&self)));
        others.spawn(OnDemandMaintenance::new(Arc::clone(&self)).run());
        others.spawn(FileScanner::new(Arc::clone(&self), loops.config_files).run());
        others.spawn(self.dns.clone().keep_clean(self.stopping()));
        wait_for_all(&mut saving).await;
        drop(closing);
        running.0.send_replace(Progress::Saved);
        wait_for_all(&mut others).await;
    }

    /// Stops the loops of [`Self::run`] and waits until they have ended. No order is begun any more,
    /// what is being stored gets 2 s, and what waits for the storage 2 s more.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.wait_for_progress(Progress::Ended).await;
    }

    /// Waits, after a stop was requested, until nothing is under way whose loss would matter: the
    /// process may end then.
    pub async fn wait_until_saved(&self) {
        self.wait_for_progress(Progress::Saved).await;
    }

    async fn wait_for_progress(&self, enough: Progress) {
        // The sender is this engine's own: no error.
        let _ = self.progress.subscribe().wait_for(|is| *is >= enough).await;
    }

    /// Waits until the first scan of all files has come so far.
    pub async fn wait_until_loaded(&self, enough: LoadPhase) {
        self.publication.wait_until_loaded(enough).await;
    }

    /// Turns true when the engine stops.
    pub fn stopping(&self) -> ShutdownWatch {
        self.stop.subscribe()
    }

    /// The certificates that handshakes are served from.
    pub fn certificates(&self) -> &GlobalCertificate {
        &self.publication.certificates
    }

    /// The challenges that CAs validate, of this instance and of those that share the storage.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// What happens to certificates.
    pub fn events(&self) -> &EventBus {
        self.deps.events()
    }

    /// Asks `hook` from now on before it asks CAs, or none.
    pub fn set_obtaining_hook(&self, hook: Option<Arc<dyn ObtainingHook>>) {
        self.deps.hook.set(hook);
    }

    /// Where state is kept that outlives the process.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// How the configuration has certificates judged.
    pub(crate) fn judgement(&self) -> Judgement {
        self.publication.judgement()
    }

    /// The time by which certificates are judged.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Waits until the index of certificate files is written, for `patience` at most. It does not
    /// lock the manager, which a storage that hangs may hold.
    pub fn flush_index(&self, patience: Duration) {
        self.flusher.flush(patience);
    }
}

/// Waits for all of `tasks`.
pub(crate) async fn wait_for_all(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        // One that is cancelled ends with the runtime.
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a background task was interrupted by a bug");
        }
    }
}

/// Runs what blocks, on files or for long, off the runtime's threads; `None` if it panicked, or if
/// the runtime is shutting down.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work)
        .await
        .inspect_err(|error| {
            if error.is_panic() {
                tracing::error!(
                    %error,
                    "work was interrupted by a bug, the old state stays in force"
                );
            }
        })
        .ok()
}

#[cfg(test)]
mod tests;
