//! The admin HTTP interface: health, metrics, and the API that the command line speaks.
//!
//! | path | answers |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives and its data plane does its work, else 503 |
//! | `GET /readyz` | 200, or 503 and what it waits for |
//! | `GET /metrics` | every metric in Prometheus's text format |
//! | `GET /api/v1/status` `/sites` `/certificates` | what runs, as JSON; never a private key |
//! | `GET /api/v1/certificates/NAME` | the certificate for a name, with its chain |
//! | `POST /api/v1/certificates/NAME/renew` `/obtain` | has it asked for now; `obtain` only where none is valid |
//! | `POST /api/v1/certificates/NAME/check` | whether it would get one, found out without asking for it |
//! | `POST /api/v1/certificates/NAME/revoke` | has it revoked, and another obtained in its place |
//! | `GET /api/v1/issuers` `/issuers/NAME/account` | who issues certificates, and the account there |
//! | `POST /api/v1/issuers/NAME/account/TASK` | looks after it: `create`, `rollover`, `contact`, `deactivate` |
//! | `GET /api/v1/events` | what happened and what happens, as server-sent events |
//! | `POST /api/v1/reload` | reads the configuration again, waits and reports |
//! | `POST /api/v1/stop` | begins a graceful stop |
//!
//! It knows nothing of the gateway behind it: [`Control`] is all it can ask for. Errors are
//! `application/problem+json` (RFC 9457).

mod access;
mod actions;
mod api;
mod certificate;
mod connection;
mod events;
mod listener;
mod preflight;
mod problem;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router};

pub use access::Place;
pub use actions::{AccountView, IssuerView};
pub use certificate::{
    AdviceView, CertificateState, CertificateView, ChainEnd, FailureView, HeldView, LastFailure,
    Managed, RenewalView, find,
};
pub use events::EventView;
pub use listener::{BindError, Listener, serve};
pub use preflight::{IssuerPreflight, PreflightView};
pub use problem::Problem;
pub use view::{LastReload, ReloadSummary, RouteView, SiteView, Status, time};

use crate::event::EventBus;
use crate::host::Pattern;
use crate::issuer::{AccountFacts, AccountTask, Ports, RevocationReason};
use crate::manager::ActionError;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::readiness::Readiness;
use crate::secret::Secret;

/// What the admin interface can ask of the gateway.
#[async_trait]
pub trait Control: Send + Sync {
    /// The token that clients must show, as configured now.
    fn token(&self) -> Option<Secret>;

    /// What runs, and since when.
    fn status(&self) -> Status;

    /// Every site, in the order of the configuration.
    fn sites(&self) -> Vec<SiteView>;

    /// Every certificate that is served or ought to be. May block for as long as a reload takes.
    fn certificates(&self) -> Vec<CertificateView>;

    /// The certificates that clients are sent, PEM, where the first of them has this fingerprint.
    /// May block.
    fn chain(&self, fingerprint: &str) -> Option<String>;

    /// Has the certificate with this [`RenewalView::subject`] asked for at once, whatever the
    /// schedule says; where one is valid only by `force`. Returns how it stands, and does not wait
    /// for the issuer. May block.
    ///
    /// # Errors
    /// Why nobody is asked.
    fn renew(&self, subject: &str, force: bool) -> Result<CertificateView, RenewError>;

    /// Tries whether `name` would get a certificate, without asking for one. Takes as long as
    /// proofs take to be seen.
    async fn preflight(&self, name: Pattern, ports: Ports) -> PreflightView;

    /// Has the certificate with this fingerprint revoked, waits for the CA, and has another one
    /// obtained in its place where one is asked for. Whether a CA is asked. Runs to its end even
    /// where the client that asked for it has gone.
    async fn revoke(
        &self,
        fingerprint: &str,
        reason: RevocationReason,
    ) -> Result<bool, ActionError>;

    /// Every issuer, in the order of the configuration.
    fn issuers(&self) -> Vec<IssuerView>;

    /// Looks after the account of an issuer, waits for the CA, and tells how it stands then.
    async fn account(&self, issuer: &str, task: AccountTask) -> Result<AccountFacts, ActionError>;

    /// What happens to certificates.
    fn events(&self) -> EventBus;

    /// Reads the configuration again and takes it, or keeps the old one. Runs to its end even
    /// where the client that asked for it has gone.
    async fn reload(&self) -> Result<ReloadSummary, ReloadError>;

    /// Begins a graceful stop and returns at once.
    fn stop(&self);
}

/// Why a reload did not happen.
#[derive(Clone, Debug, PartialEq)]
pub enum ReloadError {
    /// The new configuration is invalid: its diagnostics as JSON. The old one goes on.
    Rejected(Vec<serde_json::Value>),
    /// The gateway cannot reload now, and why.
    Unavailable(String),
}

/// Why an issuer is not asked for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewError {
    /// No certificate is known by this.
    Unknown,
    /// It cannot be asked for, and why.
    Refused(String),
    /// The gateway cannot ask now, and why.
    Unavailable(String),
}

/// What the admin interface works with.
#[derive(Clone)]
pub struct AdminState {
    pub control: Arc<dyn Control>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// Of the runtime that serves.
    pub pulse: Pulse,
    /// Where the interface listens, which decides which `Host` it answers to.
    pub place: Place,
}

/// All routes of the admin interface.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .route("/metrics", get(api::metrics))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/sites", get(api::sites))
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
        .route("/api/v1/reload", post(api::reload))
        .route("/api/v1/stop", post(api::stop))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .layer(DefaultBodyLimit::max(access::MAX_BODY))
        .layer(Extension(events::Subscribers::default()))
        .layer(axum::middleware::from_fn_with_state(
            state.clone(),
            access::guard,
        ))
        .with_state(state)
}

#[cfg(test)]
mod tests;
