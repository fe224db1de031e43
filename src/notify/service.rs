//! Services with an HTTP API of their own: what they are sent, and what their answers mean.
//!
//! A `Service` writes the bodies and reads the answers; [`ServiceSender`] makes the calls. Of URLs
//! only the host is shown, since whoever knows one can use it.

mod alertmanager;
mod discord;
mod ntfy;
mod pagerduty;
mod slack;
mod teams;
mod telegram;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, Uri};
use serde_json::Value;

use self::alertmanager::Alertmanager;
use self::discord::Discord;
use self::ntfy::Ntfy;
use self::pagerduty::PagerDuty;
use self::slack::Slack;
use self::teams::Teams;
use self::telegram::Telegram;
use super::notification::Notification;
use super::response::{MAX_ANSWER, outcome, redact};
use super::sender::{DeliveryError, Retry, Sender};
use crate::clock::{Clock, UnixTime};
use crate::config::model::{self, SecretUrl};
use crate::http_client::{Body, HttpClient, HttpError, Options, Patience};
use crate::lock::MutexExt as _;
use crate::printable::one_line;
use crate::secret::Secret;

/// How much of a service's answer goes into an error, in characters.
const MAX_SAID: usize = 200;

/// The longest wait that a service may ask for in its body.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// How long a call may take.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    request: Duration::from_secs(30),
};

/// How many entries a notification may have: services show few, and count the others.
const MAX_ENTRIES: usize = 1000;

/// A service that shows notifications to people.
trait Service: Send + Sync {
    /// Where it is called. It may have secrets in it.
    fn url(&self) -> String;

    /// The token for the `Authorization` field, if it expects one.
    fn bearer(&self) -> Option<&Secret> {
        None
    }

    /// What is not to be shown if the service sends it back, besides its URL.
    fn secrets(&self) -> Vec<Secret> {
        self.bearer().cloned().into_iter().collect()
    }

    /// The bodies of the calls that report `notification`, in order.
    fn bodies(&self, notification: &Notification, now: UnixTime) -> Vec<Value>;

    /// What the body of an answer says; `is_success` is what the status says.
    fn read(&self, body: &[u8], is_success: bool) -> Said {
        let _ = is_success;
        Said::plain(body)
    }
}

/// What the body of an answer says.
#[derive(Debug, Default)]
struct Said {
    /// For people, without secrets.
    text: String,
    /// When to try again.
    wait: Option<Duration>,
    /// A failure that the status does not show, or not rightly.
    failure: Option<Retry>,
}

impl Said {
    fn new(text: &str) -> Self {
        Self {
            text: one_line(text, MAX_SAID),
            ..Self::default()
        }
    }

    /// What a body of text says, unless it is a page for browsers.
    fn plain(body: &[u8]) -> Self {
        match String::from_utf8_lossy(body).trim() {
            page if page.starts_with('<') => Self::default(),
            text => Self::new(text),
        }
    }
}

/// Delivers notifications to a service.
pub(super) struct ServiceSender {
    service: Box<dyn Service>,
    client: HttpClient,
    url: SecretUrl,
    secrets: Vec<Secret>,
    clock: Arc<dyn Clock>,
    /// The notification that was delivered in part, and how many of its calls were made. A second
    /// attempt makes the others.
    begun: Mutex<Option<(String, usize)>>,
}

impl ServiceSender {
    /// A sender for the service that `config` describes.
    ///
    /// # Errors
    /// If the roots to trust cannot be read.
    pub(super) fn new(config: &model::Service, clock: Arc<dyn Clock>) -> Result<Self, HttpError> {
        let service: Box<dyn Service> = match config {
            model::Service::Slack(webhook) => Box::new(Slack::new(&webhook.url)),
            model::Service::Discord(webhook) => Box::new(Discord::new(&webhook.url)),
            model::Service::Teams(webhook) => Box::new(Teams::new(&webhook.url)),
            model::Service::Telegram(telegram) => Box::new(Telegram::new(telegram)),
            model::Service::Ntfy(ntfy) => Box::new(Ntfy::new(ntfy)),
            model::Service::PagerDuty(pagerduty) => Box::new(PagerDuty::new(pagerduty)),
            model::Service::Alertmanager(alertmanager) => Box::new(Alertmanager::new(alertmanager)),
        };
        let url = Secret::new(service.url());
        let uri = url.expose().parse::<Uri>();
        // The configuration has been checked.
        let uri = uri.map_err(|error| HttpError::Broken(error.to_string()))?;
        let url = SecretUrl::new(&url, uri);
        let is_plain = url.is_plain();
        let client = HttpClient::new(Options {
            ca_file: config.ca_file(),
            allow_plain: is_plain,
            only_plain: is_plain,
            patience: PATIENCE,
            max_answer: Some(MAX_ANSWER),
            ..Options::default()
        })?;
        Ok(Self {
            secrets: service.secrets(),
            service,
            client,
            url,
            clock,
            begun: Mutex::default(),
        })
    }

