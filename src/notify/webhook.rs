//! `webhook`: a request with the notification as JSON.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};

use super::response::{MAX_ANSWER, outcome, redact};
use super::signature::sign;
use super::{DeliveryError, Notification, Sender};
use crate::clock::Clock;
use crate::config::model::Webhook;
use crate::http_client::{Body, HttpClient, HttpError, Options, Patience};
use crate::secret::Secret;

/// The field with the id of the notification.
const ID: &str = "snigate-notification-id";

/// The field with the signature.
const SIGNATURE: &str = "snigate-signature";

/// How many entries a request has at most: a program counts, people read.
const MAX_ENTRIES: usize = 500;

/// A part of a field's value that is shorter is a word, not a secret.
const SHORTEST_SECRET: usize = 5;

/// Posts notifications to a server.
pub(super) struct WebhookSender {
    webhook: Webhook,
    /// What is not to be shown if the server sends it back.
    secrets: Vec<Secret>,
    http: HttpClient,
    clock: Arc<dyn Clock>,
}

impl WebhookSender {
    /// Reads the roots to trust.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(super) fn open(webhook: &Webhook, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let is_plain = webhook.url.is_plain();
        let http = HttpClient::new(Options {
            ca_file: webhook.ca_file.as_deref(),
            proxy: None,
            allow_plain: is_plain,
            only_plain: is_plain,
            patience: Patience {
                connect: webhook.timeout,
                request: webhook.timeout,
            },
            max_answer: Some(MAX_ANSWER),
        });
        Ok(Self {
            http: http.map_err(|error| cannot_reach(webhook, &error))?,
            secrets: secrets(webhook),
            webhook: webhook.clone(),
            clock,
        })
    }

    /// Posts this body, and returns the response whatever its status.
    ///
    /// # Errors
    /// If there is no response.
    pub(super) async fn post(&self, id: &str, body: Vec<u8>) -> Result<Response<Bytes>, String> {
        let response = self.http.send(self.request(id, body)?).await;
        response.map_err(|error| cannot_reach(&self.webhook, &error))
    }

    /// A text of the server's without what may be secret of the requests.
    pub(super) fn redact(&self, text: &str) -> String {
        redact(text, &self.webhook.url, &self.secrets)
    }

    fn request(&self, id: &str, body: Vec<u8>) -> Result<Request<Body>, String> {
        let mut request = Request::post(self.webhook.url.expose_uri().clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ID, id);
        if let Some(secret) = &self.webhook.secret {
            let signature = sign(secret, self.clock.now(), &body);
            let signature = signature.map_err(|error| error.to_string())?;
            request = request.header(SIGNATURE, signature);
        }
        for (name, value) in &self.webhook.headers {
            let mut value =
                HeaderValue::from_str(value.expose()).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let body = Body::new(Bytes::from(body));
        request.body(body).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Sender for WebhookSender {
    async fn deliver(&self, notification: &Notification) -> Result<(), DeliveryError> {
        let body = serde_json::to_vec(notification)
            .map_err(|error| DeliveryError::never(error.to_string()))?;
        let request = self.request(&notification.id, body);
        let request = request.map_err(DeliveryError::later)?;
        let response = self.http.send(request).await;
        let now = self.clock.now();
        outcome(&self.webhook.url, &self.secrets, response, now).map(|_| ())
    }

    fn max_entries(&self) -> usize {
        MAX_ENTRIES
    }
}

/// The values of its fields, their words, such as a token after `Bearer`, and what it signs with.
fn secrets(webhook: &Webhook) -> Vec<Secret> {
    let values = webhook.headers.iter().map(|(_, value)| value);
    let values = values.chain(&webhook.secret);
    let texts = values.flat_map(|value| {
        let words = value.expose().split_whitespace();
        std::iter::once(value.expose()).chain(words)
    });
    let texts = texts.filter(|text| text.len() >= SHORTEST_SECRET);
    texts.map(|text| Secret::new(text.to_owned())).collect()
}

fn cannot_reach(webhook: &Webhook, error: &HttpError) -> String {
    format!("{} cannot be reached: {error}", webhook.url)
}
