//! `events`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::recipient::{Alertmanager, Discord, Mail, Ntfy, PagerDuty, Slack, Teams, Telegram};
use super::text::{Duration, SecretText};

/// Who is notified of which events: exactly one recipient, such as `webhook` or `exec`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["on"]))]
pub(crate) struct Hook {
    /// Names of events such as `certificate_failed`; with `*` at the end, all that begin so
    /// (`certificate_*`, `*`), except steps of normal operation.
    #[schemars(length(min = 1))]
    pub(crate) on: Vec<String>,
    /// A name for logs, metrics and `snigate events test` [default: the kind of recipient].
    pub(crate) name: Option<String>,
    /// The least severity that is reported.
    pub(crate) severity: EventSeverity,
    /// Only events of these names are reported, such as `*.example.com`, and no events that concern
    /// no name.
    pub(crate) sites: Vec<String>,
    /// How long the same trouble lasts before it is reported again, from 1m; each further time takes
    /// twice as long, up to 24h. `off`: it is reported once.
    pub(crate) repeat: Repeat,
    /// How long events are collected for one notification, at most 1h [default: 10s]. `0s`: each
    /// event is a notification of its own.
    pub(crate) digest: Option<Duration>,
    /// A request with the events as JSON.
    pub(crate) webhook: Option<Webhook>,
    /// A program that gets the events as JSON on its standard input.
    pub(crate) exec: Option<Exec>,
    /// Mail over an SMTP server; events are collected for 1m by default.
    pub(crate) mail: Option<Mail>,
    /// A channel of Slack.
    pub(crate) slack: Option<Slack>,
    /// A channel of Discord.
    pub(crate) discord: Option<Discord>,
    /// A channel or a chat of Teams.
    pub(crate) teams: Option<Teams>,
    /// A chat of Telegram.
    pub(crate) telegram: Option<Telegram>,
    /// A topic of ntfy.
    pub(crate) ntfy: Option<Ntfy>,
    /// A service of PagerDuty.
    pub(crate) pagerduty: Option<PagerDuty>,
    /// An Alertmanager.
    pub(crate) alertmanager: Option<Alertmanager>,
    /// Whether it is asked before a certificate is ordered from a CA, and may object. Only for
    /// `webhook` and `exec`, with `on: [certificate_obtaining]`.
    pub(crate) veto: bool,
}

impl Default for Hook {
    fn default() -> Self {
        Self {
            on: Vec::new(),
            name: None,
            severity: EventSeverity::Info,
            sites: Vec::new(),
            repeat: Repeat("1h".to_owned()),
            digest: None,
            webhook: None,
            exec: None,
            mail: None,
            slack: None,
            discord: None,
            teams: None,
            telegram: None,
            ntfy: None,
            pagerduty: None,
            alertmanager: None,
            veto: false,
        }
    }
}

/// Who has to act, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum EventSeverity {
    Info,
    Warning,
    Error,
    Critical,
}

/// A duration, or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repeat(pub(crate) String);

impl JsonSchema for Repeat {
    fn schema_name() -> Cow<'static, str> {
        "Repeat".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A whole number with a unit (ms, s, m, h or d), or `off`.",
            "pattern": "^(off|[0-9]+(ms|s|m|h|d)|.*\\$\\{.*)$",
            "examples": ["1h", "off"],
        })
    }
}

/// A server that gets a request with the events.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct Webhook {
    /// The URL to `POST` to. It is treated as a secret: messages show its scheme and host alone.
    pub(crate) url: Option<SecretText>,
    /// A secret to sign the body with (HMAC-SHA-256).
    pub(crate) secret: Option<SecretText>,
    /// More fields of the request, such as `Authorization`.
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub(crate) headers: IndexMap<String, SecretText>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// How long a request may take, from 1s to 5m.
    pub(crate) timeout: Duration,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            headers: IndexMap::new(),
            ca_file: None,
            timeout: Duration::new("10s"),
        }
    }
}

/// A program that is run for events.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["command"]))]
pub(crate) struct Exec {
    /// The program, with its full path, and its arguments. There is no shell.
    #[schemars(length(min = 1))]
    pub(crate) command: Vec<String>,
    /// Environment variables in addition to those that describe the event.
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub(crate) env: IndexMap<String, SecretText>,
    /// How long it may run before it is killed, from 1s to 1h.
    pub(crate) timeout: Duration,
}

impl Default for Exec {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            env: IndexMap::new(),
            timeout: Duration::new("30s"),
        }
    }
}
