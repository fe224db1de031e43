//! The gateway's Pingora services: the edge, and what runs beside it.
//!
//! They start and end tasks and decide nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use pingora_core::services::background::BackgroundService;
use tokio::task::JoinSet;

use crate::admin;
use crate::engine::{Engine, LoadPhase, Loops};
use crate::event::EventBus;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::proxy::{self, Overload, SiteTable};
use crate::pulse::Pulse;
use crate::readiness::Readiness;
use crate::reload::{self, GatewayListeners, GatewayState};
use crate::service::start_gate::StartGate;
use crate::service::systemd;
use crate::shutdown::requested;
use crate::trace::Exporter;

/// The part of [`Readiness`] that is set until every listener is served.
pub(super) const START: &str = "start";

/// The edge with all listeners: one Pingora service, so that `server.threads` is what it says.
pub(super) struct EdgeService {
    pub(super) listeners: Arc<GatewayListeners>,
    pub(super) sites: Arc<ArcSwap<SiteTable>>,
    pub(super) stopping: ShutdownWatch,
    pub(super) readiness: Readiness,
    /// Beats on the runtime of this service.
    pub(super) pulse: Pulse,
    pub(super) gate: StartGate,
    pub(super) engine: Arc<Engine>,
    pub(super) state: Arc<GatewayState>,
}

#[async_trait]
impl Service for EdgeService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        tokio::spawn(self.pulse.clone().beat());
        // So that the first request finds its upstream's address.
        proxy::resolve_new(&self.sites.load_full()).await;
        // Clients that connect earlier wait in the listener's queue. Which sites are on plain HTTP
        // until they have a certificate is known only when all are loaded.
        let enough = if self.state.current().config.server.https_optional {
            LoadPhase::Done
        } else {
            LoadPhase::Listed
        };
        tokio::select! {
            () = self.engine.wait_until_loaded(enough) => {}
            () = requested(&mut self.stopping) => return,
        }
        self.listeners.accept();
        tokio::select! {
            () = self.gate.wait_until_open() => {
                self.readiness.set(START, None::<String>);
                systemd::ready();
            }
            () = requested(&mut self.stopping) => {}
        }
        requested(&mut self.stopping).await;
        self.listeners.close().await;
    }

    fn name(&self) -> &'static str {
        "edge"
    }
}

/// The engine's loops.
pub(super) struct EngineService {
    engine: Arc<Engine>,
    loops: Loops,
}

impl EngineService {
    pub(super) fn new(engine: Arc<Engine>, loops: Loops) -> Self {
        Self { engine, loops }
    }
}

#[async_trait]
impl BackgroundService for EngineService {
    async fn start(&self, _: ShutdownWatch) {
        Arc::clone(&self.engine).run(self.loops.clone()).await;
    }
}

/// What runs beside the edge, on a thread of its own.
pub(super) struct BackgroundTasksService {
    pub(super) tasks: Option<BackgroundTasks>,
    pub(super) stopping: ShutdownWatch,
}

pub(super) struct BackgroundTasks {
    pub(super) reload: reload::Task,
    pub(super) sites: Arc<ArcSwap<SiteTable>>,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) overload: Overload,
    pub(super) events: EventBus,
    pub(super) notifier: Arc<Notifier>,
    pub(super) exporter: Exporter,
    pub(super) admin: Option<(admin::Listener, axum::Router)>,
}

#[async_trait]
impl Service for BackgroundTasksService {
    async fn start_service(&mut self, _: Option<ListenFds>, end: ShutdownWatch, _: usize) {
        let Some(parts) = self.tasks.take() else {
            return;
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(parts.reload.run(self.stopping.clone()));
        tasks.spawn(parts.notifier.run(self.stopping.clone()));
        // To the end, since requests end until then.
        let (exporter, mut ended) = (parts.exporter, end.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = exporter.run() => {}
                () = requested(&mut ended) => {}
            }
        });
        let (sites, stopping) = (Arc::clone(&parts.sites), self.stopping.clone());
        tasks.spawn(proxy::resolve_loop(sites, stopping.clone()));
        tasks.spawn(proxy::token_key_loop(
            Arc::clone(&parts.sites),
            stopping.clone(),
        ));
        tasks.spawn(proxy::overload_loop(
            parts.overload,
            parts.readiness,
            stopping.clone(),
        ));
        tasks.spawn(proxy::health_loop(
            parts.sites,
            parts.metrics,
            parts.events,
            stopping,
        ));
        if let Some((listener, router)) = parts.admin {
            // To the very end, so that the gateway can be watched while it drains.
            tasks.spawn(admin::serve(listener, router, end));
        }
        tasks.join_all().await;
    }

    fn name(&self) -> &'static str {
        "beside"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
