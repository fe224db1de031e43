//! The admin HTTP interface: health, metrics, and the API that the command line uses.
//!
//! | path | answers |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives and its data plane works, else 503 |
//! | `GET /readyz` | 200, or 503 and what it waits for |
//! | `GET /metrics` | every metric, as OpenMetrics or in Prometheus's text format |
//! | `GET /api/v1/status` `/sites` `/upstreams` `/certificates` | what is running, as JSON; never a private key |
//! | `GET /api/v1/certificates/NAME` | the certificate for a name, with its chain |
//! | `POST /api/v1/upstreams/NAME/servers/ADDRESS/drain` `/resume` | lets a server get no new requests, or get them again |
//! | `POST /api/v1/certificates/NAME/renew` `/obtain` | requests it now; `obtain` only if none is valid |
//! | `POST /api/v1/certificates/NAME/check` | checks whether it would get one, without requesting it |
//! | `POST /api/v1/certificates/NAME/revoke` | has it revoked and replaced |
//! | `GET /api/v1/issuers` `/issuers/NAME/account` | the issuers, and the account at one |
//! | `POST /api/v1/issuers/NAME/account/TASK` | works on it: `create`, `rollover`, `contact`, `deactivate` |
//! | `GET /api/v1/events` | past and new events, as server-sent events |
//! | `POST /api/v1/events/test` | sends a test notification to each recipient, waits and reports |
//! | `GET` `PUT /api/v1/log` | the level of the gateway's own log, and another one |
//! | `POST /api/v1/reload` | reads the configuration again, waits and reports |
//! | `POST /api/v1/stop` | begins a graceful stop |
//!
//! All it knows of the gateway is [`Control`]. Errors are
//! `application/problem+json` (RFC 9457).

mod access;
mod actions;
mod api;
mod certificate;
mod connection;
mod events;
mod listener;
mod log;
mod metrics;
mod notify;
mod preflight;
mod problem;
mod upstream;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router};

pub use access::Place;
pub use actions::{AccountView, IssuerView};
pub use certificate::{
    AdviceView, CertificateState, CertificateView, ChainEnd, FailureView, FindingView, HeldView,
    LastFailure, Managed, RenewalView, StapleView, find,
};
pub use events::EventView;
pub use listener::{BindError, Listener, serve};
pub use log::LogView;
pub use preflight::{IssuerPreflight, PreflightView};
pub use problem::Problem;
pub use upstream::{DrainView, ServerView, UpstreamView};
pub use view::{LastReload, ListenerView, ReloadSummary, RouteView, SiteView, Status, time};

use crate::event::EventBus;
use crate::host::Pattern;
use crate::issuer::{AccountFacts, AccountTask, Ports, RevocationReason};
use crate::metrics::Metrics;
use crate::notify::TestOutcome;
use crate::pulse::Pulse;
use crate::readiness::Readiness;
use crate::renewal::ActionError;
use crate::secret::Secret;

/// What the admin interface can ask of the gateway.
#[async_trait]
pub trait Control: Send + Sync {
    /// The token that clients must present, as configured now.
    fn token(&self) -> Option<Secret>;

    /// What runs, and since when.
    fn status(&self) -> Status;

    /// Every site, in the order of the configuration.
    fn sites(&self) -> Vec<SiteView>;

    /// Every upstream, by name, with the state of its servers.
    fn upstreams(&self) -> Vec<UpstreamView>;

    /// Drains a server of an upstream, by its name in the configuration or an address, or resumes
    /// it. Returns whether there is one.
    fn set_drained(&self, upstream: &str, server: &str, is_drained: bool) -> bool;

    /// Every certificate that is or should be served. May block for as long as a reload takes.
    fn certificates(&self) -> Vec<CertificateView>;

    /// The certificates that clients are sent, in PEM, if the first of them has this fingerprint.
    /// May block.
    fn chain(&self, fingerprint: &str) -> Option<String>;

    /// Requests the certificate with this [`RenewalView::subject`] immediately, whatever the
    /// schedule says; if one is valid, only with `force`. Returns its state, and does not wait for
    /// the issuer. May block.
    ///
    /// # Errors
    /// Why no issuer is asked.
    fn renew(&self, subject: &str, force: bool) -> Result<CertificateView, RenewError>;

