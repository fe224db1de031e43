//! Services that are asked whether a request is served.
//!
//! A service gets the head of the request as a GET of its own, and never the body. Whatever it fails
//! to say is a no. So many requests may wait for one service, whatever the configuration.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST,
    LOCATION, RANGE, SET_COOKIE, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use moka::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Denial;
use crate::config::model::ForwardAuth;
use crate::field::{is_claim, is_hop_by_hop};
use crate::host::NameBuffer;
use crate::http_client::{Body, HttpClient, HttpError};
use crate::proxy::authority::Authority;
use crate::proxy::granted::Granted;
use crate::proxy::header::connection_names;
use crate::proxy::refusal::Refusal;
use crate::proxy::request::Request;
use crate::proxy::response::LocalResponse;
use crate::throttle::Throttle;

/// How many requests one service is asked about at a time, and how many more may wait for that.
const MOST_ASKED: usize = 256;
const MOST_WAITING: usize = 1024;

/// How many services are counted.
const MOST_SERVICES: u64 = 16 * 1024;

/// The most octets of what is passed on of a response's head.
const MOST_FIELDS: usize = 16 * 1024;

/// Asks services. What a service is asked about outlives reloads, so it is counted by URL.
pub(super) struct Services {
    rooms: Cache<Box<str>, Arc<Room>>,
    failures: Throttle,
}

/// Room for requests that wait for a service.
struct Room {
    asked: Semaphore,
    /// Counts those that the service is asked about too.
    waiting: Semaphore,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            rooms: Cache::new(MOST_SERVICES),
            failures: Throttle::default(),
        }
    }
}

impl Default for Room {
    fn default() -> Self {
        Self {
            asked: Semaphore::new(MOST_ASKED),
            waiting: Semaphore::new(MOST_ASKED + MOST_WAITING),
        }
    }
}

impl Services {
    /// Asks a service whether a request is served.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) async fn ask(
        &self,
        service: &ForwardAuth,
        request: &Request<'_>,
    ) -> Result<Granted, Denial> {
        let answer = match question(service, request) {
            Ok(question) => {
                let answer = timeout(service.timeout, self.send(service, question)).await;
                answer.unwrap_or_else(|_| Err(HttpError::Timeout(service.timeout).to_string()))
            }
            Err(error) => Err(error.to_string()),
        };
        let verdict = answer.and_then(|answer| match answer.status().is_success() {
            true => grant(service, answer.headers()).map(Ok),
            false => denial(&answer).map(Err),
        });
        verdict.unwrap_or_else(|error| {
            if let Some(suppressed) = self.failures.admit() {
                let service = service.url.authority().map_or("-", |of| of.as_str());
                tracing::warn!(service, %error, suppressed, "an authentication service failed");
            }
            Err(Refusal::Undecided.into())
        })
    }

    /// Sends a question once there is room for it. The error says why there is no answer.
    async fn send(
        &self,
        service: &ForwardAuth,
        question: http::Request<Body>,
    ) -> Result<Response<Bytes>, String> {
        let client = service.client.as_ref();
        let client = client.ok_or("there are no roots to trust it by")?;
        let url = service.url.to_string();
        let room = self.rooms.get_with(url.into(), Arc::default);
        let full = || "too many requests wait for it".to_owned();
        let _waiting = room.waiting.try_acquire().map_err(|_| full())?;
        let _asked = room.asked.acquire().await.map_err(|_| full())?;
        let answer = ask_twice(client, question).await;
        answer.map_err(|error| error.to_string())
    }
}

/// Sends a question again if its connection breaks: the service may just have closed it.
async fn ask_twice(
    client: &HttpClient,
    question: http::Request<Body>,
) -> Result<Response<Bytes>, HttpError> {
    match client.send(question.clone()).await {
        Err(HttpError::Broken(_)) => client.send(question).await,
        answer => answer,
    }
}

