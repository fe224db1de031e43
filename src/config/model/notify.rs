//! `events`: who is notified of what.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

use crate::event::{KindSet, Severity};
use crate::host::Pattern;
use crate::secret::Secret;

/// A recipient, and which events it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// For logs and metrics. No two hooks have the same.
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
}

impl Recipient {
    /// The key of the configuration that it is written under.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Exec(_) => "exec",
        }
    }

    /// What tells it from other recipients of its kind. It may have secrets in it.
    pub(crate) fn address(&self) -> Secret {
        Secret::new(match self {
            Self::Webhook(webhook) => webhook.url.expose().to_owned(),
            Self::Exec(exec) => format!("{:?} {:?}", exec.program, exec.arguments),
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

/// A part of a URL that is shorter is a word, not a secret.
const SHORTEST_SECRET: usize = 8;

/// The URL of a service that asks for nothing else: whoever knows it can use it. Only its scheme and
/// its host are shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl {
    text: Secret,
    uri: Uri,
}

impl SecretUrl {
    /// The URL in `text`, which is one of http or https with a host.
    pub(crate) fn new(text: &Secret, uri: Uri) -> Self {
        Self {
            text: text.clone(),
            uri,
        }
    }

    /// The whole text, for the one call that needs it.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The URL in parts, for the one call that needs it.
    pub fn expose_uri(&self) -> &Uri {
        &self.uri
    }

    /// A text of somebody else's without the parts of the path and the query that may be secret.
    pub fn redact(&self, text: &str) -> String {
        let path = self.uri.path_and_query().map_or("", |path| path.as_str());
        let parts = path.split(['/', '?', '&', '=', ':']);
        let parts = parts.filter(|part| part.len() >= SHORTEST_SECRET);
        parts.fold(text.to_owned(), |text, part| {
            text.replace(part, "[redacted]")
        })
    }

    /// Returns true if it is one of plain HTTP.
    pub fn is_plain(&self) -> bool {
        self.uri.scheme_str() == Some("http")
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}", self.uri.host().unwrap_or_default())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_a_secret_url_is_shown() {
        let text = Secret::new("https://hooks.test:8443/services/T0/B0/xyz?key=abc".to_owned());
        let uri = text.expose().parse().expect("a URL");
        let url = SecretUrl::new(&text, uri);
        assert_eq!(url.to_string(), "https://hooks.test");
        assert_eq!(format!("{url:?}"), "https://hooks.test");
        let text =
            Secret::new("https://hooks.test/bot123456789:AAbbCCdd/send?key=secret-key".to_owned());
        let uri = text.expose().parse().expect("a URL");
        let said = "no bot bot123456789 with AAbbCCdd and secret-key can send";
        assert_eq!(
            SecretUrl::new(&text, uri).redact(said),
            "no bot [redacted] with [redacted] and [redacted] can send"
        );
    }
}
