//! Pages for errors and for maintenance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Names, Switch};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum ErrorPage {
    File(String),
    Files(Vec<String>),
    More(ErrorPageFiles),
}

/// A page, and whose errors it is for.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["file"]))]
pub(crate) struct ErrorPageFiles {
    /// The file, or several of different media types.
    pub(crate) file: Names,
    /// Whether the page also replaces the bodies of such responses of servers.
    pub(crate) upstream: bool,
}

impl Default for ErrorPageFiles {
    fn default() -> Self {
        Self {
            file: Names::Several(Vec::new()),
            upstream: false,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Maintenance {
    Switch(Switch),
    On(MaintenanceOptions),
}

/// What clients get during maintenance.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MaintenanceOptions {
    /// From 400 to 599.
    pub(crate) status: u64,
    /// The file of the page. By default the error page of the status.
    pub(crate) file: Option<String>,
    /// The page as plain text, instead of a file.
    pub(crate) body: Option<String>,
    /// When clients may try again; `0s` tells them nothing.
    pub(crate) retry_after: Duration,
    /// Networks of clients that are served all the same, `10.0.0.0/8`.
    pub(crate) allow: Vec<String>,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            status: 503,
            file: None,
            body: None,
            retry_after: Duration::new("10m"),
            allow: Vec::new(),
        }
    }
}