/// The request that describes another one to a service.
fn question(
    service: &ForwardAuth,
    request: &Request<'_>,
) -> Result<http::Request<Body>, http::Error> {
    let mut fields = HeaderMap::with_capacity(32);
    let mut cookies = Vec::new();
    let all = || request.fields.iter();
    for (name, value) in all() {
        let is_nominated = || connection_names(all()).any(|one| one.eq_ignore_ascii_case(name));
        if is_hop_by_hop(name) || is_claim(name) || is_nominated() {
            continue;
        }
        let name = HeaderName::from_bytes(name)?;
        if name == COOKIE {
            // HTTP/2 may split it (RFC 9113, section 8.2.3).
            cookies.push(value);
        } else if !is_of_exchange(&name) {
            fields.append(name, HeaderValue::from_bytes(value)?);
        }
    }
    if !cookies.is_empty() {
        fields.insert(COOKIE, HeaderValue::try_from(cookies.join(&b"; "[..]))?);
    }
    let mut buffer = NameBuffer::new();
    let host = Authority::parse(request.authority, &mut buffer);
    let proto = if request.is_secure() { "https" } else { "http" };
    let client = match (request.relayed, request.client) {
        (Some(relayed), _) => relayed.chain.to_string(),
        (None, Some(client)) => client.to_string(),
        (None, None) => String::new(),
    };
    let host = host.map(|host| host.to_string()).unwrap_or_default();
    let port = request.port.map(|port| port.to_string());
    for (name, value) in [
        ("x-forwarded-method", request.method.as_bytes()),
        ("x-forwarded-proto", proto.as_bytes()),
        ("x-forwarded-host", host.as_bytes()),
        (
            "x-forwarded-port",
            port.as_deref().unwrap_or_default().as_bytes(),
        ),
        ("x-forwarded-uri", request.origin_form()),
        ("x-forwarded-for", client.as_bytes()),
    ] {
        if !value.is_empty() {
            fields.insert(name, HeaderValue::from_bytes(value)?);
        }
    }
    let mut question = http::Request::new(Body::default());
    *question.uri_mut() = service.url.clone();
    *question.headers_mut() = fields;
    Ok(question)
}

/// Whether a field belongs to the exchange of the request alone: where it goes, how its body is
/// framed, and which form or part of the response is wanted.
fn is_of_exchange(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 7] = [
        ACCEPT_ENCODING,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        EXPECT,
        HOST,
        RANGE,
        TRANSFER_ENCODING,
    ];
    NAMES.contains(name) || name.as_str().starts_with("if-")
}

/// What a service says of a request that it admits.
fn grant(service: &ForwardAuth, fields: &HeaderMap) -> Result<Granted, String> {
    let names = &service.copy_headers;
    let granted = Granted {
        names: Arc::clone(names),
        fields: select(fields, names),
        cookies: fields.get_all(SET_COOKIE).into_iter().cloned().collect(),
    };
    let octets = |value: &HeaderValue| value.len();
    let set = granted.fields.iter().map(|(_, value)| octets(value));
    let cookies = granted.cookies.iter().map(octets);
    check_size(set.chain(cookies))?;
    Ok(granted)
}

/// The response of a service that does not admit a request, as the client gets it.
fn denial(answer: &Response<Bytes>) -> Result<Denial, String> {
    let (status, fields) = (answer.status(), answer.headers());
    if status.is_informational() {
        return Err(format!("it responded with {status}"));
    }
    let content_type = fields.get(CONTENT_TYPE).cloned();
    let content_type =
        content_type.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
    let response = LocalResponse::new(status, content_type, answer.body().clone());
    let passed = select(fields, &[LOCATION, SET_COOKIE, WWW_AUTHENTICATE]);
    check_size(passed.iter().map(|(_, value)| value.len()))?;
    let response = passed
        .into_iter()
        .fold(response.uncacheable(), |response, (name, value)| {
            response.with_field(name, value)
        });
    Ok(Denial {
        refusal: Refusal::Denied,
        response: Some(Box::new(match status {
            // It says itself when to try again, or does not.
            StatusCode::SERVICE_UNAVAILABLE => response.without_retry(),
            _ => response,
        })),
    })
}

/// The fields of these names, each as often as it is there.
fn select(fields: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let all = names.iter().flat_map(|name| {
        let values = fields.get_all(name).into_iter();
        values.map(move |value| (name.clone(), value.clone()))
    });
    all.collect()
}

fn check_size(octets: impl Iterator<Item = usize>) -> Result<(), String> {
    match octets.sum::<usize>() > MOST_FIELDS {
        true => Err(format!(
            "its fields are longer than {} KiB",
            MOST_FIELDS / 1024
        )),
        false => Ok(()),
    }
}
