//! The HTTP client that instant-acme uses for one certificate, and what is lost on the way through
//! it: Retry-After and the whole of the last refusal.
//!
//! A session is made for each certificate from what is shared: the CA's connections and its
//! directory, which is not fetched again each time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{HeaderMap, LINK, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected};
use instant_acme::{BodyWrapper, BytesResponse, Error};

use super::ca::Directory;
use super::problem::Problem;
use crate::clock::{Clock, UnixTime};
use crate::http_client::HttpClient;

/// A reply that is no success.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<UnixTime>,
    /// What it says, where it says it as ACME wants it.
    pub(super) problem: Option<Problem>,
    /// Where the terms of service are that have to be agreed to, where they have changed.
    pub(super) terms: Option<String>,
}

impl Refusal {
    /// What `reply` refuses, `None` where it is a success.
    pub(super) fn of(reply: &Response<Bytes>, now: UnixTime) -> Option<Self> {
        let status = reply.status();
        (status.is_client_error() || status.is_server_error()).then(|| Self {
            status,
            retry_after: retry_after(reply.headers(), now),
            problem: serde_json::from_slice(reply.body()).ok(),
            terms: link(reply.headers(), "terms-of-service"),
        })
    }
}

/// A client for one certificate. A handle; clones share what is remembered.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

struct Inner {
    http: Arc<HttpClient>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
}

/// What the last reply said.
#[derive(Default)]
struct Last {
    refusal: Option<Refusal>,
    retry_after: Option<UnixTime>,
}

impl Session {
    pub(super) fn new(
        http: Arc<HttpClient>,
        directory: Arc<Directory>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner {
            http,
            directory,
            clock,
            last: Mutex::default(),
        }))
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// What the last reply refused, `None` where it was a success or there was none.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.last().refusal.clone()
    }

    /// Sends a request as it is, whoever made it.
    ///
    /// # Errors
    /// Where there is no answer. What the answer is stays behind, a refusal too.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        self.0.send(request).await
    }

    /// Before when the last reply asked not to be asked again.
    pub(super) fn retry_after(&self) -> Option<UnixTime> {
        self.0.last().retry_after
    }
}

impl Inner {
    /// Nothing in here leaves it half changed.
    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        if request.method() == Method::GET && *request.uri() == self.directory.url {
            *self.last() = Last::default();
            let (parts, ()) = Response::new(()).into_parts();
            let body = Box::new(self.directory.body.clone());
            return Ok(BytesResponse { parts, body });
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(Collected::to_bytes);
        let body = body.map_err(|error| Error::Other(Box::new(error)))?;
        let reply = self.send(Request::from_parts(head, body)).await?;
        let (parts, body) = reply.into_parts();
        let body = Box::new(body);
        Ok(BytesResponse { parts, body })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        *self.last() = Last::default();
        let reply = self.http.send(request.map(Into::into)).await;
        let reply = reply.map_err(|error| Error::Other(Box::new(error)))?;
        let now = self.clock.now();
        *self.last() = Last {
            refusal: Refusal::of(&reply, now),
            retry_after: retry_after(reply.headers(), now),
        };
        Ok(reply)
    }
}

impl instant_acme::HttpClient for Session {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.request(request).await })
    }
}

/// When a reply asks to be asked again: seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: UnixTime) -> Option<UnixTime> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        // Times are whole seconds: `now` may lie almost one back, and too early is not obeyed.
        return Some(now.saturating_add(seconds.into()).saturating_add(1));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    Some(date.ok()?.as_second())
}

/// The target of a link with this relation (RFC 8288).
fn link(headers: &HeaderMap, relation: &str) -> Option<String> {
    let wanted = format!("rel=\"{relation}\"");
    headers.get_all(LINK).iter().find_map(|value| {
        let (target, parameters) = value.to_str().ok()?.split_once('>')?;
        parameters
            .contains(&wanted)
            .then(|| target.trim_start().trim_start_matches('<').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let mut reply = Response::builder().status(status);
        for (name, value) in headers {
            reply = reply.header(*name, *value);
        }
        reply.body(Bytes::from(body.to_owned())).expect("a reply")
    }

    #[test]
    fn a_refusal_keeps_when_to_come_back_and_why() {
        let body = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slowly"}"#;
        let refusal = Refusal::of(&reply(429, &[("retry-after", "60")], body), 1000);
        let refusal = refusal.expect("a refusal");
        assert_eq!(refusal.retry_after, Some(1061));
        assert_eq!(refusal.problem.expect("a problem").kind(), "rateLimited");
        let date = "Fri, 31 Dec 1999 23:59:59 GMT";
        let refusal = Refusal::of(&reply(503, &[("retry-after", date)], "<html>"), 1000);
        let refusal = refusal.expect("a refusal");
        assert_eq!(refusal.retry_after, Some(946_684_799));
        assert_eq!(refusal.problem, None);
        assert!(Refusal::of(&reply(201, &[("retry-after", "3")], "{}"), 0).is_none());
    }

    #[test]
    fn changed_terms_are_found_among_the_links() {
        let links = [
            ("link", "<https://ca/dir>;rel=\"index\""),
            ("link", "<https://ca/terms>; rel=\"terms-of-service\""),
        ];
        let refusal = Refusal::of(&reply(403, &links, ""), 0).expect("a refusal");
        assert_eq!(refusal.terms.as_deref(), Some("https://ca/terms"));
    }
}
