//! The commands that act on a running gateway through its admin interface.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::check::count;
use super::client::{Address, Client};
use super::failure::Failure;
use super::gateway::{self, AdminPlace};
use super::output::Output;
use crate::admin::{LastReload, ReloadSummary, Status, time};
use crate::printable::Printable as _;
use crate::secret::Secret;

/// Where the admin interface is by default.
const ADMIN: &str = "127.0.0.1:9180";

/// A client for the intended gateway: as typed, else as configured, else the default. If the
/// configuration is too broken to say, its mistakes are shown.
pub(super) fn connect(
    output: &Output,
    admin: Option<Address>,
    token: Option<String>,
    config: Option<&Path>,
) -> Result<Client, Failure> {
    let token = token.map(Secret::new);
    if let Some(address) = admin {
        return Ok(Client::new(address, token));
    }
    let named = config.is_some();
    let config = config.unwrap_or_else(|| super::default_config());
    if named && !config.exists() {
        return Err(anyhow!("there is no {}", config.printable()).into());
    }
    if !config.exists() {
        return Ok(Client::new(ADMIN.parse()?, token));
    }
    match gateway::admin(output, config)? {
        AdminPlace::At(address, configured) => Ok(Client::new(address, token.or(configured))),
        AdminPlace::Off => Err(Failure::hinted(
            anyhow!("the admin interface is off in {}", config.printable()),
            "use signals: SIGHUP to reload, SIGTERM to stop",
        )),
    }
}

/// Makes the gateway reload its configuration, and reports the result.
pub(super) fn reload(output: &Output, client: &Client) -> Result<(), Failure> {
    let answer = client.post("/api/v1/reload")?;
    if answer.status == StatusCode::BAD_REQUEST {
        let refusal = answer.refusal();
        for diagnostic in &refusal.errors {
            output.mistake(describe(diagnostic));
        }
        output.note(refusal.detail);
        return Err(Failure::Invalid);
    }
    let summary: ReloadSummary = answer.decode()?;
    for diagnostic in &summary.warnings {
        output.mistake(describe(diagnostic));
    }
    if !summary.restart_needed.is_empty() {
        output.warning(format!(
            "a restart is needed for {}",
            summary.restart_needed.join(", ")
        ));
    }
    output.note(format!(
        "reloaded: {}, {}",
        count(summary.sites, "site"),
        count(summary.certificates, "certificate"),
    ));
    Ok(())
}

/// Begins a graceful stop.
pub(super) fn stop(output: &Output, client: &Client) -> Result<(), Failure> {
    client.post("/api/v1/stop")?.decode::<Value>()?;
    output.note("stopping: requests in flight finish first");
    Ok(())
}

/// Shows what the gateway does.
pub(super) fn status(output: &Output, client: &Client, json: bool) -> Result<(), Failure> {
    let status: Status = client.get("/api/v1/status")?.decode()?;
    let readiness = client.get("/readyz")?;
    let ready = readiness.status.is_success();
    let waiting = readiness.refusal().waiting;
    if json {
        let report = Report {
            status,
            ready,
            waiting,
        };
        let mut text = serde_json::to_string_pretty(&report).context("cannot encode the status")?;
        text.push('\n');
        return output.data(text);
    }
    let style = output.style();
    let since = duration(status.uptime_seconds);
    let mut lines = vec![
        format!("{} {}", style.bold("snigate"), status.version),
        format!("  running        for {since}, process {}", status.pid),
    ];
    if ready {
        lines.push(format!("  ready          {}", style.green("yes")));
    } else {
        lines.push(format!("  ready          {}", style.red("no")));
        let reasons = waiting
            .iter()
            .flat_map(|(part, reasons)| reasons.iter().map(move |reason| (part, reason)));
        lines.extend(reasons.map(|(part, reason)| format!("                 {part}: {reason}")));
    }
    lines.push(format!(
        "  configuration  {}",
        status.config_file.printable()
    ));
    lines.push(format!(
        "  last reload    {}",
        last_reload(status.last_reload.as_ref())
    ));
    lines.push(format!("  connections    {}", status.connections));
    for protocol in ["https", "http"] {
        let listeners = status.listeners.iter();
        let addresses: Vec<_> = listeners
            .filter(|listener| listener.protocol == protocol)
            .map(|listener| listener.address.as_str())
            .collect();
        if !addresses.is_empty() {
            lines.push(format!("  {protocol:<14} {}", addresses.join(", ")));
        }
    }
    lines.push(format!("  admin          {}", client.address()));
    output.data(lines.join("\n") + "\n")
}

/// The status for programs.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    status: Status,
    ready: bool,
    waiting: BTreeMap<String, Vec<String>>,
}

fn last_reload(reload: Option<&LastReload>) -> String {
    match reload {
        None => "none since the start".to_owned(),
        Some(reload) if reload.taken => format!("{}, applied", time(reload.at)),
        Some(reload) => {
            let why = reload.errors.first().map(describe);
            format!(
                "{}, refused: {}",
                time(reload.at),
                why.as_deref().unwrap_or("see the log")
            )
        }
    }
}

/// A diagnostic as `check` shows it: `FILE:LINE:COLUMN: what; what to do`.
fn describe(diagnostic: &Value) -> String {
    let text = |key: &str| {
        diagnostic
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let number = |key: &str| diagnostic.get(key).and_then(Value::as_u64);
    let Some(message) = text("message") else {
        return diagnostic.to_string();
    };
    let place = match (text("file"), number("line"), number("column")) {
        (Some(file), Some(line), Some(column)) => Some(format!("{file}:{line}:{column}")),
        (file, ..) => file.map(str::to_owned),
    };
    let warning = (text("severity") == Some("warning")).then(|| "warning".to_owned());
    let parts = [
        place,
        warning,
        text("path").map(str::to_owned),
        Some(message.to_owned()),
    ];
    let line = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
    match text("hint") {
        Some(hint) => format!("{line}; {hint}"),
        None => line,
    }
}

fn duration(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diagnostic_names_its_place_first() {
        let diagnostic = json!({
            "file": "a.yaml", "line": 3, "column": 5, "path": "sites[0].host",
            "message": "unknown key", "hint": "did you mean `hosts`?"
        });
        assert_eq!(
            describe(&diagnostic),
            "a.yaml:3:5: sites[0].host: unknown key; did you mean `hosts`?"
        );
        assert_eq!(describe(&json!({ "message": "no" })), "no");
    }

    #[test]
    fn durations_are_told_in_their_two_largest_parts() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3_599), "59 min");
        assert_eq!(duration(7_260), "2 h 1 min");
        assert_eq!(duration(90_000), "1 d 1 h");
    }
}
