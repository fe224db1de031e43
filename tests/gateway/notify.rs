//! Notifications: what recipients get, whatever happens to them and to the gateway.

mod digest;
mod exec;
mod mail;
mod restart;
mod services;
mod troubles;
mod trust;
mod webhook;

use serde_json::Value;

use crate::support::{Gateway, Origin, Received, snigate, wait_for};

/// A site, so that there is something to serve.
const SITE: &str =
    "sites: [{ hosts: [plain.test], tls: off, routes: [{ respond: { status: 200 } }] }]\n";

/// What is wrong with a configuration that is refused.
const WRONG: &str = "sites: [{ hosts: [plain.test], upstraem: app }]\n";

/// A configuration with these entries of `events`.
fn config(events: &str) -> String {
    format!("{SITE}events:\n{events}\n")
}

/// An entry for the receiver at an address, with more keys.
fn hook(origin: &Origin, on: &str, more: &str) -> String {
    let address = origin.address();
    format!("- {{ on: [{on}], digest: 0s, webhook: {{ url: \"http://{address}/hook\" }}{more} }}\n")
}

/// The notification in a request.
fn notification(request: &Received) -> Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

/// The kind and the state of each entry.
fn entries(request: &Received) -> Vec<(String, String)> {
    let notification = notification(request);
    let entries = notification["entries"].as_array().expect("entries");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    entries
        .iter()
        .map(|entry| (text(&entry["kind"]), text(&entry["state"])))
        .collect()
}

fn pair(kind: &str, state: &str) -> (String, String) {
    (kind.to_owned(), state.to_owned())
}

/// How many events wait for a recipient.
fn waiting(gateway: &Gateway, hook: &str) -> f64 {
    let name = format!("snigate_notification_events_waiting{{hook=\"{hook}\"}}");
    gateway.metric(&name).unwrap_or(0.0)
}

/// How many attempts to notify a recipient had this result.
fn attempts(gateway: &Gateway, hook: &str, result: &str) -> f64 {
    let name = format!("snigate_notifications_total{{hook=\"{hook}\",result=\"{result}\"}}");
    gateway.metric(&name).unwrap_or(0.0)
}

/// Waits until so many notifications have been delivered.
#[track_caller]
fn wait_for_deliveries(gateway: &Gateway, hook: &str, count: f64) {
    wait_for(&format!("{count} deliveries to {hook}"), || {
        (attempts(gateway, hook, "delivered") >= count).then_some(())
    });
}