    /// Checks whether `name` would get a certificate, without requesting one. Takes as long as
    /// challenge responses take to become visible.
    async fn preflight(&self, name: Pattern, ports: Ports) -> PreflightView;

    /// Has the certificate with this fingerprint revoked, waits for the CA, and has it replaced if
    /// issuers are configured for it. Returns true if an issuer is asked. Runs to its end even if
    /// the client has gone.
    async fn revoke(
        &self,
        fingerprint: &str,
        reason: RevocationReason,
    ) -> Result<bool, ActionError>;

    /// Every issuer, in the order of the configuration.
    fn issuers(&self) -> Vec<IssuerView>;

    /// Carries out a task on an issuer's account, waits for the CA, and returns the state of the
    /// account.
    async fn account(&self, issuer: &str, task: AccountTask) -> Result<AccountFacts, ActionError>;

    /// The events of certificates and the storage.
    fn events(&self) -> EventBus;

    /// Sends a test notification to every recipient, or to the one of this name, and waits. `None` if
    /// there is none of that name.
    async fn test_notifications(&self, hook: Option<&str>) -> Option<Vec<TestOutcome>>;

    /// The level of the gateway's own log.
    fn log(&self) -> LogView;

    /// Changes that level, until the next start or a reload with another one.
    ///
    /// # Errors
    /// Why it is no level.
    fn set_log_level(&self, level: &str) -> Result<LogView, String>;

    /// Reads the configuration again and applies it, or keeps the old one. Runs to its end even if
    /// the client has gone.
    async fn reload(&self) -> Result<ReloadSummary, ReloadError>;

    /// Begins a graceful stop and returns immediately.
    fn stop(&self);
}

/// Why a reload did not happen.
#[derive(Clone, Debug, PartialEq)]
pub enum ReloadError {
    /// The new configuration is invalid, or this machine cannot do what it asks: why, as JSON. The old one stays in force.
    Rejected(Vec<serde_json::Value>),
    /// The gateway cannot reload now, for this reason.
    Unavailable(String),
}

/// Why an issuer is not asked for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewError {
    /// No certificate is known by this name.
    Unknown,
    /// It cannot be requested, for this reason.
    Refused(String),
    /// The gateway cannot request it now, for this reason.
    Unavailable(String),
}

/// The state of the admin interface.
#[derive(Clone)]
pub struct AdminState {
    pub control: Arc<dyn Control>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// The pulse of the runtime that serves clients.
    pub pulse: Pulse,
    /// Where the interface listens, which decides which `Host` it accepts.
    pub place: Place,
}

/// All routes of the admin interface.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/sites", get(api::sites))
        .route("/api/v1/upstreams", get(upstream::upstreams))
        .route(
            "/api/v1/upstreams/{name}/servers/{address}/drain",
            post(upstream::drain),
        )
        .route(
            "/api/v1/upstreams/{name}/servers/{address}/resume",
            post(upstream::resume),
        )
        .route("/api/v1/certificates", get(api::certificates))
        .route("/api/v1/certificates/{name}", get(api::certificate))
        .route("/api/v1/certificates/{name}/renew", post(api::renew))
        .route("/api/v1/certificates/{name}/obtain", post(api::obtain))
        .route("/api/v1/certificates/{name}/check", post(preflight::check))
        .route("/api/v1/certificates/{name}/revoke", post(actions::revoke))
        .route("/api/v1/issuers", get(actions::issuers))
        .route("/api/v1/issuers/{name}/account", get(actions::account))
        .route(
            "/api/v1/issuers/{name}/account/{task}",
            post(actions::account_task),
        )
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/events/test", post(notify::test))
        .route("/api/v1/log", get(log::show).put(log::set))
        .route("/api/v1/reload", post(api::reload))
        .route("/api/v1/stop", post(api::stop))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .layer(DefaultBodyLimit::max(access::MAX_BODY))
        .layer(Extension(events::Subscribers::default()))
        .layer(Extension(metrics::Room::default()))
        .layer(axum::middleware::from_fn_with_state(
            state.clone(),
            access::guard,
        ))
        .with_state(state)
}

#[cfg(test)]
mod tests;
