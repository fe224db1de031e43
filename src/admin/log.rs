//! The level of the gateway's own log, at run time.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{AdminState, Problem};

/// What `GET /api/v1/log` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct LogView {
    /// The level that is in force.
    pub level: String,
    /// The level as the configuration has it.
    pub configured: String,
}

/// What `PUT /api/v1/log` asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
}

pub(super) async fn show(State(state): State<AdminState>) -> Json<LogView> {
    Json(state.control.log())
}

pub(super) async fn set(
    State(state): State<AdminState>,
    body: Bytes,
) -> Result<Json<LogView>, Problem> {
    let Wanted { level } = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the body is not {{ \"level\": \"info\" }} or the like: {error}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    let changed = state.control.set_log_level(&level);
    changed.map(Json).map_err(|hint| {
        let shown: String = level.chars().take(80).collect();
        let detail = format!("{shown:?} is not a log level: {hint}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
}
