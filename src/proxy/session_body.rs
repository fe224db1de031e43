//! The rest of a request's body in a session of Pingora, before and after a response of the gateway.

use std::time::Duration;

use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

/// How much of a request's body is read and discarded so that its HTTP/1 connection can be kept.
pub(crate) const DRAIN_LIMIT: usize = 64 * 1024;

/// How long that may take.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the rest of the body of an HTTP/2 request is waited for: in total, and without an
/// octet, before a response and after it.
pub(crate) const BODY_END: Duration = Duration::from_secs(30);
pub(crate) const IDLE_BEFORE: Duration = Duration::from_secs(2);
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(5);

/// Whether a request came over HTTP/2.
pub(super) fn is_http2(session: &Session) -> bool {
    session.req_header().version == Version::HTTP_2
}

/// Reads what is left of a small body, so that the next request can follow it on the connection.
pub(super) async fn drain_request(session: &mut Session) {
    let length = session.req_header().headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let is_large = length.is_some_and(|length: usize| length > DRAIN_LIMIT);
    if is_large || waits_for_leave(session) || session.is_body_done() {
        return;
    }
    let read = async {
        let mut left = DRAIN_LIMIT;
        while let Ok(Some(part)) = session.read_request_body().await {
            match left.checked_sub(part.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
}

/// Reads what still arrives of the body of an HTTP/2 request, as long as no pause is longer than
/// `idle`.
///
/// A stream whose response precedes the end of its body is reset with NO_ERROR, which some clients
/// (curl 7.88) consider a failure, whatever the response. After a failure or a redirect they stop
/// sending by themselves, though not before they have seen a body. After a success they continue,
/// and wait for room to send without reading what would give it to them. So a success is sent after
/// the body has ended.
pub(super) async fn await_body_end(session: &mut Session, idle: Duration) {
    if waits_for_leave(session) || session.is_body_done() {
        return;
    }
    let read = async {
        while let Ok(Ok(Some(_))) = tokio::time::timeout(idle, session.read_request_body()).await {}
    };
    _ = tokio::time::timeout(BODY_END, read).await;
}

/// Waits until the client cancels its request or goes away. Over HTTP/1 that cannot be seen before
/// the whole body has been read.
pub(super) async fn await_client_gone(session: &mut Session) -> Box<Error> {
    if !is_http2(session) && !session.is_body_done() {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = session.downstream_session.read_body_or_idle(true).await {
            return error.into_down();
        }
    }
}

/// Waits for the end of a body that must be empty.
pub(super) async fn await_empty_body(session: &mut Session) -> Result<()> {
    while let Some(part) = session.read_request_body().await? {
        if !part.is_empty() {
            let why = "the request's body is longer than declared";
            return Err(Error::explain(ErrorType::HTTPStatus(400), why).into_down());
        }
    }
    Ok(())
}

/// Whether the client waits for `100 Continue`: then it has not sent its body, and will not send it
/// after another response.
fn waits_for_leave(session: &Session) -> bool {
    session.req_header().headers.contains_key(EXPECT)
}
