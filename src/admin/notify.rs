//! A test of the recipients of notifications.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;

use super::actions::{Sent, parse_body};
use super::{AdminState, Problem};
use crate::notify::TestOutcome;

/// The body of a test.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Test {
    /// The recipient by its name; all of them if it is missing.
    name: Option<String>,
}

pub(super) async fn test(
    State(state): State<AdminState>,
    body: Sent,
) -> Result<Json<Vec<TestOutcome>>, Problem> {
    let Test { name } = parse_body(body, r#"{ "name": "webhook" }"#)?;
    let control = Arc::clone(&state.control);
    let outcomes = control.test_notifications(name.as_deref()).await;
    outcomes.map(Json).ok_or_else(|| {
        let name = name.unwrap_or_default();
        let detail = format!("no entry of 'events' is named {name}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}
