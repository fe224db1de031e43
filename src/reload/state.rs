//! What the gateway serves now, apart from its certificates.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;

use super::file_versions::FileVersions;
use super::prepare::ProgramLog;
use super::report::ReloadOutcome;
use crate::access_log::AccessLog;
use crate::config::Loaded;
use crate::config::model::Config;
use crate::edge::{Edge, Listeners};
use crate::engine::Engine;
use crate::lock::MutexExt as _;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::proxy::{ProxyApp, SiteTable};
use crate::trace::Tracer;

/// The edge in front of our proxy.
pub type GatewayEdge = Edge<ProxyApp>;

/// The listening sockets of our edge.
pub type GatewayListeners = Listeners<ProxyApp>;

/// Everything that a reload replaces, and what it needs to do so.
pub struct GatewayState {
    pub(super) file: PathBuf,
    pub(super) engine: Arc<Engine>,
    pub(super) metrics: Metrics,
    pub(super) sites: Arc<ArcSwap<SiteTable>>,
    pub(super) access: Arc<ArcSwap<AccessLog>>,
    pub(super) edge: Arc<GatewayEdge>,
    pub(super) listeners: Arc<GatewayListeners>,
    pub(super) log: Arc<dyn ProgramLog>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) tracer: Tracer,
    /// The configuration's files as they were when they were read. Locked after the engine.
    versions: Mutex<FileVersions>,
    /// The configuration at the start: some keys wait for the next one.
    pub(super) at_start: Config,
    /// The configuration that is served.
    pub(super) current: ArcSwap<Loaded>,
    pub(super) last: ArcSwap<Option<ReloadOutcome>>,
}

/// What a [`GatewayState`] is made of.
pub struct StateDeps {
    pub file: PathBuf,
    pub loaded: Loaded,
    pub engine: Arc<Engine>,
    pub metrics: Metrics,
    pub sites: Arc<ArcSwap<SiteTable>>,
    pub access: Arc<ArcSwap<AccessLog>>,
    pub edge: Arc<GatewayEdge>,
    pub listeners: Arc<GatewayListeners>,
    pub log: Arc<dyn ProgramLog>,
    /// Who is notified of events.
    pub notifier: Arc<Notifier>,
    pub tracer: Tracer,
}

impl GatewayState {
    /// Starts the engine with the configuration that was loaded, and serves its sites.
    pub fn start(deps: StateDeps) -> Arc<Self> {
        let StateDeps {
            file,
            loaded,
            engine,
            metrics,
            sites,
            access,
            edge,
            listeners,
            log,
            notifier,
            tracer,
        } = deps;
        let now = engine.clock().now();
        let versions = FileVersions::read_from(&loaded.files, now);
        let state = Arc::new(Self {
            file,
            engine,
            metrics,
            sites,
            access,
            edge,
            listeners,
            log,
            notifier,
            tracer,
            versions: Mutex::new(versions),
            at_start: loaded.config.clone(),
            current: ArcSwap::from_pointee(loaded),
            last: ArcSwap::from_pointee(None),
        });
        let current = state.current();
        // First of all: what follows may emit events.
        state.notifier.apply(&current.config);
        let hook = state.notifier.obtaining_hook(&current.config);
        state.engine.set_obtaining_hook(hook);
        let mut manager = state.engine.lock();
        manager.watch_files(current.files.iter().cloned());
        drop(manager);
        let sites = state.replace_sites(&current.config);
        state.engine.start(&current.config, Some(sites));
        state.metrics.last_reload_successful.set(1);
        state.metrics.last_reload_timestamp.set(now.as_secs());
        state
    }

    /// The configuration that is served.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// The sites that are served, with the state of their upstreams.
    pub fn sites(&self) -> Arc<SiteTable> {
        self.sites.load_full()
    }

    /// The configuration's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How the last reload went; `None` before the first.
    pub fn last_reload(&self) -> Option<ReloadOutcome> {
        self.last.load().as_ref().clone()
    }

    /// Opens the files of logs again, after others have rotated them.
    pub fn reopen_logs(&self) {
        self.access.load().reopen();
        self.log.reopen();
    }

    pub(super) fn versions(&self) -> MutexGuard<'_, FileVersions> {
        // Each change is whole.
        self.versions.lock_unpoisoned()
    }
}
