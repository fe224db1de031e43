//! The HTTP client that instant-acme uses for one certificate, and what is lost on the way through
//! it: Retry-After, the whole of the last refusal, and members of challenges that it does not know.
//!
//! A client is made for each certificate from what is shared: the CA's connections and its
//! directory, which is not fetched again each time. What a CA answers reaches instant-acme as
//! [`Reader`] and [`Problem`] have read it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Collected};
use instant_acme::{BodyWrapper, BytesResponse, Error};

use super::directory::Directory;
use super::lenient::{EXCERPT, Lasting, Reader, Resource, absolute, url_at};
use crate::acme::error::problem::{self, Problem};
use crate::clock::{Clock, UnixTime};
use crate::http_client::{Body, HttpClient, HttpError};
use crate::printable::one_line;

/// How many redirects are followed in a row.
const REDIRECTS: u32 = 5;

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

/// A reply that is no success.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<UnixTime>,
    /// What it says, where it says it as ACME wants it.
    pub(super) problem: Option<Problem>,
    /// Its first words, where it does not.
    pub(super) words: Option<String>,
    /// Where it redirects to.
    pub(super) location: Option<String>,
    /// Where the terms of service are that have to be agreed to, where they have changed.
    pub(super) terms: Option<String>,
}

impl Refusal {
    /// What `reply` refuses, `None` where it is a success.
    pub(super) fn of(reply: &Response<Bytes>, now: UnixTime) -> Option<Self> {
        let (status, body) = (reply.status(), reply.body());
        let problem = Problem::read(body);
        (!status.is_success()).then(|| Self {
            status,
            retry_after: retry_after(reply.headers(), now),
            words: problem::words(body).filter(|_| problem.is_none()),
            problem,
            location: header(reply.headers(), LOCATION),
            terms: links(reply.headers(), "terms-of-service")
                .into_iter()
                .next(),
        })
    }

    /// The type of ACME's problem, empty where it states none.
    pub(super) fn kind(&self) -> &str {
        self.problem.as_ref().map_or("", Problem::kind)
    }

    /// The same as instant-acme has it.
    pub(super) fn to_error(&self) -> Error {
        let problem = self.problem.clone().unwrap_or_default();
        match serde_json::from_value::<instant_acme::Problem>(problem.to_json()) {
            Ok(problem) => Error::Api(problem),
            Err(error) => Error::Json(error),
        }
    }
}

/// A client for one certificate. A handle; clones share what is remembered.
#[derive(Clone)]
pub(super) struct AcmeClient(Arc<Inner>);

struct Inner {
    http: Arc<HttpClient>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
    reader: Mutex<Reader>,
}

/// What the last reply said.
#[derive(Default)]
struct Last {
    refusal: Option<Refusal>,
    retry_after: Option<UnixTime>,
    alternates: Vec<String>,
    location: Option<String>,
    /// Of a request that was signed, where it succeeded.
    accepted: Option<Accepted>,
}

/// A reply that is a success.
struct Accepted {
    url: Uri,
    status: StatusCode,
    body: Bytes,
}

