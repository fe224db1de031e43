//! The gateway's Pingora services: the edge, and what runs beside it.
//!
//! They begin and end tasks and decide nothing. The app puts them together.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::task::JoinSet;

use crate::admin;
use crate::challenge::{self, Challenges, DnsSolvers};
use crate::clock::Clock;
use crate::edge::Listener;
use crate::proxy::{self, SiteTable};
use crate::pulse::Pulse;
use crate::readiness::Readiness;
use crate::service::load::LoadPhase;
use crate::service::start_gate::StartGate;
use crate::service::state::{GatewayEdge, GatewayState};
use crate::service::{reload, systemd};
use crate::shutdown::requested;
use crate::storage::Storage;

/// The part of [`Readiness`] that speaks until every listener is served.
pub(super) const START: &str = "start";

/// The edge with all listeners: one Pingora service, so that `server.threads` is what it says.
pub(super) struct EdgeService {
    pub(super) edge: Arc<GatewayEdge>,
    pub(super) listeners: Vec<Listener>,
    pub(super) sites: Arc<ArcSwap<SiteTable>>,
    pub(super) stopping: ShutdownWatch,
    pub(super) readiness: Readiness,
    /// Beats on the runtime of this service.
    pub(super) pulse: Pulse,
    pub(super) gate: StartGate,
    pub(super) state: Arc<GatewayState>,
}

#[async_trait]
impl Service for EdgeService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        tokio::spawn(self.pulse.clone().beat());
        // So that the first request finds its upstream's address.
        proxy::resolve_due(&self.sites.load_full(), Duration::MAX).await;
        // Who connects before waits in the listener's queue. Which sites are on plain HTTP until they
        // have a certificate is known only when all are loaded.
        let enough = if self.state.current().config.server.https_optional {
            LoadPhase::Done
        } else {
            LoadPhase::Listed
        };
        tokio::select! {
            () = self.state.wait_until_loaded(enough) => {}
            () = requested(&mut self.stopping) => return,
        }
        let mut accepting = JoinSet::new();
        for listener in self.listeners.drain(..) {
            let (address, kind) = (listener.address(), listener.kind());
            tracing::info!(%address, ?kind, "listening");
            accepting.spawn(Arc::clone(&self.edge).run(listener, self.stopping.clone()));
        }
        tokio::select! {
            () = self.gate.wait_until_open() => {
                self.readiness.set(START, None::<String>);
                systemd::ready();
            }
            () = requested(&mut self.stopping) => {}
        }
        accepting.join_all().await;
    }

    fn name(&self) -> &'static str {
        "edge"
    }
}

/// What runs beside the edge, on a thread of its own.
pub(super) struct BackgroundTasksService {
    pub(super) parts: Option<BackgroundTasks>,
    pub(super) stopping: ShutdownWatch,
}

pub(super) struct BackgroundTasks {
    pub(super) task: reload::Task,
    pub(super) sites: Arc<ArcSwap<SiteTable>>,
    pub(super) challenges: Challenges,
    pub(super) dns: DnsSolvers,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) admin: Option<(admin::Listener, axum::Router)>,
}

#[async_trait]
impl Service for BackgroundTasksService {
    async fn start_service(&mut self, _: Option<ListenFds>, end: ShutdownWatch, _: usize) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(parts.task.run(self.stopping.clone()));
        tasks.spawn(proxy::resolve_loop(parts.sites, self.stopping.clone()));
        tasks.spawn(parts.dns.keep_clean(self.stopping.clone()));
        tasks.spawn(challenge::sync_with_storage(
            parts.challenges,
            parts.storage,
            parts.clock,
            self.stopping.clone(),
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
