//! Topics of ntfy, published as JSON.
//!
//! <https://docs.ntfy.sh/publish/#publish-as-json>

use serde_json::{Value, json};

use super::super::notification::Notification;
use super::super::text::{self, PLAIN};
use super::{Said, Service, cut};
use crate::clock::UnixTime;
use crate::config::model;
use crate::event::Severity;
use crate::secret::Secret;

/// The public server.
const SERVER: &str = "https://ntfy.sh";

/// The longest message, in octets; a longer one becomes an attachment.
const MESSAGE: usize = 4096;

/// The longest title, in octets: phones show no more.
const TITLE: usize = 250;

/// A topic.
pub(super) struct Ntfy {
    server: String,
    topic: String,
    token: Option<Secret>,
}

impl Ntfy {
    pub(super) fn new(config: &model::Ntfy) -> Self {
        let server = config.url.as_deref().unwrap_or(SERVER);
        Self {
            server: server.trim_end_matches('/').to_owned(),
            topic: config.topic.clone(),
            token: config.token.clone(),
        }
    }
}

impl Service for Ntfy {
    /// JSON is published to the root, not to the topic.
    fn url(&self) -> String {
        format!("{}/", self.server)
    }

    fn bearer(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    fn bodies(&self, notification: &Notification, _: UnixTime) -> Vec<Value> {
        let (priority, tag) = match notification.severity {
            Severity::Info => (2, "information_source"),
            Severity::Warning => (3, "warning"),
            Severity::Error => (4, "x"),
            Severity::Critical => (5, "rotating_light"),
        };
        let subject = text::subject(notification);
        vec![json!({
            "topic": self.topic,
            "title": cut(&subject, TITLE, str::len),
            "message": text::body(notification, &PLAIN, MESSAGE),
            "priority": priority,
            "tags": [tag],
        })]
    }

    fn read(&self, body: &[u8], _: bool) -> Said {
        let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
        match json.get("error").and_then(Value::as_str) {
            Some(error) => Said::new(error),
            None => Said::plain(body),
        }
    }
}