impl AcmeClient {
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
            reader: Mutex::default(),
        }))
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// Fetches what nobody has to sign for. It leaves no trace in what is remembered.
    ///
    /// # Errors
    /// Where there is no whole answer.
    pub(super) async fn get(&self, url: Uri) -> Result<Response<Bytes>, HttpError> {
        follow_redirects(&self.0.http, &Method::GET, url).await
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

    /// Has the CA give a nonce.
    ///
    /// # Errors
    /// Where it gives none.
    pub(super) async fn new_nonce(&self) -> Result<String, Error> {
        let nonce = self.0.new_nonce().await?;
        let nonce = nonce.to_str().map(str::to_owned);
        nonce.map_err(|_| Error::Str("a nonce in the response of newNonce"))
    }

    /// Where the last reply has the same in other forms: a certificate with another chain.
    pub(super) fn alternates(&self) -> Vec<String> {
        self.0.last().alternates.clone()
    }

    /// Where the last reply, a success, says that something has been made.
    pub(super) fn location(&self) -> Option<String> {
        let last = self.0.last();
        last.location.clone().filter(|_| last.refusal.is_none())
    }

    /// What the last reply, a success of newOrder, says in its status and its first words; `None`
    /// where it was another reply.
    pub(super) fn accepted_order(&self) -> Option<String> {
        let last = self.0.last();
        let accepted = last.accepted.as_ref()?;
        let is_it = self.0.is_at(&accepted.url, &self.0.directory.new_order);
        is_it.then(|| {
            let body = String::from_utf8_lossy(&accepted.body);
            match one_line(body.trim(), EXCERPT) {
                words if words.is_empty() => format!("{} without a body", accepted.status),
                words => format!("{} and begins with {words}", accepted.status),
            }
        })
    }

    /// What the challenge at `url` says of a lasting record.
    pub(super) fn lasting(&self, url: &str) -> Option<Lasting> {
        self.0.reader().lasting(url).cloned()
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

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers instant-acme.
    async fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        if request.method() == Method::GET && *request.uri() == self.directory.url {
            *self.last() = Last::default();
            return Ok(response(Response::new(self.directory.body.clone())));
        }
        if request.method() == Method::HEAD {
            let mut reply = Response::new(Bytes::new());
            let nonce = self.new_nonce().await?;
            reply.headers_mut().insert(REPLAY_NONCE, nonce);
            return Ok(response(reply));
        }
        let (head, body) = request.into_parts();
        let url = head.uri.clone();
        let body = body.collect().await.map(Collected::to_bytes);
        let body = body.map_err(|error| Error::Other(Box::new(error)))?;
        let mut reply = self.send(Request::from_parts(head, body)).await?;
        let refusal = self.last().refusal.clone();
        if let Some(refusal) = refusal {
            *reply.body_mut() = refusal
                .problem
                .unwrap_or_default()
                .to_json()
                .to_string()
                .into();
            if refusal.status.is_redirection() {
                // It would take that for a success.
                *reply.status_mut() = StatusCode::BAD_GATEWAY;
            }
        } else {
            let read = self.read(&url, reply.body());
            *reply.body_mut() = read.map_err(|error| Error::Other(Box::new(error)))?;
        }
        Ok(response(reply))
    }

    /// What the answer in `body`, a success, says to instant-acme.
    fn read(&self, url: &Uri, body: &Bytes) -> Result<Bytes, super::lenient::Unreadable> {
        let (directory, mut reader) = (&self.directory, self.reader());
        let is = |place: &str| self.is_at(url, place);
        let resource = if is(&directory.new_account) {
            Resource::Account
        } else if is(&directory.new_order) {
            reader.begin_order();
            Resource::Order
        } else {
            reader.resource(&url.to_string())
        };
        reader.read(resource, url, body)
    }

    /// Whether `url` is that of a resource in the directory.
    fn is_at(&self, url: &Uri, resource: &str) -> bool {
        resource.parse::<Uri>().is_ok_and(|place| place == *url)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        *self.last() = Last::default();
        let url = request.uri().clone();
        let reply = self.http.send(request.map(Into::into)).await;
        let mut reply = reply.map_err(|error| Error::Other(Box::new(error)))?;
        if let Some(place) = header(reply.headers(), LOCATION) {
            let place = url_at(&url, &place).and_then(|place| HeaderValue::from_str(&place).ok());
            match place {
                Some(place) => drop(reply.headers_mut().insert(LOCATION, place)),
                // Nothing can be asked of what is no URL.
                None if reply.status().is_success() => drop(reply.headers_mut().remove(LOCATION)),
                None => {}
            }
        }
        self.record_response(&reply);
        if reply.status().is_success() {
            let (status, body) = (reply.status(), reply.body().clone());
            self.last().accepted = Some(Accepted { url, status, body });
        }
        Ok(reply)
    }

    fn record_response(&self, reply: &Response<Bytes>) {
        let now = self.clock.now();
        *self.last() = Last {
            refusal: Refusal::of(reply, now),
            retry_after: retry_after(reply.headers(), now),
            alternates: links(reply.headers(), "alternate"),
            location: header(reply.headers(), LOCATION),
            accepted: None,
        };
    }

    /// A nonce (RFC 8555, section 7.2): of any success, and by GET where HEAD gives none.
    async fn new_nonce(&self) -> Result<HeaderValue, Error> {
        let url: Uri = self.directory.new_nonce.parse()?;
        for method in [Method::HEAD, Method::GET] {
            *self.last() = Last::default();
            let reply = follow_redirects(&self.http, &method, url.clone()).await;
            let reply = reply.map_err(|error| Error::Other(Box::new(error)))?;
            self.record_response(&reply);
            let status = reply.status();
            if let Some(nonce) = reply.headers().get(REPLAY_NONCE)
                && status.is_success()
            {
                return Ok(nonce.clone());
            }
            let is_busy = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
            if is_busy || status == StatusCode::TOO_MANY_REQUESTS {
                break;
            }
        }
        Err(Error::Str("a nonce in the response of newNonce"))
    }
}

