//! What a preflight of a name found: whether it would get a certificate, and what prevents it.

use std::num::NonZeroU16;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::api::{Named, named};
use super::{AdminState, Problem};
use crate::host::Pattern;
use crate::issuer::{Finding, Ports};

/// What `POST /api/v1/certificates/NAME/check` answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct PreflightView {
    pub name: String,
    /// Whether one of the issuers would give a certificate, as far as can be seen from here.
    pub would_issue: bool,
    /// What has the name, and whether that makes anybody be asked.
    pub note: String,
    /// In the order in which they are asked.
    pub issuers: Vec<IssuerPreflight>,
}

/// What was found of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct IssuerPreflight {
    pub issuer: String,
    pub would_issue: bool,
    pub findings: Vec<Finding>,
}

/// Where the CA would look, if not at the usual ports.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreflightQuery {
    http_port: Option<NonZeroU16>,
    https_port: Option<NonZeroU16>,
}

pub(super) async fn check(
    State(state): State<AdminState>,
    name: Named,
    asked: Result<Query<PreflightQuery>, QueryRejection>,
) -> Result<Json<PreflightView>, Problem> {
    let name = named(name)?;
    let Query(asked) = asked.map_err(|why| Problem::new(why.status(), why.body_text()))?;
    let pattern = match name.parse() {
        Ok(Pattern::Any) | Err(_) => {
            let detail = format!("a certificate cannot be issued for {name}");
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        Ok(pattern) => pattern,
    };
    let usual = Ports::default();
    let ports = Ports {
        http: asked.http_port.map_or(usual.http, NonZeroU16::get),
        https: asked.https_port.map_or(usual.https, NonZeroU16::get),
    };
    // In a task of its own: a client that goes away leaves no proof behind.
    let tried = tokio::spawn(async move { state.control.preflight(pattern, ports).await });
    tried.await.map(Json).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the check was interrupted by a bug. See the log",
        )
    })
}
