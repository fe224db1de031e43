//! `events`: who is notified of what.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::recipient::{Mail, Service};
use super::secret_url::SecretUrl;
use crate::event::{KindSet, Severity};
use crate::host::Pattern;
use crate::secret::Secret;

/// A recipient, and which events it gets. Of an entry for mail there is one for each address.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// For logs and metrics. No two entries have the same.
    pub name: Arc<str>,
    /// Names its queue: the same after a reload as long as it is the same recipient. Fit for a file's
    /// name, and no two hooks have the same.
    pub id: Arc<str>,
    /// The events that it gets.
    pub on: KindSet,
    /// Those of them that are named in full: other steps of normal operation are left out.
    pub named: KindSet,
    /// The least severity of its events.
    pub severity: Severity,
    /// It only gets events of names that one of these covers; all events if there are none.
    pub sites: Box<[Pattern]>,
    /// After which time the same trouble is reported again for the first time; `None` for never.
    pub repeat: Option<Duration>,
    /// How long events are collected for one notification. Zero: each event is one of its own.
    pub digest: Duration,
    pub recipient: Recipient,
}

/// Whom or what a hook notifies.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipient {
    Webhook(Webhook),
    Exec(NotifyExec),
    Service(Service),
    Mail(Mail),
}

impl Recipient {
    /// The key of the configuration that it is written under.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Exec(_) => "exec",
            Self::Service(service) => service.kind(),
            Self::Mail(_) => "mail",
        }
    }

    /// What tells it from other recipients of its kind. It may have secrets in it.
    pub(crate) fn address(&self) -> Secret {
        Secret::new(match self {
            Self::Webhook(webhook) => webhook.url.expose().to_owned(),
            Self::Exec(exec) => format!("{:?} {:?}", exec.program, exec.arguments),
            Self::Service(service) => service.address(),
            Self::Mail(mail) => mail.address(),
        })
    }
}

/// A server that gets a request for each notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    pub url: SecretUrl,
    /// Signs the body.
    pub secret: Option<Secret>,
    /// Fields of the requests.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The roots to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
}

/// A program that is run for each notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyExec {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub env: Vec<(String, Secret)>,
    /// How long it may run.
    pub timeout: Duration,
}
