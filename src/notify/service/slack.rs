//! Incoming webhooks of Slack: Block Kit.
//!
//! <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>

use serde_json::{Value, json};

use super::super::notification::Notification;
use super::super::text::{self, Style};
use super::{Service, characters, cut, parts};
use crate::clock::UnixTime;
use crate::config::model::SecretUrl;

/// The longest header of a message, in characters.
const HEADER: usize = 150;

/// The longest text of a section, in characters.
const SECTION: usize = 3000;

/// How much is sent: above some 12,000 characters in all, Slack refuses a message as too long.
const WHOLE: usize = 8000;

/// Text in Slack's own markup.
const STYLE: Style = Style {
    escape,
    heading: |title| format!("*{}*", escape(title)),
    length: characters,
};

/// A channel of Slack, or of what takes the same messages.
pub(super) struct Slack {
    url: SecretUrl,
}

impl Slack {
    pub(super) fn new(url: &SecretUrl) -> Self {
        Self { url: url.clone() }
    }
}

impl Service for Slack {
    fn url(&self) -> String {
        self.url.expose().to_owned()
    }

    fn bodies(&self, notification: &Notification, _: UnixTime) -> Vec<Value> {
        let subject = text::subject(notification);
        let header = cut(&subject, HEADER, characters);
        let mut blocks = vec![json!({
            "type": "header",
            "text": { "type": "plain_text", "text": header, "emoji": false },
        })];
        let body = text::body(notification, &STYLE, WHOLE);
        for part in parts(&body, SECTION, characters) {
            blocks.push(json!({
                "type": "section",
                "text": { "type": "mrkdwn", "text": part, "verbatim": true },
            }));
        }
        // The text is what notifications of phones show.
        vec![json!({ "text": escape(&subject), "blocks": blocks })]
    }
}

/// Escapes the three characters that Slack's markup reserves, and what would format.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // There is no escape for these: a character of no width keeps them from pairing up.
            '*' | '_' | '~' | '`' => {
                escaped.push('\u{200b}');
                escaped.push(character);
            }
            character => escaped.push(character),
        }
    }
    escaped
}
