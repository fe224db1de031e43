//! The result of a preflight of a name: whether it would get a certificate, and what prevents it.

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

/// The response to `POST /api/v1/certificates/NAME/check`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct PreflightView {
    pub name: String,
    /// Whether one of the issuers would issue a certificate, as far as can be seen from here.
    pub would_issue: bool,
    /// What the name belongs to, and whether any issuer is asked for it.
    pub note: String,
    /// In the order in which they are asked.
    pub issuers: Vec<IssuerPreflight>,
}

/// The findings about one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct IssuerPreflight {
    pub issuer: String,
    pub would_issue: bool,
    pub findings: Vec<Finding>,
}

/// Where the CA would connect, if not to the usual ports.
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
    // In its own task: a client that disconnects leaves no challenge response behind.
    let tried = tokio::spawn(async move { state.control.preflight(pattern, ports).await });
    tried.await.map(Json).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the check was interrupted by a bug. See the log",
        )
    })
}
