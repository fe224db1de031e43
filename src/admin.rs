//! The admin HTTP interface: health, metrics, and the API that the command line speaks.
//!
//! | path | answers |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200, or 503 and what it waits for |
//! | `GET /metrics` | every metric in Prometheus's text format |
//! | `GET /api/v1/status` `/sites` `/certificates` | what runs, as JSON; never a private key |
//! | `POST /api/v1/reload` | reads the configuration again, waits and reports |
//! | `POST /api/v1/stop` | begins a graceful stop |
//!
//! It knows nothing of the gateway behind it: [`Control`] is all it can ask for. Errors are
//! `application/problem+json` (RFC 9457).

mod access;
mod api;
mod farewell;
mod listener;
mod problem;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::routing::{get, post};

pub use access::Place;
pub use listener::{BindError, Listener, serve};
pub use problem::Problem;
pub use view::{CertificateView, LastReload, ReloadSummary, RouteView, SiteView, Status, time};

use crate::metrics::Metrics;
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

    /// Every certificate that is served. May block for as long as a reload takes.
    fn certificates(&self) -> Vec<CertificateView>;

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

/// What the admin interface works with.
#[derive(Clone)]
pub struct AdminState {
    pub control: Arc<dyn Control>,
    pub metrics: Metrics,
    pub readiness: Readiness,
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
        .route("/api/v1/reload", post(api::reload))
        .route("/api/v1/stop", post(api::stop))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(
            state.clone(),
            access::guard,
        ))
        .with_state(state)
}

#[cfg(test)]
mod tests;
