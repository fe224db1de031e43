//! Webhooks of Discord: one embed.
//!
//! <https://discord.com/developers/docs/resources/webhook#execute-webhook>

use serde_json::{Value, json};

use super::super::notification::Notification;
use super::super::text::{self, Style};
use super::{Said, Service, cut, utf16_units, wait_for};
use crate::clock::UnixTime;
use crate::config::model::SecretUrl;
use crate::event::Severity;

/// The longest title of an embed before it is escaped, which may double it: 256 are allowed.
const TITLE: usize = 128;

/// The longest description of an embed; title and description together may have 6,000.
const DESCRIPTION: usize = 4096;

/// Text in Markdown.
const STYLE: Style = Style {
    escape,
    heading: |title| format!("**{}**", escape(title)),
    length: utf16_units,
};

/// A channel of Discord.
pub(super) struct Discord {
    url: SecretUrl,
}

impl Discord {
    pub(super) fn new(url: &SecretUrl) -> Self {
        Self { url: url.clone() }
    }
}

impl Service for Discord {
    fn url(&self) -> String {
        self.url.expose().to_owned()
    }

    fn bodies(&self, notification: &Notification, _: UnixTime) -> Vec<Value> {
        let title = text::subject(notification);
        let color = match notification.severity {
            Severity::Info => 0x0034_98db,
            Severity::Warning => 0x00f1_c40f,
            Severity::Error => 0x00e6_7e22,
            Severity::Critical => 0x00e7_4c3c,
        };
        vec![json!({
            "embeds": [{
                "title": escape(cut(&title, TITLE, utf16_units)),
                "description": text::body(notification, &STYLE, DESCRIPTION),
                "color": color,
                "timestamp": notification.at.to_string(),
            }],
            // A name such as @everyone in a message calls nobody.
            "allowed_mentions": { "parse": [] },
        })]
    }

    fn read(&self, body: &[u8], _: bool) -> Said {
        let Ok(json) = serde_json::from_slice::<Value>(body) else {
            return Said::plain(body);
        };
        let message = json.get("message").and_then(Value::as_str);
        Said {
            // It is more exact than the field, which proxies may leave out.
            wait: json
                .get("retry_after")
                .and_then(Value::as_f64)
                .and_then(wait_for),
            ..Said::new(message.unwrap_or_default())
        }
    }
}

/// Escapes what Markdown would format.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(
            character,
            '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '[' | ']' | '(' | ')' | '#' | '@'
        ) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
