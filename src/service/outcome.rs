//! How a reload went, for logs and for whoever asked for it.

use std::sync::Arc;

use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::config::{self, Diagnostics};

/// How the last reload went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub at: UnixTime,
    /// Why it was refused; `None` where it was taken.
    pub refused: Option<Refused>,
}

/// A reload that was taken.
#[derive(Clone, Debug)]
pub struct Reloaded {
    pub sites: usize,
    pub certificates: usize,
    /// What is odd about the configuration.
    pub warnings: Vec<config::Diagnostic>,
    /// What is wrong or odd with single certificates, for people.
    pub problems: Vec<String>,
    /// Keys whose change waits for a restart.
    pub restart_needed: Vec<&'static str>,
}

/// Why a reload was refused; nothing has changed.
#[derive(Clone, Debug)]
pub enum Refused {
    Invalid(Arc<Diagnostics>),
    /// The configuration is valid, but this machine cannot do what it asks.
    Unable(String),
}

/// The keys that differ and that only a start applies.
pub(super) fn restart_needed(start: &Config, new: &Config) -> Vec<&'static str> {
    let (old, new_server) = (&start.server, &new.server);
    [
        ("server.https", old.https != new_server.https),
        ("server.http", old.http != new_server.http),
        ("server.admin", old.admin != new_server.admin),
        (
            "server.limits.h2_streams",
            old.limits.h2_streams != new_server.limits.h2_streams,
        ),
        ("server.threads", old.threads != new_server.threads),
        ("server.user", old.user != new_server.user),
        ("storage", start.storage != new.storage),
        ("log.format", start.log.format != new.log.format),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
