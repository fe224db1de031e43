//! HTTP APIs: how a provider is asked, and what its refusals mean.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DnsError;
use crate::config::model::Dns;
use crate::http_client::{Body, HttpClient, Options};
use crate::secret::Secret;

/// How much of a provider's text goes into an error, in characters.
const MAX_SAID: usize = 300;

/// How many pages of a list are read: no zone has that many records of one name.
pub(super) const MAX_PAGES: u32 = 50;

/// The API of a provider.
pub(super) struct Api {
    /// The name of the entry in the configuration.
    entry: String,
    /// The name of the service, for people.
    service: &'static str,
    /// What to check if it denies access.
    credentials: &'static str,
    endpoint: String,
    client: HttpClient,
    /// Sent with every request.
    authorization: Option<HeaderValue>,
    /// Never shown, even if the provider echoes it.
    secrets: Vec<Secret>,
}

/// A response.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    retry_after: Option<String>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }
}

impl Api {
    /// The API at `endpoint`, for the entry `name` of the configuration.
    pub(super) fn new(
        name: &str,
        dns: &Dns,
        (service, credentials): (&'static str, &'static str),
        endpoint: &str,
        secrets: Vec<Secret>,
    ) -> Result<Self, DnsError> {
        let client = HttpClient::new(Options {
            ca_file: dns.ca_file.as_deref(),
            proxy: dns.proxy.as_ref(),
            // The configuration warns about it.
            allow_plain: endpoint.starts_with("http:"),
            ..Options::default()
        })
        .map_err(|error| DnsError::Refused(format!("dns.{name}: {error}")))?;
        Ok(Self {
            entry: name.to_owned(),
            service,
            credentials,
            endpoint: endpoint.to_owned(),
            client,
            authorization: None,
            secrets,
        })
    }

    /// Adds a token to every request (RFC 6750, section 2.1), which is the only secret.
    pub(super) fn with_bearer(
        name: &str,
        dns: &Dns,
        words: (&'static str, &'static str),
        endpoint: &str,
        token: &Secret,
    ) -> Result<Self, DnsError> {
        let mut api = Self::new(name, dns, words, endpoint, vec![token.clone()])?;
        api.authorization = Some(api.sensitive(&format!("Bearer {}", token.expose()))?);
        Ok(api)
    }

    /// Adds a user name and a password to every request (RFC 7617).
    pub(super) fn with_password(mut self, user: &str, password: &Secret) -> Result<Self, DnsError> {
        let pair = format!("{user}:{}", password.expose());
        let encoded = openssl::base64::encode_block(pair.as_bytes());
        self.authorization = Some(self.sensitive(&format!("Basic {encoded}"))?);
        Ok(self)
    }

    /// The name of the entry in the configuration.
    pub(super) fn name(&self) -> &str {
        &self.entry
    }

