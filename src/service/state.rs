//! The state of the gateway: what is served now, and how it follows the files.
//!
//! One writer, behind a lock, takes each reload through the same steps: load, check, apply,
//! publish. Handshakes and requests only load what was published, as a whole.

mod apply;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::file_versions::FileVersions;
use super::load::LoadPhase;
pub use super::prepare::{SetLevel, access_log, settings};
use super::report;
pub use super::report::{ReloadError, ReloadOutcome, ReloadReport};
use crate::access_log::AccessLog;
use crate::cert_files::Flusher;
use crate::certificate::TlsCertificate;
use crate::certificate::sni::SniMap;
use crate::clock::Clock;
use crate::config::Loaded;
use crate::config::model::Config;
use crate::edge::Edge;
use crate::manager::{Deps, ManagedView, Report, Requests, TlsManager, UncoveredHost};
use crate::metrics::Metrics;
use crate::proxy::{ProxyApp, SiteTable};
use crate::readiness::Readiness;
use crate::tls::GlobalCertificate;

/// The edge in front of our proxy.
pub type GatewayEdge = Edge<ProxyApp>;

/// How long certificates are loaded before the admin interface answers. The rest of very many is
/// loaded while it tells how far that is.
const LOAD_AT_START: Duration = Duration::from_millis(200);

/// Everything that a reload can change, and what it needs to do so.
pub struct GatewayState {
    file: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) certificates: GlobalCertificate,
    pub(super) map: Arc<ArcSwap<SniMap>>,
    pub(super) sites: Arc<ArcSwap<SiteTable>>,
    access: Arc<ArcSwap<AccessLog>>,
    edge: Arc<GatewayEdge>,
    set_level: SetLevel,
    writer: Mutex<Writer>,
    /// The configuration that was loaded last.
    pub(super) current: ArcSwap<Loaded>,
    last: ArcSwap<Option<ReloadOutcome>>,
    /// What is to be watched, readable without the writer's lock.
    pub(super) watched: ArcSwap<Vec<PathBuf>>,
    pub(super) flusher: Flusher,
    /// What jobs depend on.
    pub(super) deps: Deps,
    /// Notified when what is due may have changed.
    pub(super) planned: Notify,
    /// How far the first scan of all files is.
    pub(super) loaded: watch::Sender<LoadPhase>,
    /// Where clients ask for certificates.
    pub(super) requests: Requests,
}

/// What only the writer touches.
pub(super) struct Writer {
    pub(super) manager: TlsManager,
    /// The configuration's files as they were when they were read.
    pub(super) versions: FileVersions,
    /// What is watched beside them.
    pub(super) watch: Arc<BTreeSet<PathBuf>>,
    /// What the last pass found missing.
    pub(super) missing: Vec<UncoveredHost>,
    /// The keys that wait for a restart.
    start: Config,
}

/// What a [`GatewayState`] is made of.
pub struct StateDeps {
    pub file: PathBuf,
    pub loaded: Loaded,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub certificates: GlobalCertificate,
    pub map: Arc<ArcSwap<SniMap>>,
    pub sites: Arc<ArcSwap<SiteTable>>,
    pub access: Arc<ArcSwap<AccessLog>>,
    pub edge: Arc<GatewayEdge>,
    pub manager: TlsManager,
    pub set_level: SetLevel,
}

impl GatewayState {
    /// Begins with the configuration that was loaded, and publishes it.
    pub fn start(deps: StateDeps) -> (Arc<Self>, Report) {
        let StateDeps {
            file,
            loaded,
            clock,
            metrics,
            readiness,
            certificates,
            map,
            sites,
            access,
            edge,
            manager,
            set_level,
        } = deps;
        let now = clock.now();
        let (deps, requests) = (manager.deps().clone(), manager.requests().clone());
        let flusher = manager.flusher().clone();
        let state = Arc::new(Self {
            file,
            clock,
            metrics,
            readiness,
            certificates,
            map,
            sites,
            access,
            edge,
            set_level,
            writer: Mutex::new(Writer {
                manager,
                versions: FileVersions::read_from(&loaded.files, now),
                watch: Arc::default(),
                missing: Vec::new(),
                start: loaded.config.clone(),
            }),
            watched: ArcSwap::from_pointee(loaded.files.clone()),
            current: ArcSwap::from_pointee(loaded),
            last: ArcSwap::from_pointee(None),
            flusher,
            deps,
            planned: Notify::new(),
            loaded: watch::Sender::new(LoadPhase::Begun),
            requests,
        });
        let report = {
            let mut writer = state.writer();
            let config = &state.current.load().config;
            let report = writer.manager.start(config, LOAD_AT_START);
            report::log_certificates(&report);
            state.publish(config, &mut writer, &report);
            report
        };
        state.metrics.last_reload_successful.set(1);
        state.metrics.last_reload_timestamp.set(now);
        (state, report)
    }

    /// The configuration that is served.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// The configuration's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How the last reload went; `None` before the first.
    pub fn last_reload(&self) -> Option<ReloadOutcome> {
        self.last.load().as_ref().clone()
    }

    /// Every certificate that is loaded or issued.
    pub fn certificates(&self) -> Vec<Arc<TlsCertificate>> {
        self.writer().manager.certificates().cloned().collect()
    }

    /// The certificates that the local CA has made on demand and keeps.
    pub fn made_on_demand(&self) -> Vec<Arc<TlsCertificate>> {
        self.writer().manager.made_on_demand()
    }

    /// Everything that CAs are asked for.
    pub fn managed_views(&self) -> Vec<ManagedView> {
        self.writer().manager.managed_views()
    }

    /// What is to be watched: the configuration's files, certificates' files and directories.
    pub fn watched(&self) -> Arc<Vec<PathBuf>> {
        self.watched.load_full()
    }

    /// Reads everything again and takes it, or keeps what there is. Blocks on files.
    ///
    /// # Errors
    /// Where the new configuration is invalid or cannot be carried out; nothing has changed then.
    pub fn reload(&self) -> Result<ReloadReport, ReloadError> {
        // It may have been rotated away: a reload is how that is told.
        self.access.load().reopen();
        let mut writer = self.writer();
        let read = self.load_config(&mut writer);
        self.apply_config(&mut writer, read)
    }

    /// Looks at the files: reloads where the configuration's own have changed, else reads only the
    /// certificates that have. `paths` says which may have; with none [`Self::scan_slice`] reads all.
    /// Blocks on files.
    pub fn check_paths(&self, paths: &[PathBuf]) {
        let mut writer = self.writer();
        // Certificates are looked after whether or not the configuration is in order.
        if self.reload_changed(&mut writer) {
            return;
        }
        if paths.is_empty() {
            writer.manager.begin_scan();
            return;
        }
        let report = writer.manager.refresh_paths(paths);
        self.publish_report(&mut writer, &report);
    }

    /// Publishes and logs what changed in files.
    pub(super) fn publish_report(&self, writer: &mut Writer, report: &Report) {
        report::log_changes(report);
        report::log_certificates(report);
        // As in `take`: these may be the certificates of another configuration.
        if !self.reload_changed(writer) {
            let config = &self.current.load().config;
            self.publish_certificates(config, writer, report);
        }
    }

    /// Waits until the access lines of what has been answered are written.
    pub fn flush_log(&self, patience: Duration) {
        self.access.load().flush(patience);
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic in between has published nothing: what there is goes on.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