impl instant_acme::HttpClient for AcmeClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.request(request).await })
    }
}

fn response(reply: Response<Bytes>) -> BytesResponse {
    let (parts, body) = reply.into_parts();
    let body = Box::new(body);
    BytesResponse { parts, body }
}

/// Fetches what is at `url`, over redirects to HTTPS. What is signed is not sent this way: a
/// signature is for one URL.
///
/// # Errors
/// Where there is no whole answer.
pub(super) async fn follow_redirects(
    http: &HttpClient,
    method: &Method,
    mut url: Uri,
) -> Result<Response<Bytes>, HttpError> {
    let mut left = REDIRECTS;
    loop {
        let mut request = Request::new(Body::default());
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.clone();
        let reply = http.send(request).await?;
        let place = header(reply.headers(), LOCATION).filter(|_| reply.status().is_redirection());
        let next = place.and_then(|place| absolute(&url, &place).parse::<Uri>().ok());
        match next.filter(|next| next.scheme() == Some(&http::uri::Scheme::HTTPS)) {
            Some(next) if left > 0 => url = next,
            _ => return Ok(reply),
        }
        left -= 1;
    }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// The nonce that comes with an answer.
pub(super) fn nonce_of(headers: &HeaderMap) -> Option<String> {
    header(headers, REPLAY_NONCE)
}

/// When a reply asks to be asked again: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: UnixTime) -> Option<UnixTime> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        // Times are whole seconds: `now` may lie almost one back, and too early is not obeyed.
        return Some(now.saturating_add(seconds.into()).saturating_add(1));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    Some(date.ok()?.as_second())
}

/// The targets of all links with this relation (RFC 8288): several may be in one field.
fn links(headers: &HeaderMap, relation: &str) -> Vec<String> {
    let has = |parameters: &str| {
        parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let mut relations = value.trim().trim_matches('"').split(' ');
            name.trim().eq_ignore_ascii_case("rel")
                && relations.any(|one| one.eq_ignore_ascii_case(relation))
        })
    };
    let fields = headers.get_all(LINK).iter();
    let fields = fields.filter_map(|value| value.to_str().ok());
    fields
        .flat_map(|field| field.split('<').skip(1))
        .filter_map(|link| link.split_once('>'))
        .filter(|(_, parameters)| has(parameters.trim_end().trim_end_matches(',')))
        .map(|(target, _)| target.to_owned())
        .collect()
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

    #[test]
    fn other_chains_are_found_in_every_form_of_a_link() {
        let links = [
            ("link", "<https://ca/dir>;rel=\"index\""),
            ("link", "<https://ca/cert/1>;rel=\"alternate\""),
            (
                "link",
                "<https://ca/cert/2>; title=x; rel=alternate, <https://ca/up>;rel=up, \
                 <https://ca/cert/3>; Rel=\"up alternate\"",
            ),
            ("link", "nothing"),
        ];
        let reply = reply(200, &links, "");
        assert_eq!(
            super::links(reply.headers(), "alternate"),
            [
                "https://ca/cert/1",
                "https://ca/cert/2",
                "https://ca/cert/3"
            ]
        );
    }
}