    /// The base URL.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A header value that nobody logs on its way.
    pub(super) fn sensitive(&self, value: &str) -> Result<HeaderValue, DnsError> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| self.refused(&format!("{} cannot be sent", self.credentials)))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Sends a request with JSON, or without a body.
    pub(super) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, DnsError> {
        let mut headers = HeaderMap::new();
        let body = body.map(|body| {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Bytes::from(body.to_string())
        });
        self.send_request(method, path, headers, body.unwrap_or_default())
            .await
    }

    /// Sends a request, and returns the response whatever its status.
    pub(super) async fn send_request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, DnsError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .body(Body::new(body))
            .map_err(|error| self.refused(&format!("its URL cannot be requested: {error}")))?;
        *request.headers_mut() = headers;
        if let Some(authorization) = &self.authorization {
            request
                .headers_mut()
                .insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self.client.send(request).await.map_err(|error| {
            let said = format!(
                "cannot contact {} at {}: {error}",
                self.service, self.endpoint
            );
            if error.is_permanent() {
                self.refused(&said)
            } else {
                self.unreachable(&said)
            }
        })?;
        let (head, body) = answer.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER);
        Ok(Answer {
            status: head.status,
            body,
            retry_after: retry_after
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        })
    }

    /// Parses the JSON of a successful response.
    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        doing: &str,
        answer: &Answer,
    ) -> Result<T, DnsError> {
        self.check_success(doing, answer)?;
        serde_json::from_slice(&answer.body).map_err(|error| {
            self.unreachable(&format!(
                "{} sent an unexpected response when asked to {doing}: {error}; check 'endpoint'",
                self.service
            ))
        })
    }

    /// Checks that a response is successful.
    pub(super) fn check_success(&self, doing: &str, answer: &Answer) -> Result<(), DnsError> {
        if answer.is_success() {
            return Ok(());
        }
        Err(self.failure(doing, answer, &failure_text(&answer.body)))
    }

    /// The error for an unsuccessful response, with its text.
    pub(super) fn failure(&self, doing: &str, answer: &Answer, said: &str) -> DnsError {
        let Self {
            service,
            credentials,
            ..
        } = self;
        let status = answer.status.as_u16();
        let said = match said {
            "" => String::new(),
            said => format!(": {said}"),
        };
        match status {
            401 | 403 => self.refused(&format!(
                "{service} does not allow us to {doing} ({status}){said}; check {credentials}"
            )),
            408 | 423 | 425 | 429 | 500..=599 => {
                let wait = answer.retry_after.as_deref();
                let wait = wait.map_or_else(String::new, |wait| {
                    format!("; it asks for a retry after {wait}")
                });
                let why = if status == 429 {
                    "got too many requests"
                } else {
                    "had a problem"
                };
                self.unreachable(&format!(
                    "{service} {why} and did not {doing} ({status}){said}{wait}"
                ))
            }
            _ => self.refused(&format!("{service} did not {doing} ({status}){said}")),
        }
    }

    /// An error that lasts until somebody does something.
    pub(super) fn refused(&self, what: &str) -> DnsError {
        DnsError::Refused(self.tidy(what))
    }

    /// An error that may pass.
    pub(super) fn unreachable(&self, what: &str) -> DnsError {
        DnsError::Unreachable(self.tidy(what))
    }

    /// The text with the entry that it concerns, and without secrets.
    fn tidy(&self, what: &str) -> String {
        let mut text = format!("dns.{}: {what}", self.entry);
        let secrets = self.secrets.iter().filter(|one| !one.expose().is_empty());
        for secret in secrets {
            if text.contains(secret.expose()) {
                text = text.replace(secret.expose(), "[redacted]");
            }
        }
        text
    }
}

/// A provider's text about a failure, on one line. Each has it elsewhere.
pub(super) fn failure_text(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => {
            let mut all = Vec::new();
            for place in ["/error", "/error/message", "/message"] {
                all.extend(json.pointer(place).and_then(Value::as_str));
            }
            let errors = json.get("errors").and_then(Value::as_array);
            let messages = errors
                .into_iter()
                .flatten()
                .filter_map(|error| error.get("message")?.as_str());
            all.extend(messages);
            all.join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    // A page for browsers says nothing to people who read a log.
    if text.starts_with('<') {
        return String::new();
    }
    one_line(&text)
}

/// Somebody else's text, short and on one line.
pub(super) fn one_line(text: &str) -> String {
    crate::printable::one_line(text, MAX_SAID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_providers_say_is_found() {
        for (body, expected) in [
            (
                r#"{"success":false,"errors":[{"code":1,"message":"no"},{"message":"never"}]}"#,
                "no; never",
            ),
            (r#"{"id":"unauthorized","message":"not you"}"#, "not you"),
            (r#"{"error":{"code":"x","message":"not so"}}"#, "not so"),
            (r#"{"error":"forbidden"}"#, "forbidden"),
            ("plain\nwords\n", "plain words"),
            ("<html><p>busy</p></html>", ""),
            ("", ""),
            ("[1]", ""),
        ] {
            assert_eq!(failure_text(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(one_line(&"ä".repeat(400)).chars().count(), MAX_SAID + 1);
    }
}
