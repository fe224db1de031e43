//! The HTTP client that instant-acme uses for one certificate. It keeps what instant-acme drops:
//! `Retry-After`, the whole of the last refusal, and members of challenges that it does not know.
//!
//! Each certificate has its own client, made from what is shared: the CA's connections and its
//! directory, which is not fetched again each time. A CA's replies reach instant-acme as read by
//! [`Reader`] and [`Refusal`].

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Collected};
use instant_acme::{BodyWrapper, BytesResponse, Error};

use super::directory::Directory;
use super::json::{absolute, url_at};
use super::lenient::{EXCERPT, Lasting, Reader, Resource, Unreadable};
use super::refusal::{Refusal, header, links, retry_after};
use crate::clock::{Clock, UnixTime};
use crate::http_client::{Body, HttpClient, HttpError};
use crate::lock::MutexExt;
use crate::printable::one_line;

/// How many redirects are followed in a row.
const REDIRECTS: u32 = 5;

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

/// A client for one certificate. A handle: clones share what it remembers.
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
    /// The last reply to a signed request, if it was a success.
    accepted: Option<Accepted>,
}

/// A successful reply.
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

    /// Fetches a resource that needs no signature. Does not change what is remembered.
    ///
    /// # Errors
    /// If there is no complete reply.
    pub(super) async fn get(&self, url: Uri) -> Result<Response<Bytes>, HttpError> {
        follow_redirects(&self.0.http, &Method::GET, url).await
    }

    /// The refusal in the last reply; `None` if it was a success or there was none.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.last().refusal.clone()
    }

    /// Sends a request as it is. The reply is remembered, also if it is a refusal.
    ///
    /// # Errors
    /// If there is no reply.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        self.0.send(request).await
    }

    /// Fetches a nonce.
    ///
    /// # Errors
    /// If the CA returns none.
    pub(super) async fn new_nonce(&self) -> Result<String, Error> {
        let nonce = self.0.new_nonce().await?;
        let nonce = nonce.to_str().map(str::to_owned);
        nonce.map_err(|_| Error::Str("a nonce in the response of newNonce"))
    }

    /// Links in the last reply to other forms of the same resource: a certificate with another
    /// chain.
    pub(super) fn alternates(&self) -> Vec<String> {
        self.0.last().alternates.clone()
    }

    /// The URL of the resource that the last reply, a success, has created.
    pub(super) fn location(&self) -> Option<String> {
        let last = self.0.last();
        last.location.clone().filter(|_| last.refusal.is_none())
    }

    /// Status and first words of the last reply, if it was a success of newOrder.
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

    /// What the challenge at `url` says about a persistent record.
    pub(super) fn lasting(&self, url: &str) -> Option<Lasting> {
        self.0.reader().lasting(url).cloned()
    }

    /// The time before which the last reply asked not to be repeated.
    pub(super) fn retry_after(&self) -> Option<UnixTime> {
        self.0.last().retry_after
    }
}

impl Inner {
    /// No critical section leaves it half changed.
    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock_unpoisoned()
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock_unpoisoned()
    }

    /// Responds to instant-acme.
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
                // instant-acme would take it for a success.
                *reply.status_mut() = StatusCode::BAD_GATEWAY;
            }
        } else {
            let read = self.read(&url, reply.body());
            *reply.body_mut() = read.map_err(|error| Error::Other(Box::new(error)))?;
        }
        Ok(response(reply))
    }

    /// A successful reply in `body`, as instant-acme reads it.
    fn read(&self, url: &Uri, body: &Bytes) -> Result<Bytes, Unreadable> {
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

    /// Returns true if `url` is that of a resource in the directory.
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
                // A value that is not a URL is of no use.
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

    /// Fetches a nonce (RFC 8555, section 7.2): from any success, and by GET if HEAD returns none.
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

/// Fetches `url` and follows redirects to HTTPS. Signed requests are not sent this way: a signature
/// is for one URL.
///
/// # Errors
/// If there is no complete reply.
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

/// The nonce that comes with a reply.
pub(super) fn nonce_of(headers: &HeaderMap) -> Option<String> {
    header(headers, REPLAY_NONCE)
}