    async fn call(&self, body: &Value, now: UnixTime) -> Result<(), DeliveryError> {
        let mut request = Request::post(self.url.expose())
            .header(CONTENT_TYPE, "application/json")
            .body(Body::new(Bytes::from(body.to_string())))
            .map_err(|_| self.refused("its URL cannot be requested"))?;
        if let Some(token) = self.service.bearer() {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| self.refused("the token cannot be sent"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = self.client.send(request).await;
        let said = match &response {
            Ok(response) => {
                let body = String::from_utf8_lossy(response.body());
                let body = redact(&body, &self.url, &self.secrets);
                let is_success = response.status().is_success();
                self.service.read(body.as_bytes(), is_success)
            }
            Err(_) => Said::default(),
        };
        if let Some(retry) = said.failure {
            let message = format!("{}: {}", self.url, said.text);
            return Err(DeliveryError { message, retry });
        }
        let response = response.map(|response| {
            let (head, _) = response.into_parts();
            Response::from_parts(head, Bytes::from(said.text))
        });
        match (outcome(&self.url, &[], response, now), said.wait) {
            (Ok(_), _) => Ok(()),
            (Err(error), Some(wait)) if error.retry != Retry::Never => Err(DeliveryError {
                retry: Retry::After(wait),
                ..error
            }),
            (Err(error), _) => Err(error),
        }
    }

    fn refused(&self, why: &str) -> DeliveryError {
        DeliveryError::never(format!("{}: {why}", self.url))
    }

    /// How many calls of a notification have been made before.
    fn made_before(&self, id: &str) -> usize {
        let begun = self.begun.lock_unpoisoned();
        let begun = begun.as_ref().filter(|(begun, _)| begun == id);
        begun.map_or(0, |(_, made)| *made)
    }
}

#[async_trait]
impl Sender for ServiceSender {
    async fn deliver(&self, notification: &Notification) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        let bodies = self.service.bodies(notification, now);
        let first = self.made_before(&notification.id);
        let (mut is_delivered, mut refusal) = (first > 0, None);
        for (index, body) in bodies.iter().enumerate().skip(first) {
            match self.call(body, now).await {
                Ok(()) => is_delivered = true,
                // One trouble that is refused must not keep the others from being reported.
                Err(error) if error.retry == Retry::Never => {
                    if bodies.len() > 1 {
                        tracing::error!(%error, "a part of a notification was refused");
                    }
                    refusal = Some(error);
                }
                Err(error) => return Err(error),
            }
            let made = (notification.id.clone(), index + 1);
            *self.begun.lock_unpoisoned() = Some(made);
        }
        match refusal {
            Some(error) if !is_delivered => Err(error),
            _ => Ok(()),
        }
    }

    fn max_entries(&self) -> usize {
        MAX_ENTRIES
    }
}

/// A wait of so many seconds, as far as it is believed.
fn wait_for(seconds: f64) -> Option<Duration> {
    let wait = Duration::try_from_secs_f64(seconds.ceil()).ok()?;
    Some(wait.min(LONGEST_WAIT))
}

/// The beginning of `text`, at most `longest` long as `length` counts, cut between characters.
fn cut(text: &str, longest: usize, length: fn(&str) -> usize) -> &str {
    if length(text) <= longest {
        return text;
    }
    let mut ends = text.char_indices().map(|(start, _)| start).rev();
    let fits = |end: &usize| text.get(..*end).is_some_and(|head| length(head) <= longest);
    let end = ends.find(fits).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// `text` in parts of at most `longest`, cut between lines where possible.
fn parts(text: &str, longest: usize, length: fn(&str) -> usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        let line = cut(line, longest, length);
        match parts.last_mut() {
            Some(part) if length(part) + length(line) <= longest => part.push_str(line),
            _ => parts.push(line.to_owned()),
        }
    }
    for part in &mut parts {
        part.truncate(part.trim_end().len());
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// How many characters `text` has.
fn characters(text: &str) -> usize {
    text.chars().count()
}

/// How many units `text` has in UTF-16, as JavaScript counts.
fn utf16_units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests;
