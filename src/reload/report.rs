//! The outcome of a reload, and what is logged about it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::config::{Diagnostic, Diagnostics};
use crate::event::{Event, EventKind, Severity};
use crate::printable::{Printable as _, one_line};
use crate::service::systemd;

/// How the last reload went.
#[derive(Clone, Debug)]
pub struct ReloadOutcome {
    pub at: UnixTime,
    /// Why it was refused; `None` if it was applied.
    pub refused: Option<ReloadError>,
}

/// A reload that was applied.
#[derive(Clone, Debug)]
pub struct ReloadReport {
    pub sites: usize,
    pub certificates: usize,
    /// What is odd about the configuration.
    pub warnings: Vec<Diagnostic>,
    /// What is wrong or odd with single certificates, for people.
    pub problems: Vec<String>,
    /// Keys whose change waits for a restart.
    pub restart_needed: Vec<&'static str>,
}

/// Why a reload was refused; nothing has changed.
#[derive(Clone, Debug)]
pub enum ReloadError {
    Invalid(Arc<Diagnostics>),
    /// The configuration is valid, but this machine cannot do what it asks.
    Unable(String),
}

impl fmt::Display for ReloadError {
    /// The first reason, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let diagnostics = match self {
            Self::Invalid(diagnostics) => diagnostics,
            Self::Unable(why) => return f.write_str(why),
        };
        let mut errors = diagnostics.errors();
        if let Some(first) = errors.next() {
            write!(f, "{first}")?;
        }
        match errors.count() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

/// How long each is at most, in characters.
const MAX_ERROR: usize = 300;

/// How many errors the event of a rejected configuration has.
const EVENT_ERRORS: usize = 5;

/// The event of a reload at `at`.
pub(super) fn event(at: UnixTime, outcome: &Result<ReloadReport, ReloadError>) -> Event {
    let (kind, severity, message) = match outcome {
        Ok(reloaded) => {
            let restart = match reloaded.restart_needed.as_slice() {
                [] => String::new(),
                keys => format!(
                    "; these keys take effect at the next start: {}",
                    keys.join(", ")
                ),
            };
            let message = format!(
                "the changed configuration is in use; sites: {}, certificates: {}, warnings: {}{restart}",
                reloaded.sites,
                reloaded.certificates,
                reloaded.warnings.len() + reloaded.problems.len(),
            );
            (EventKind::ConfigReloaded, Severity::Info, message)
        }
        Err(refused) => {
            let message = format!(
                "the changed configuration has errors, the one before it stays in use: {}",
                refused.first_errors(EVENT_ERRORS)
            );
            (EventKind::ConfigRejected, Severity::Error, message)
        }
    };
    Event::new(at, kind, severity, "", message)
}

impl ReloadError {
    /// The first errors with their places, and how many more there are.
    fn first_errors(&self, count: usize) -> String {
        let diagnostics = match self {
            Self::Invalid(diagnostics) => diagnostics,
            Self::Unable(why) => return why.clone(),
        };
        let mut errors = diagnostics.errors();
        let first: Vec<String> = errors.by_ref().take(count).map(describe).collect();
        let more = match errors.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        format!("{}{more}", first.join("; "))
    }
}

/// One error on one line.
fn describe(error: &Diagnostic) -> String {
    one_line(&error.to_string(), MAX_ERROR)
}

/// Logs how a reload of `file` went, and has systemd show it.
pub(super) fn log_outcome(file: &Path, outcome: &Result<ReloadReport, ReloadError>) {
    systemd::reloaded(outcome.as_ref().err().map(ToString::to_string));
    match outcome {
        Ok(reloaded) => {
            tracing::info!(
                file = %file.printable(),
                sites = reloaded.sites,
                certificates = reloaded.certificates,
                "configuration reloaded"
            );
            for key in &reloaded.restart_needed {
                tracing::warn!(key, "this change takes effect at the next start");
            }
            for warning in &reloaded.warnings {
                tracing::warn!("{warning}");
            }
        }
        Err(ReloadError::Invalid(diagnostics)) => {
            for error in diagnostics.errors() {
                tracing::error!("configuration refused, the old one stays in force: {error}");
            }
        }
        Err(ReloadError::Unable(why)) => {
            tracing::error!("configuration refused, the old one stays in force: {why}");
        }
    }
}

/// The keys that differ and that only a start applies.
pub(super) fn restart_needed(start: &Config, new: &Config) -> Vec<&'static str> {
    let (old, new_server) = (&start.server, &new.server);
    [
        ("server.admin", old.admin != new_server.admin),
        ("server.threads", old.threads != new_server.threads),
        ("server.user", old.user != new_server.user),
        ("storage", start.storage != new.storage),
        (
            "certificates_in_memory",
            start.certificates_in_memory != new.certificates_in_memory,
        ),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
