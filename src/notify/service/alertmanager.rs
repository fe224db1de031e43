//! The API v2 of Alertmanager: all troubles in one call.
//!
//! <https://prometheus.io/docs/alerting/latest/alerts_api>

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::notification::{Entry, EntryState, Notification};
use super::super::text;
use super::Service;
use crate::clock::UnixTime;
use crate::config::model;
use crate::event::Severity;
use crate::printable::one_line;
use crate::secret::Secret;

/// For how long a trouble is taken to last that is reported no more: longer than the longest gap
/// between two reports, which is a day. Without an end, Alertmanager itself would end it after minutes.
const LASTS: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// For how long something is shown that is over as soon as it has happened.
const SHOWN: Duration = Duration::from_secs(60 * 60);

const SEVERITIES: [Severity; 4] = [
    Severity::Info,
    Severity::Warning,
    Severity::Error,
    Severity::Critical,
];

/// The longest value of a label, in characters.
const LABEL: usize = 1000;

/// An Alertmanager.
pub(super) struct Alertmanager {
    url: String,
    token: Option<Secret>,
}

impl Alertmanager {
    pub(super) fn new(config: &model::Alertmanager) -> Self {
        Self {
            url: config.url.trim_end_matches('/').to_owned(),
            token: config.token.clone(),
        }
    }
}

impl Service for Alertmanager {
    fn url(&self) -> String {
        format!("{}/api/v2/alerts", self.url)
    }

    fn bearer(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    fn bodies(&self, notification: &Notification, now: UnixTime) -> Vec<Value> {
        let entries = text::by_gravity(&notification.entries);
        let alerts = entries.into_iter();
        let alerts = alerts.flat_map(|entry| alerts_of(entry, notification, now));
        vec![Value::Array(alerts.collect())]
    }
}

/// The alerts of an entry. Its severity is a label, by which Alertmanager finds whom to notify, and
/// so part of which alert it is: where it may have changed, the alert of the other severity ends.
fn alerts_of(entry: &Entry, notification: &Notification, now: UnixTime) -> Vec<Value> {
    let severity = entry.event.severity;
    let ends = match entry.state {
        EntryState::Recovered => {
            let ended = SEVERITIES.iter();
            let ended = ended.map(|severity| alert(entry, *severity, notification, now));
            return ended.collect();
        }
        _ if entry.trouble.is_none() => now + SHOWN,
        EntryState::Happened | EntryState::Ongoing => now + LASTS,
    };
    let mut alerts = vec![alert(entry, severity, notification, ends)];
    if entry.state == EntryState::Ongoing {
        let others = SEVERITIES.iter().filter(|other| **other != severity);
        alerts.extend(others.map(|other| alert(entry, *other, notification, now)));
    }
    alerts
}

/// An entry as an alert with this severity. Labels say which trouble it is, so they hold nothing else
/// that changes while it lasts.
fn alert(entry: &Entry, severity: Severity, notification: &Notification, ends: UnixTime) -> Value {
    let event = &entry.event;
    let mut labels = Map::new();
    let mut annotations = Map::new();
    let trouble = entry.trouble.as_deref();
    // What ends a trouble may name more or less than what began it: the trouble itself decides.
    let is_part = |value: &&str| trouble.is_none_or(|trouble| trouble.contains(*value));
    let severity = severity.to_string();
    for (name, value) in [
        ("alertname", Some("Snigate")),
        ("severity", Some(&*severity)),
        ("gateway", Some(&*notification.gateway)),
        ("trouble", trouble),
        ("kind", trouble.is_none().then(|| event.kind.as_str())),
        ("domain", Some(&*event.domain).filter(is_part)),
        ("upstream", event.upstream.as_deref().filter(is_part)),
        ("server", event.server.as_deref().filter(is_part)),
    ] {
        // An empty label is none.
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            labels.insert(name.to_owned(), json!(one_line(value, LABEL)));
        }
    }
    for (name, value) in [
        ("summary", Some(text::headline(entry))),
        ("kind", Some(event.kind.as_str().to_owned())),
        ("reason", event.reason.clone()),
        ("issuer", event.issuer.as_deref().map(str::to_owned)),
        ("next", event.next.map(|at| at.to_string())),
        ("not_after", event.not_after.map(|at| at.to_string())),
        ("url", event.url.clone()),
    ] {
        if let Some(value) = value {
            annotations.insert(name.to_owned(), json!(value));
        }
    }
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": entry.since.min(ends).to_string(),
        "endsAt": ends.to_string(),
    })
}
