//! Responses of the gateway itself: configured ones, redirects and error pages.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION,
    RETRY_AFTER, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::config::model::{Coding, Form, Route};
use crate::proxy::coded_fields::{describes_octets, weaken};
use crate::proxy::encodings::Encodings;
use crate::proxy::grpc;
use crate::proxy::header::REQUEST_ID;
use crate::proxy::request::{Fields, Request};
use crate::proxy::response_fields::ResponseFields;
use crate::proxy::session_body::{IDLE_BEFORE, await_body_end, drain_request, is_http2};

/// After how many seconds a client may retry for which the gateway has no room.
const RETRY: &str = "5";

/// A response of the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalResponse {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    location: Option<HeaderValue>,
    allow: Option<HeaderValue>,
    cacheable: bool,
    /// Whether it says when clients may try again.
    retries: bool,
    /// More fields.
    more: Vec<(HeaderName, HeaderValue)>,
    /// What went wrong, as a sentence.
    why: Option<Box<str>>,
    /// What a client of gRPC gets instead of all this, whatever the status.
    grpc: Option<Box<grpc::Failure>>,
    body: Bytes,
    /// The body in content codings, of which each client gets one.
    encodings: Option<Arc<Encodings>>,
    /// The content coding of the body.
    coding: Option<Coding>,
}

impl LocalResponse {
    /// A response with a body.
    pub(crate) fn new(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        Self {
            content_type: Some(content_type),
            body,
            ..Self::status(status)
        }
    }

    /// This response of a route, for which its body is encoded if it is to be compressed.
    pub(crate) fn with_encodings(self, route: &Route) -> Self {
        Self {
            encodings: Encodings::of(route).map(Arc::new),
            ..self
        }
    }

    /// This response as the client of a request gets it, if its body is encoded for it.
    pub(crate) fn encoded_for(&self, request: &Request<'_>) -> Option<Self> {
        let (coding, body) = self.encodings.as_ref()?.choose(request)?;
        Some(Self {
            coding: Some(coding),
            body: body.clone(),
            ..self.clone()
        })
    }

    /// This response, valid for this one request only.
    pub(crate) fn uncacheable(self) -> Self {
        Self {
            cacheable: false,
            ..self
        }
    }

    /// A response that consists of its status.
    pub(crate) fn status(status: StatusCode) -> Self {
        Self {
            status,
            content_type: None,
            location: None,
            allow: None,
            cacheable: true,
            retries: true,
            more: Vec::new(),
            why: None,
            grpc: None,
            body: Bytes::new(),
            encodings: None,
            coding: None,
        }
    }

    /// A response that sends the client elsewhere.
    pub(crate) fn redirect(status: StatusCode, to: HeaderValue) -> Self {
        Self {
            location: Some(to),
            ..Self::status(status)
        }
    }

    /// This response, with the methods that are allowed instead.
    pub(crate) fn allowing(self, methods: Option<HeaderValue>) -> Self {
        Self {
            allow: methods,
            ..self
        }
    }

