//! Webhooks of Teams' Workflows: an Adaptive Card.
//!
//! <https://learn.microsoft.com/connectors/teams/#microsoft-teams-webhook>

use serde_json::{Value, json};

use super::super::notification::Notification;
use super::super::sender::Retry;
use super::super::text::{self, Style};
use super::{Said, Service, parts};
use crate::clock::UnixTime;
use crate::config::model::SecretUrl;
use crate::event::Severity;

/// How much text is sent, in octets: a message may have 28 KB, and escapes of JSON count.
const WHOLE: usize = 12 << 10;

/// The longest block of text, in octets.
const BLOCK: usize = 3 << 10;

/// Text in the Markdown of Adaptive Cards.
const STYLE: Style = Style {
    escape,
    heading: |title| format!("**{}**", escape(title)),
    length: str::len,
};

/// A channel or a chat of Teams.
pub(super) struct Teams {
    url: SecretUrl,
}

impl Teams {
    pub(super) fn new(url: &SecretUrl) -> Self {
        Self { url: url.clone() }
    }
}

impl Service for Teams {
    fn url(&self) -> String {
        self.url.expose().to_owned()
    }

    fn bodies(&self, notification: &Notification, _: UnixTime) -> Vec<Value> {
        let color = match notification.severity {
            Severity::Info => "Default",
            Severity::Warning => "Warning",
            Severity::Error | Severity::Critical => "Attention",
        };
        let mut blocks = vec![json!({
            "type": "TextBlock",
            "text": escape(&text::subject(notification)),
            "size": "Medium",
            "weight": "Bolder",
            "color": color,
            "wrap": true,
        })];
        let body = text::body(notification, &STYLE, WHOLE);
        for part in parts(&body, BLOCK, str::len) {
            // Its Markdown takes an empty line for the end of a paragraph, and one end for a space.
            let text = part.replace('\n', "\n\n");
            blocks.push(json!({ "type": "TextBlock", "text": text, "wrap": true }));
        }
        vec![json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "msteams": { "width": "Full" },
                    "body": blocks,
                },
            }],
        })]
    }

    fn read(&self, body: &[u8], is_success: bool) -> Said {
        let said = Said::plain(body);
        // What stands in between may report a failure with the status of a success.
        if is_success && said.text.contains("HTTP error 429") {
            return Said {
                failure: Some(Retry::Later),
                ..said
            };
        }
        let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
        match json.pointer("/error/message").and_then(Value::as_str) {
            Some(message) => Said::new(message),
            None => said,
        }
    }
}

/// Escapes what Markdown would format.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | '*' | '_' | '[' | ']' | '`' | '#') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
