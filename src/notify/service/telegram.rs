//! Bots of Telegram: `sendMessage`.
//!
//! <https://core.telegram.org/bots/api#sendmessage>

use serde_json::{Value, json};

use super::super::notification::Notification;
use super::super::sender::Retry;
use super::super::text::{self, Style};
use super::{Said, Service, utf16_units, wait_for};
use crate::clock::UnixTime;
use crate::config::model;
use crate::event::Severity;
use crate::secret::Secret;

/// Where Telegram is, unless a server of one's own is configured.
const SERVER: &str = "https://api.telegram.org";

/// The longest text, in UTF-16 units.
const TEXT: usize = 4096;

/// Text without markup: nothing in it has to be escaped.
const STYLE: Style = Style {
    escape: str::to_owned,
    heading: str::to_owned,
    length: utf16_units,
};

/// A chat of Telegram.
pub(super) struct Telegram {
    server: String,
    token: Secret,
    chat: String,
}

impl Telegram {
    pub(super) fn new(config: &model::Telegram) -> Self {
        let server = config.url.as_deref().unwrap_or(SERVER);
        Self {
            server: server.trim_end_matches('/').to_owned(),
            token: config.token.clone(),
            chat: config.chat.clone(),
        }
    }
}

impl Service for Telegram {
    fn url(&self) -> String {
        format!("{}/bot{}/sendMessage", self.server, self.token.expose())
    }

    fn bodies(&self, notification: &Notification, _: UnixTime) -> Vec<Value> {
        let subject = text::subject(notification);
        let room = TEXT.saturating_sub(utf16_units(&subject) + 2);
        let body = text::body(notification, &STYLE, room);
        // A name such as @channel is text; a number is one.
        let chat = match self.chat.parse::<i64>() {
            Ok(number) => json!(number),
            Err(_) => json!(self.chat),
        };
        vec![json!({
            "chat_id": chat,
            "text": format!("{subject}\n\n{body}"),
            "link_preview_options": { "is_disabled": true },
            "disable_notification": notification.severity == Severity::Info,
        })]
    }

    fn read(&self, body: &[u8], is_success: bool) -> Said {
        let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
        if let Some(chat) = json.pointer("/parameters/migrate_to_chat_id") {
            let text = format!("the chat has become a supergroup: write 'chat: {chat}'");
            return Said {
                failure: Some(Retry::Later),
                ..Said::new(&text)
            };
        }
        if is_success && json.get("ok").and_then(Value::as_bool) != Some(true) {
            return Said {
                failure: Some(Retry::Later),
                ..Said::new("it did not confirm the message: check 'url'")
            };
        }
        let description = json.get("description").and_then(Value::as_str);
        let wait = json.pointer("/parameters/retry_after");
        Said {
            wait: wait.and_then(Value::as_f64).and_then(wait_for),
            ..Said::new(description.unwrap_or_default())
        }
    }
}