    /// This response with another field.
    pub(crate) fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.push((name, value));
        self
    }

    /// This response, which does not say when clients may try again.
    pub(crate) fn without_retry(self) -> Self {
        Self {
            retries: false,
            ..self
        }
    }

    /// A page that says what went wrong, in the form that the client's `Accept` field prefers.
    pub(crate) fn error(status: StatusCode, why: &str, accept: &[u8], request_id: &str) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let code = status.as_u16();
        let (content_type, body) = match Form::wanted(accept) {
            Form::Html => (
                "text/html; charset=utf-8",
                format!(
                    "<!doctype html>\n<html lang=\"en\">\n<title>{code} {title}</title>\n\
                     <h1>{code} {title}</h1>\n<p>{why}</p>\n<p>Request <code>{request_id}</code></p>\n",
                ),
            ),
            Form::Json => (
                "application/problem+json",
                format!(
                    "{{\"title\":\"{title}\",\"status\":{code},\"detail\":\"{why}\",\
                     \"request_id\":\"{request_id}\"}}\n",
                ),
            ),
            Form::Text => (
                "text/plain; charset=utf-8",
                format!("{code} {title}\n\n{why}\nRequest {request_id}\n"),
            ),
        };
        let content_type = HeaderValue::from_static(content_type);
        Self {
            why: Some(why.into()),
            ..Self::new(status, content_type, body.into()).uncacheable()
        }
    }

    /// This response in the form that a client of gRPC reads, if a request with these `fields` is
    /// one's: a head alone, whose status of HTTP is 200 and which has one of gRPC (a response of
    /// "trailers only"). What it stands for is still logged.
    pub(crate) fn in_form_for(self, fields: Fields<'_>) -> Self {
        let title = self.status.canonical_reason().unwrap_or_default();
        let why = self.why.as_deref().unwrap_or(title);
        match grpc::Failure::of(fields, self.status, why) {
            Some(failure) => Self {
                grpc: Some(Box::new(failure)),
                body: Bytes::new(),
                ..self
            },
            None => self,
        }
    }

    /// Sends this response, and keeps an HTTP/1 connection if the request's body allows it.
    pub(crate) async fn send(
        &self,
        session: &mut Session,
        gateway: ResponseFields<'_>,
    ) -> Result<()> {
        if self.status == StatusCode::BAD_REQUEST || session.is_process_shutting_down() {
            // Nothing more is read from a client that has sent a malformed request.
            session.set_keepalive(None);
        }
        if is_http2(session) {
            if self.status.is_success() {
                await_body_end(session, IDLE_BEFORE).await;
            } else if !session.is_body_done() && self.may_have_note() {
                let noted = self.clone().with_note();
                return noted.write(session, gateway).await;
            }
        } else if session.get_keepalive().is_some() {
            drain_request(session).await;
            if !session.is_body_done() {
                session.set_keepalive(None);
            }
        }
        self.write(session, gateway).await
    }

    async fn write(&self, session: &mut Session, gateway: ResponseFields<'_>) -> Result<()> {
        let head = self.head(gateway)?;
        let head_alone = session.req_header().method == Method::HEAD;
        let body = self.body().filter(|_| !head_alone);
        session
            .write_response_header(Box::new(head), body.is_none())
            .await?;
        // Pingora does not pass on that nothing follows a head: without its end, a stream is reset.
        if body.is_some() || is_http2(session) {
            session.write_response_body(body.cloned(), true).await?;
        }
        Ok(())
    }

    /// Whether the response has no body, but may have one.
    pub(crate) fn may_have_note(&self) -> bool {
        self.body.is_empty() && !self.is_bodiless() && self.grpc.is_none()
    }

    /// This response with its status as its body.
    pub(crate) fn with_note(self) -> Self {
        Self {
            content_type: Some(HeaderValue::from_static("text/plain; charset=utf-8")),
            body: format!("{}\n", self.status).into(),
            ..self
        }
    }

    fn head(&self, gateway: ResponseFields<'_>) -> Result<ResponseHeader> {
        let mut head = ResponseHeader::build(self.head_status(), Some(8))?;
        for (name, value) in self.fields_with(gateway) {
            head.append_header(name, value)?;
        }
        Ok(head)
    }

    /// The status that the response stands for.
    pub(crate) fn code(&self) -> StatusCode {
        self.status
    }

    /// The status in its head.
    pub(crate) fn head_status(&self) -> StatusCode {
        match &self.grpc {
            Some(_) => StatusCode::OK,
            None => self.status,
        }
    }

    /// The fields of its head, with those that the gateway writes into every response.
    pub(crate) fn fields_with<'a>(
        &'a self,
        gateway: ResponseFields<'a>,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        // What describes an error page is not what the route says of its responses.
        let is_page = !self.cacheable;
        let is_replacement = is_page || self.location.is_some();
        let is_kept = move |name: &HeaderName| is_page || !gateway.drops(name.as_str().as_bytes());
        let more = self.more.iter().cloned();
        let own = self.fields().chain(more);
        let own = own.filter(move |(name, _)| is_kept(name));
        let written = gateway.written().filter_map(move |(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let is_own = is_page && self.fields().any(|(own, _)| own == name);
            let is_foreign = is_replacement && describes_content(name.as_str().as_bytes());
            let value = self.adapt_field(&name, value)?;
            (!is_own && !is_foreign).then_some((name, value))
        });
        // Whatever else it depends on.
        let varies = self.encodings.is_some();
        let vary = varies.then(|| (VARY, HeaderValue::from_static("Accept-Encoding")));
        let id = (REQUEST_ID, gateway.request_id.clone());
        own.chain(written).chain(vary).chain([id])
    }

    /// A field that the route adds, as it is for this body; `None` if it is wrong for it.
    fn adapt_field(&self, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        let is_weak = value.as_bytes().starts_with(b"W/");
        match self.coding {
            Some(_) if *name == ETAG && !is_weak => {
                HeaderValue::try_from(weaken(value.as_bytes())?).ok()
            }
            Some(_) if describes_octets(name.as_str()) => None,
            _ => Some(value.clone()),
        }
    }

    /// The fields of its head, as far as they are its own.
    fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let content_type = self.content_type.clone().filter(|_| !self.body.is_empty());
        let grpc = self.grpc.iter().flat_map(|failure| failure.fields());
        let coding = self
            .coding
            .map(|one| HeaderValue::from_static(one.as_str()));
        let length = (!self.is_bodiless()).then(|| HeaderValue::from(self.body.len()));
        let cache = (!self.cacheable).then(|| HeaderValue::from_static("no-store"));
        // Of the gateway's own responses, those that are not configured.
        let is_busy = !self.cacheable && self.status == StatusCode::SERVICE_UNAVAILABLE;
        let is_told = !self.retries || self.more.iter().any(|(name, _)| name == RETRY_AFTER);
        let retry = (is_busy && !is_told).then(|| HeaderValue::from_static(RETRY));
        [
            (CONTENT_TYPE, content_type),
            (CONTENT_ENCODING, coding),
            (CONTENT_LENGTH, length),
            (LOCATION, self.location.clone()),
            (ALLOW, self.allow.clone()),
            (CACHE_CONTROL, cache),
            (RETRY_AFTER, retry),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .chain(grpc)
    }

    /// What follows its head, if anything.
    pub(crate) fn body(&self) -> Option<&Bytes> {
        Some(&self.body).filter(|body| !body.is_empty() && !self.is_bodiless())
    }

    /// Whether its status allows no body.
    fn is_bodiless(&self) -> bool {
        matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
    }
}

