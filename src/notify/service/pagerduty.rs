//! The Events API v2 of PagerDuty: an alert for each trouble, resolved when it is over.
//!
//! <https://developer.pagerduty.com/docs/events-api-v2-overview>

use serde_json::{Map, Value, json};

use super::super::notification::{Entry, EntryState, Notification};
use super::super::text::{self, PLAIN};
use super::{Said, Service, characters, cut};
use crate::clock::UnixTime;
use crate::config::model;
use crate::event::{EventKind, Severity};
use crate::secret::Secret;

/// Where PagerDuty takes events.
const SERVER: &str = "https://events.pagerduty.com";

/// The longest key of an alert, in characters.
const KEY: usize = 255;

/// The longest summary, in characters.
const SUMMARY: usize = 1024;

/// The longest text of a digest, in octets: an event may have 512 KB.
const TEXT: usize = 64 << 10;

/// How many alerts a notification raises. What more there is becomes one alert, since nobody works
/// on hundreds of incidents with one cause.
const ALERTS: usize = 25;

/// A service of PagerDuty.
pub(super) struct PagerDuty {
    server: String,
    routing_key: Secret,
}

impl PagerDuty {
    pub(super) fn new(config: &model::PagerDuty) -> Self {
        let server = config.url.as_deref().unwrap_or(SERVER);
        Self {
            server: server.trim_end_matches('/').to_owned(),
            routing_key: config.routing_key.clone(),
        }
    }

    fn trigger(&self, key: &str, payload: Value, url: Option<&str>) -> Value {
        let mut event = json!({
            "routing_key": self.routing_key.expose(),
            "event_action": "trigger",
            "dedup_key": key,
            "client": "Snigate",
            "payload": payload,
        });
        if let (Some(url), Some(event)) = (url, event.as_object_mut()) {
            event.insert(
                "links".to_owned(),
                json!([{ "href": url, "text": "the page of the CA" }]),
            );
        }
        event
    }

    fn resolve(&self, key: &str) -> Value {
        json!({
            "routing_key": self.routing_key.expose(),
            "event_action": "resolve",
            "dedup_key": key,
        })
    }

    fn trigger_entry(&self, key: &str, entry: &Entry, gateway: &str) -> Value {
        let event = &entry.event;
        let mut details = Map::new();
        details.insert("message".to_owned(), json!(event.message));
        details.insert("since".to_owned(), json!(entry.since.to_string()));
        details.insert("reported_before".to_owned(), json!(entry.repeats));
        for (name, value) in [
            ("issuer", event.issuer.as_deref()),
            ("upstream", event.upstream.as_deref()),
            ("server", event.server.as_deref()),
            ("reason", event.reason.as_deref()),
        ] {
            if let Some(value) = value {
                details.insert(name.to_owned(), json!(value));
            }
        }
        for (name, time) in [("next", event.next), ("not_after", event.not_after)] {
            if let Some(time) = time {
                details.insert(name.to_owned(), json!(time.to_string()));
            }
        }
        let payload = json!({
            "summary": cut(&text::headline(entry), SUMMARY, characters),
            "source": gateway,
            "severity": event.severity.to_string(),
            "timestamp": event.at.to_string(),
            "component": text::concerned(entry),
            "class": event.kind.as_str(),
            "custom_details": details,
        });
        self.trigger(key, payload, event.url.as_deref())
    }

    /// One alert for what raises none of its own. A person resolves it.
    fn trigger_rest(&self, rest: &[&Entry], notification: &Notification) -> Value {
        let rest = Notification {
            entries: rest.iter().map(|&entry| entry.clone()).collect(),
            severity: highest(rest).unwrap_or(notification.severity),
            ..notification.clone()
        };
        let key = format!("snigate/{}/more", notification.gateway);
        let payload = json!({
            "summary": cut(&text::subject(&rest), SUMMARY, characters),
            "source": notification.gateway,
            "severity": rest.severity.to_string(),
            "timestamp": notification.at.to_string(),
            "custom_details": { "text": text::body(&rest, &PLAIN, TEXT) },
        });
        self.trigger(cut(&key, KEY, characters), payload, None)
    }
}

impl Service for PagerDuty {
    fn url(&self) -> String {
        format!("{}/v2/enqueue", self.server)
    }

    fn secrets(&self) -> Vec<Secret> {
        vec![self.routing_key.clone()]
    }

    fn bodies(&self, notification: &Notification, _: UnixTime) -> Vec<Value> {
        let (mut alerts, mut rest, mut bodies) = (0, Vec::new(), Vec::new());
        for entry in text::by_gravity(&notification.entries) {
            let key = key(entry, &notification.gateway);
            if entry.state == EntryState::Recovered {
                bodies.push(self.resolve(&key));
            } else if entry.event.kind == EventKind::NotificationTest {
                // Nobody is to be kept busy by an alert that says nothing.
                bodies.push(self.trigger_entry(&key, entry, &notification.gateway));
                bodies.push(self.resolve(&key));
            } else if entry.trouble.is_none() && entry.event.severity == Severity::Info {
                // Nothing is wrong, and nothing would ever resolve it.
            } else if alerts < ALERTS {
                alerts += 1;
                bodies.push(self.trigger_entry(&key, entry, &notification.gateway));
            } else {
                rest.push(entry);
            }
        }
        if !rest.is_empty() || notification.omitted > 0 {
            bodies.push(self.trigger_rest(&rest, notification));
        }
        bodies
    }

    fn read(&self, body: &[u8], _: bool) -> Said {
        let Ok(json) = serde_json::from_slice::<Value>(body) else {
            return Said::plain(body);
        };
        let errors = json.get("errors").and_then(Value::as_array);
        let errors = errors.into_iter().flatten().filter_map(Value::as_str);
        let message = json.get("message").and_then(Value::as_str);
        let said: Vec<_> = message.into_iter().chain(errors).collect();
        Said::new(&said.join("; "))
    }
}

/// The key of an alert: the same for all reports of one trouble, and for what ends it.
fn key(entry: &Entry, gateway: &str) -> String {
    let event = &entry.event;
    let key = match &entry.trouble {
        Some(trouble) => format!("snigate/{gateway}/{trouble}"),
        None => format!(
            "snigate/{gateway}/{}/{}/{}",
            event.kind.as_str(),
            text::concerned(entry).unwrap_or_default(),
            event.at.as_secs()
        ),
    };
    if characters(&key) <= KEY {
        return key;
    }
    // What is cut off must not make two troubles one.
    let digest = openssl::sha::sha256(key.as_bytes());
    let digest: String = digest
        .iter()
        .take(8)
        .map(|octet| format!("{octet:02x}"))
        .collect();
    format!("{}/{digest}", cut(&key, KEY - 17, characters))
}

fn highest(entries: &[&Entry]) -> Option<Severity> {
    entries.iter().map(|entry| entry.event.severity).max()
}
