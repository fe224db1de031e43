//! The handlers: each asks the gateway one thing and turns the result into HTTP.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{Method, StatusCode, Uri, header};
use serde_json::json;

use super::access::Trusted;
use super::certificate::nearest;
use super::connection::Connection;
use super::{
    AdminState, CertificateView, Control, Problem, ReloadError, ReloadSummary, RenewError,
    SiteView, Status, find,
};

use crate::printable::Printable as _;

/// Asks the data plane: an admin interface that responds says nothing about the threads that serve
/// clients.
pub(super) async fn healthz(State(state): State<AdminState>) -> Result<&'static str, Problem> {
    match state.pulse.feel().await {
        Ok(()) => Ok("ok\n"),
        Err(silence) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "the data plane is stuck: its threads have made no progress for {} s; restart the \
                 gateway",
                silence.as_secs()
            ),
        )),
    }
}

/// Anyone may know whether to send traffic here; the reasons are for those who may read the rest.
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

pub(super) async fn status(State(state): State<AdminState>) -> Json<Status> {
    Json(state.control.status())
}

pub(super) async fn sites(State(state): State<AdminState>) -> Json<Vec<SiteView>> {
    Json(state.control.sites())
}

pub(super) async fn certificates(
    State(state): State<AdminState>,
) -> Result<Json<Vec<CertificateView>>, Problem> {
    list_certificates(&state).await.map(Json)
}

/// Every certificate.
pub(super) async fn list_certificates(state: &AdminState) -> Result<Vec<CertificateView>, Problem> {
    run_blocking(state, |control| Ok(control.certificates())).await
}

/// The name at the end of a path.
pub(super) type Named = Result<Path<String>, PathRejection>;

pub(super) fn named(name: Named) -> Result<String, Problem> {
    name.map(|Path(name)| name)
        .map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))
}

pub(super) async fn certificate(
    State(state): State<AdminState>,
    name: Named,
) -> Result<Json<CertificateView>, Problem> {
    let name = named(name)?;
    run_blocking(&state, move |control| {
        let mut view = found(&control.certificates(), &name)?;
        view.chain = view
            .fingerprint
            .as_ref()
            .and_then(|fingerprint| control.chain(fingerprint));
        Ok(Json(view))
    })
    .await
}

pub(super) async fn renew(
    State(state): State<AdminState>,
    name: Named,
) -> Result<Response, Problem> {
    let name = named(name)?;
    run_blocking(&state, move |control| ask_issuers(control, &name, true)).await
}

pub(super) async fn obtain(
    State(state): State<AdminState>,
    name: Named,
) -> Result<Response, Problem> {
    let name = named(name)?;
    run_blocking(&state, move |control| ask_issuers(control, &name, false)).await
}

/// 202 if issuers are asked, 200 if there is nothing to request.
fn ask_issuers(control: &dyn Control, name: &str, force: bool) -> Result<Response, Problem> {
    let view = found(&control.certificates(), name)?;
    let Some(renewal) = &view.renewal else {
        return Err(Problem::new(StatusCode::CONFLICT, unmanaged_reason(&view)));
    };
    if !force && view.is_usable() {
        return Ok(Json(view).into_response());
    }
    match control.renew(&renewal.subject, force) {
        Ok(view) => Ok((StatusCode::ACCEPTED, Json(view)).into_response()),
        Err(RenewError::Unknown) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("the certificate for {name} is no longer needed"),
        )),
        Err(RenewError::Refused(why)) => Err(Problem::new(StatusCode::CONFLICT, why)),
        Err(RenewError::Unavailable(why)) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

/// Why no issuer can be asked for a certificate, and what to do.
fn unmanaged_reason(view: &CertificateView) -> String {
    let name = &view.name;
    match &view.file {
        Some(file) => format!(
            "the certificate for {name} comes from {}, not from an issuer: replace the file, which \
             is loaded at once",
            file.printable()
        ),
        None => format!(
            "no issuer is configured that can issue a certificate for {name}: add one under \
             'issuers', or the certificate under 'certificates'"
        ),
    }
}

pub(super) fn found(views: &[CertificateView], name: &str) -> Result<CertificateView, Problem> {
    if let Some(view) = find(views, name) {
        return Ok(view.clone());
    }
    let nearest = nearest(views, name);
    let detail = if nearest.is_empty() {
        format!("there is no certificate for {name}")
    } else {
        format!(
            "there is no certificate for {name}; did you mean {}?",
            nearest.join(" or ")
        )
    };
    Err(Problem::new(StatusCode::NOT_FOUND, detail).with("nearest", nearest))
}

/// Runs a query that may block: it waits for a reload in progress, and thousands of certificates
/// take time. The probes must not.
pub(super) async fn run_blocking<T: Send + 'static>(
    state: &AdminState,
    question: impl FnOnce(&dyn Control) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let control = Arc::clone(&state.control);
    tokio::task::spawn_blocking(move || question(&*control))
        .await
        .unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot list the certificates. See the log",
            ))
        })
}

pub(super) async fn reload(
    State(state): State<AdminState>,
) -> Result<Json<ReloadSummary>, Problem> {
    // In its own task: a client that disconnects does not leave a reload half done.
    let control = Arc::clone(&state.control);
    let done = tokio::spawn(async move { control.reload().await }).await;
    match done {
        Ok(Ok(summary)) => Ok(Json(summary)),
        Ok(Err(ReloadError::Rejected(diagnostics))) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "the configuration is refused; the running one stays in force",
        )
        .with("errors", diagnostics)),
        Ok(Err(ReloadError::Unavailable(why))) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the reload was interrupted by a bug; the running configuration stays in force. See \
             the log",
        )),
    }
}

/// Closes the connection; the stop begins when it ends.
pub(super) async fn stop(
    State(state): State<AdminState>,
    Extension(connection): Extension<Connection>,
) -> Response {
    connection.stop_at_end(state.control);
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
        format!("{} does not accept {method}", uri.path()),
    )
}