/// Whether a field of a response describes what its body has, so that it is wrong for another one.
pub(crate) fn describes_content(name: &[u8]) -> bool {
    const NAMES: [&str; 13] = [
        "accept-ranges",
        "content-digest",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-location",
        "content-md5",
        "content-range",
        "content-type",
        "digest",
        "etag",
        "last-modified",
        "repr-digest",
    ];
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    NAMES.into_iter().any(is)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn to_a_client_of_grpc_a_failure_is_a_head() {
        let mut fields = HeaderMap::new();
        let page = || LocalResponse::error(StatusCode::BAD_GATEWAY, "It is down.", b"", "00ff");
        assert_eq!(page().in_form_for(Fields::Map(&fields)), page());
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let failure = page().in_form_for(Fields::Map(&fields));
        assert_eq!(failure.code(), StatusCode::BAD_GATEWAY);
        assert!(failure.body().is_none() && !failure.may_have_note());
        let id = HeaderValue::from_static("00ff");
        let head = failure
            .head(ResponseFields::of_request(&id))
            .expect("valid");
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers[CONTENT_TYPE], "application/grpc");
        assert_eq!(head.headers["grpc-status"], "14");
        assert_eq!(head.headers["grpc-message"], "It is down.");
    }

    #[test]
    fn a_problem_is_json() {
        let answer = LocalResponse::error(
            StatusCode::BAD_GATEWAY,
            "It is down.",
            b"application/json",
            "00ff",
        );
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("valid JSON");
        assert_eq!(body["status"], 502);
        assert_eq!(body["title"], "Bad Gateway");
        assert_eq!(body["request_id"], "00ff");
    }

    #[test]
    fn heads_carry_what_the_answer_needs_and_no_more() {
        let id = HeaderValue::from_static("00ff");
        let gateway = ResponseFields::of_request(&id);
        let head = LocalResponse::status(StatusCode::NO_CONTENT)
            .head(gateway)
            .expect("a head");
        assert!(!head.headers.contains_key(CONTENT_LENGTH));
        let to = HeaderValue::from_static("https://a.example/");
        let head = LocalResponse::redirect(StatusCode::FOUND, to)
            .head(gateway)
            .expect("a head");
        assert_eq!(head.headers[LOCATION], "https://a.example/");
        assert_eq!(head.headers[CONTENT_LENGTH], "0");
        assert!(!head.headers.contains_key(CONTENT_TYPE));
        assert!(!head.headers.contains_key(CACHE_CONTROL));
    }
}
