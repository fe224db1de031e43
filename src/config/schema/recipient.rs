//! Recipients of `events` that are read by people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, SecretText};

/// A channel of Slack, or of a server that takes the same messages.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct Slack {
    /// The URL of an incoming webhook. It is treated as a secret.
    pub(crate) url: Option<SecretText>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
}

/// A channel of Discord.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct Discord {
    /// The URL of a webhook. It is treated as a secret.
    pub(crate) url: Option<SecretText>,
}

/// A channel or a chat of Teams.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct Teams {
    /// The URL of a workflow that posts what a webhook gets. It is treated as a secret.
    pub(crate) url: Option<SecretText>,
}

/// A chat of Telegram.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["token", "chat"]))]
pub(crate) struct Telegram {
    /// The token of the bot.
    pub(crate) token: Option<SecretText>,
    /// The number of the chat in quotes, or a channel as `@NAME`.
    pub(crate) chat: String,
    /// A Bot API server of your own.
    pub(crate) url: Option<String>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
}

/// A topic of ntfy.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["topic"]))]
pub(crate) struct Ntfy {
    /// The topic.
    pub(crate) topic: String,
    /// An access token.
    pub(crate) token: Option<SecretText>,
    /// A server of your own.
    pub(crate) url: Option<String>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
}

/// A service of PagerDuty: each trouble is an alert.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["routing_key"]))]
pub(crate) struct PagerDuty {
    /// The key of an integration of the Events API v2.
    pub(crate) routing_key: Option<SecretText>,
    /// The server of your region, such as `https://events.eu.pagerduty.com`.
    pub(crate) url: Option<String>,
}

/// An Alertmanager: each trouble is an alert.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct Alertmanager {
    /// Its URL without `/api`.
    pub(crate) url: String,
    /// A bearer token for what stands in front of it.
    pub(crate) token: Option<SecretText>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
}

/// Mail over an SMTP server.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["server", "from", "to"]))]
pub(crate) struct Mail {
    /// The server with its port, such as `smtp.example.com:587`.
    pub(crate) server: String,
    /// How the connection is encrypted: by STARTTLS before anything is sent, from the first octet
    /// (usually at port 465), or not at all, for a server on this machine and without credentials.
    pub(crate) tls: MailTls,
    /// The sender, such as `Snigate <snigate@example.com>`.
    pub(crate) from: String,
    /// The recipients.
    #[schemars(length(min = 1))]
    pub(crate) to: Vec<String>,
    /// The user at the server.
    pub(crate) user: Option<String>,
    /// The user's password.
    pub(crate) password: Option<SecretText>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// How long the delivery of a mail may take, from 1s to 5m.
    pub(crate) timeout: Duration,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            server: String::new(),
            tls: MailTls::Starttls,
            from: String::new(),
            to: Vec::new(),
            user: None,
            password: None,
            ca_file: None,
            timeout: Duration::new("1m"),
        }
    }
}

/// How a connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum MailTls {
    Starttls,
    Implicit,
    Off,
}
