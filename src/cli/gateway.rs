//! What the command line needs of the gateway, in one place.

use std::path::Path;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::client::Address;
use super::failure::Failure;
use super::output::Output;
use crate::secret::Secret;

/// What a check found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sites: usize,
    pub(super) certificates: usize,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// A mistake or an oddity, for people and for programs.
#[derive(Debug)]
pub(super) struct Finding {
    /// `FILE:LINE:COLUMN: what, why, what to do`.
    pub(super) text: String,
    pub(super) json: Value,
}

/// Where a configuration says that the admin interface is.
#[expect(dead_code, reason = "until a configuration can be loaded")]
#[derive(Debug)]
pub(super) enum AdminPlace {
    At(Address, Option<Secret>),
    Off,
    /// The configuration cannot be loaded.
    Unknown,
}

/// Checks all that `run` would load.
pub(super) fn check(config: &Path) -> Report {
    // SEAM: config::load and TlsManager::check.
    let message = "this build cannot load a configuration";
    Report {
        errors: vec![Finding {
            text: format!("{}:1:1: {message}", config.display()),
            json: json!({ "file": config, "line": 1, "column": 1, "message": message }),
        }],
        ..Report::default()
    }
}

/// Where the gateway that runs with `config` takes commands.
pub(super) fn admin(_config: &Path) -> AdminPlace {
    // SEAM: config::load, then server.admin and server.admin_token.
    AdminPlace::Unknown
}

/// The JSON schema of the configuration.
pub(super) fn schema() -> Value {
    // SEAM: config::schema.
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema" })
}

/// Runs the gateway until it is told to stop.
pub(super) fn run(_output: &Output, _config: &Path) -> Result<(), Failure> {
    // SEAM: app::run; diagnostics go through output.mistake and end as Failure::Invalid.
    Err(anyhow!("this build cannot run a gateway").into())
}

/// The root certificate of the configured local CA, PEM; it is made where there is none yet.
pub(super) fn local_ca_root(_config: &Path) -> Result<String, Failure> {
    // SEAM: config::load, Storage, LocalCa::open, root_pem.
    Err(anyhow!("this build has no local CA").into())
}
