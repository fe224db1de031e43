//! What the admin interface can ask of this gateway.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::admin::{
    CertificateView, Control, LastReload, ReloadError, ReloadSummary, SiteView, Status,
};
use crate::clock::{Clock, UnixTime};
use crate::secret::Secret;
use crate::service::live::{GatewayEdge, Live, Refused, Reloaded};
use crate::service::reload::Reloader;
use crate::service::stop::Stopper;

/// The gateway as the admin interface sees it.
pub(super) struct AppControl {
    live: Arc<Live>,
    edge: Arc<GatewayEdge>,
    clock: Arc<dyn Clock>,
    started: UnixTime,
    reloader: Reloader,
    stopper: Stopper,
}

impl AppControl {
    pub(super) fn new(
        live: Arc<Live>,
        edge: Arc<GatewayEdge>,
        clock: Arc<dyn Clock>,
        reloader: Reloader,
        stopper: Stopper,
    ) -> Self {
        Self {
            live,
            edge,
            started: clock.now(),
            clock,
            reloader,
            stopper,
        }
    }
}

#[async_trait]
impl Control for AppControl {
    fn token(&self) -> Option<Secret> {
        self.live.current().config.server.admin_token.clone()
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            uptime_seconds: self.clock.now().saturating_sub(self.started),
            connections: self.edge.open_connections() as u64,
            config_file: self.live.file().to_owned(),
            last_reload: self.live.last().map(|outcome| LastReload {
                at: outcome.at,
                taken: outcome.refused.is_none(),
                errors: outcome.refused.as_ref().map(errors).unwrap_or_default(),
            }),
        }
    }

    fn sites(&self) -> Vec<SiteView> {
        let current = self.live.current();
        let sites = current.config.sites.iter();
        sites.map(|site| SiteView::from(&**site)).collect()
    }

    fn certificates(&self) -> Vec<CertificateView> {
        let certificates = self.live.certificates();
        let views = certificates.iter().map(|one| CertificateView::from(&**one));
        views.collect()
    }

    async fn reload(&self) -> Result<ReloadSummary, ReloadError> {
        match self.reloader.reload().await {
            Some(Ok(reloaded)) => Ok(summary(reloaded)),
            Some(Err(refused)) => Err(ReloadError::Rejected(errors(&refused))),
            None => Err(ReloadError::Unavailable(
                "the gateway is stopping".to_owned(),
            )),
        }
    }

    fn stop(&self) {
        self.stopper.stop();
    }
}

fn summary(reloaded: Reloaded) -> ReloadSummary {
    let warnings = reloaded.warnings.iter().map(|warning| json!(warning));
    let problems = reloaded
        .problems
        .iter()
        .map(|problem| json!({ "message": problem }));
    ReloadSummary {
        sites: reloaded.sites,
        certificates: reloaded.certificates,
        warnings: warnings.chain(problems).collect(),
        restart_needed: reloaded
            .restart_needed
            .into_iter()
            .map(str::to_owned)
            .collect(),
    }
}

fn errors(refused: &Refused) -> Vec<Value> {
    match refused {
        Refused::Invalid(diagnostics) => diagnostics.errors().map(|error| json!(error)).collect(),
        Refused::Unable(why) => vec![json!({ "message": why })],
    }
}
