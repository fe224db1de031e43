//! `snigate check`: every mistake in a configuration at once, each with its place; or where one
//! request would lead.

use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::explain::{self, Field, RequestLine};
use super::failure::Failure;
use super::gateway;
use super::output::Output;

use crate::printable::Printable as _;

/// Validates what `run` would load.
pub(super) fn check(
    output: &Output,
    config: &Path,
    json: bool,
    strict: bool,
) -> Result<(), Failure> {
    let report = gateway::check(config);
    let valid = report.errors.is_empty() && (!strict || report.warnings.is_empty());
    if json {
        let mut text = serde_json::to_string_pretty(&json!({
            "valid": valid,
            "sites": report.sites,
            "certificates": report.certificates,
            "to_obtain": report.to_obtain,
            "errors": report.errors,
            "warnings": report.warnings,
        }))
        .context("cannot encode the report")?;
        text.push('\n');
        output.data(text)?;
    } else {
        for diagnostic in report.errors.iter().chain(&report.warnings) {
            output.diagnostic(diagnostic);
        }
        if valid {
            let to_obtain = match report.to_obtain {
                0 => String::new(),
                some => format!(", {some} by CAs"),
            };
            output.data(format!(
                "{}: {} ({}, {}{to_obtain})\n",
                config.printable(),
                output.style().green("valid"),
                count(report.sites, "site"),
                count(report.certificates, "certificate"),
            ))?;
        }
    }
    if valid { Ok(()) } else { Err(Failure::Invalid) }
}

/// Explains where a request would lead that arrives at the listener `at`. Of an invalid
/// configuration, reports the mistakes instead.
pub(super) fn explain(
    output: &Output,
    config: &Path,
    json: bool,
    request: &RequestLine,
    fields: Vec<Field>,
    at: Option<&str>,
) -> Result<(), Failure> {
    match explain::explain(config, request, fields, at)? {
        Some(explained) => explain::print(output, request, &explained, json),
        None => check(output, config, json, false),
    }
}

/// A number with its noun: `1 site`, `2 sites`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
