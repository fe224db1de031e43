//! The handlers: each asks the gateway one thing and puts the answer into HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{Method, StatusCode, Uri, header};
use serde_json::json;

use super::access::Trusted;
use super::farewell::Farewell;
use super::{AdminState, CertificateView, Problem, ReloadError, ReloadSummary, SiteView, Status};

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Anyone may know whether to send traffic here; why not is for those who may read the rest.
pub(super) async fn readyz(
    State(state): State<AdminState>,
    Extension(Trusted(trusted)): Extension<Trusted>,
) -> Response {
    let reasons = state.readiness.reasons();
    if reasons.is_empty() {
        return Json(json!({ "ready": true })).into_response();
    }
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready for traffic").with("ready", false);
    if trusted {
        problem.with("waiting", json!(reasons)).into_response()
    } else {
        problem.into_response()
    }
}

pub(super) async fn metrics(State(state): State<AdminState>) -> Result<Response, Problem> {
    match state.metrics.render() {
        Ok(text) => {
            let kind = (
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            );
            Ok(([kind], text).into_response())
        }
        Err(error) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be encoded: {error}"),
        )),
    }
}

pub(super) async fn status(State(state): State<AdminState>) -> Json<Status> {
    Json(state.control.status())
}

pub(super) async fn sites(State(state): State<AdminState>) -> Json<Vec<SiteView>> {
    Json(state.control.sites())
}

pub(super) async fn certificates(
    State(state): State<AdminState>,
) -> Result<Json<Vec<CertificateView>>, Problem> {
    // It waits for a reload that is under way, and thousands take their time: the probes must not.
    let listed = tokio::task::spawn_blocking(move || state.control.certificates()).await;
    listed.map(Json).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the certificates cannot be listed. See the log",
        )
    })
}

pub(super) async fn reload(
    State(state): State<AdminState>,
) -> Result<Json<ReloadSummary>, Problem> {
    // In a task of its own: a client that goes away does not leave a reload half done.
    let control = Arc::clone(&state.control);
    let done = tokio::spawn(async move { control.reload().await }).await;
    match done {
        Ok(Ok(summary)) => Ok(Json(summary)),
        Ok(Err(ReloadError::Rejected(diagnostics))) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "the configuration is invalid; the running one stays in force",
        )
        .with("errors", diagnostics)),
        Ok(Err(ReloadError::Unavailable(why))) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the reload broke off; the running configuration stays in force. See the log",
        )),
    }
}

/// Closes the connection, whose end is the beginning of the stop.
pub(super) async fn stop(
    State(state): State<AdminState>,
    Extension(farewell): Extension<Farewell>,
) -> Response {
    farewell.stop(state.control);
    let close = [(header::CONNECTION, "close")];
    (
        StatusCode::ACCEPTED,
        close,
        Json(json!({ "stopping": true })),
    )
        .into_response()
}

pub(super) async fn not_found(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", uri.path()),
    )
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
    )
}
