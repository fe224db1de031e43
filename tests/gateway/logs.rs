//! Logs: what lines have, and where they go.

mod journald;
mod level;
mod lines;
mod rotation;
mod syslog;
mod syslog_tls;
mod targets;

use std::fs;

use crate::support::{Gateway, logging, wait_for};

/// The lines of a file in the gateway's directory, once one has this.
fn lines_with(gateway: &Gateway, file: &str, what: &str) -> Vec<String> {
    wait_for(&format!("a line with {what} in {file}"), || {
        let log = fs::read_to_string(gateway.dir().join(file)).unwrap_or_default();
        let lines: Vec<String> = log.lines().map(str::to_owned).collect();
        lines
            .iter()
            .any(|line| line.contains(what))
            .then_some(lines)
    })
}
