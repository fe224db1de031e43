//! Recipients of events that are read by people: services, and mail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secret_url::SecretUrl;
use crate::secret::Secret;

/// A service with an HTTP API of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    Slack(ServiceWebhook),
    Discord(ServiceWebhook),
    Teams(ServiceWebhook),
    Telegram(Telegram),
    Ntfy(Ntfy),
    PagerDuty(PagerDuty),
    Alertmanager(Alertmanager),
}

/// A URL that a service gives out to post messages to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWebhook {
    pub url: SecretUrl,
    /// The roots to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

/// A chat of Telegram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telegram {
    /// The bot's.
    pub token: Secret,
    /// A number, or a channel as `@NAME`.
    pub chat: String,
    /// A Bot API server; `None` for Telegram's.
    pub url: Option<String>,
    /// The roots to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

/// A topic of ntfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ntfy {
    pub topic: String,
    pub token: Option<Secret>,
    /// The server; `None` for the public one.
    pub url: Option<String>,
    /// The roots to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

/// A service of PagerDuty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagerDuty {
    pub routing_key: Secret,
    /// The server of its region; `None` for that of the United States.
    pub url: Option<String>,
}

/// An Alertmanager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alertmanager {
    /// Its base URL.
    pub url: String,
    pub token: Option<Secret>,
    /// The roots to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

impl Service {
    /// The key of the configuration that it is written under.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Slack(_) => "slack",
            Self::Discord(_) => "discord",
            Self::Teams(_) => "teams",
            Self::Telegram(_) => "telegram",
            Self::Ntfy(_) => "ntfy",
            Self::PagerDuty(_) => "pagerduty",
            Self::Alertmanager(_) => "alertmanager",
        }
    }

    /// What tells it from others of its kind. It may have secrets in it.
    pub(crate) fn address(&self) -> String {
        let base = |url: &Option<String>| url.clone().unwrap_or_default();
        match self {
            Self::Slack(webhook) | Self::Discord(webhook) | Self::Teams(webhook) => {
                webhook.url.expose().to_owned()
            }
            Self::Telegram(telegram) => {
                let token = telegram.token.expose();
                format!("{} {token} {}", base(&telegram.url), telegram.chat)
            }
            Self::Ntfy(ntfy) => format!("{} {}", base(&ntfy.url), ntfy.topic),
            Self::PagerDuty(pagerduty) => {
                let key = pagerduty.routing_key.expose();
                format!("{} {key}", base(&pagerduty.url))
            }
            Self::Alertmanager(alertmanager) => alertmanager.url.clone(),
        }
    }

    /// The roots to trust; `None` for the system's.
    pub fn ca_file(&self) -> Option<&Path> {
        match self {
            Self::Slack(webhook) | Self::Discord(webhook) | Self::Teams(webhook) => {
                webhook.ca_file.as_deref()
            }
            Self::Telegram(telegram) => telegram.ca_file.as_deref(),
            Self::Ntfy(ntfy) => ntfy.ca_file.as_deref(),
            Self::Alertmanager(alertmanager) => alertmanager.ca_file.as_deref(),
            Self::PagerDuty(_) => None,
        }
    }
}

/// Mail over an SMTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The host of the server, a name or an address.
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub from: MailAddress,
    /// The one that gets it: each address of an entry is a recipient of its own.
    pub to: MailAddress,
    /// Name and password.
    pub credentials: Option<(String, Secret)>,
    /// The roots to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// How long the delivery of a mail may take.
    pub timeout: Duration,
}

impl Mail {
    /// What tells it from others. It has no secrets in it.
    pub(crate) fn address(&self) -> String {
        format!("{}:{} {}", self.host, self.port, self.to.address)
    }
}

/// How the connection to the server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// By `STARTTLS`, before anything is sent.
    StartTls,
    /// From the first octet.
    Implicit,
    Off,
}

/// An address with the name that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddress {
    pub name: Option<String>,
    /// In ASCII.
    pub address: String,
}
