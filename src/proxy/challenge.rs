//! Answers CAs that validate a name over HTTP (RFC 8555, section 8.3).
//!
//! Only what is pending, here or at another instance, is answered, on any listener: a front, or our
//! own redirect, may have sent the CA to TLS. Any other request under that path goes the way of all requests, for the server
//! behind a route may obtain certificates of its own.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use pingora_http::RequestHeader;

use super::response::LocalResponse;
use super::{header, path};
use crate::challenge::Challenges;
use crate::host::Host;

/// Where CAs look.
const PREFIX: &[u8] = b"/.well-known/acme-challenge/";

/// Looks in the storage for what a request asks for, where that is no validation known here: another
/// instance may have stored it a moment ago.
pub(super) async fn look_up_token(challenges: &Challenges, request: &RequestHeader) {
    if let Some(token) = token(request, header::origin_form(request)) {
        challenges.look_up_token(token).await;
    }
}

/// The answer to a request that validates `host`, `None` to any other. `target` is in origin form.
pub(super) fn token_response(
    challenges: &Challenges,
    request: &RequestHeader,
    host: Host<'_>,
    target: &[u8],
) -> Option<LocalResponse> {
    if challenges.is_empty() {
        return None;
    }
    let answer = challenges.http01(host, token(request, target)?)?;
    let content_type = HeaderValue::from_static("application/octet-stream");
    let body = Bytes::copy_from_slice(answer.as_bytes());
    Some(LocalResponse::new(StatusCode::OK, content_type, body).uncacheable())
}

/// Whether a path is where CAs look.
pub(super) fn is_under(path: &[u8]) -> bool {
    path.starts_with(PREFIX)
}

/// What stands in the place of a token.
fn token<'a>(request: &RequestHeader, target: &'a [u8]) -> Option<&'a str> {
    let token = path::without_query(target).strip_prefix(PREFIX)?;
    let is_read = matches!(request.method, Method::GET | Method::HEAD);
    std::str::from_utf8(token).ok().filter(|_| is_read)
}
