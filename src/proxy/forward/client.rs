//! The client's side of an exchange, which `edge` implements for each version of HTTP.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::{Error, ErrorType, Result};

use super::response::ResponseHead;
use crate::proxy::connection_limit::Held;

/// The client's side of an exchange with a server. All errors are the client's.
pub trait Client: Send {
    /// What the requests of the client's connection use, if it may have more than one at a time.
    fn held(&self) -> Option<&Arc<Held>>;

    /// The next octets of the request's body; `None` after its end. In a tunnel, what the client
    /// sends; `None` once it has ended its side.
    ///
    /// What has been returned counts as accepted: the client may send as much again.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>>;

    /// The trailers of the request, once its body has ended; `None` if there are none.
    fn take_trailers(&mut self) -> Option<HeaderMap>;

    /// Lets the client pause within the body of its request for as long as the exchange allows: it
    /// is a stream of messages.
    fn allow_pauses(&mut self) {}

    /// Whether the request's body has arrived completely.
    fn is_body_done(&self) -> bool;

    /// Ready once the client has cancelled the request or is gone, as far as that can be seen
    /// without reading its body.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>>;

    /// Whether the client has cancelled the request, so that its server is to learn it at once.
    fn has_cancelled(&self) -> bool;

    /// Takes the head of an interim response (1xx).
    fn send_interim(&mut self, head: &ResponseHead<'_>) -> Result<()>;

    /// Fails if a response must not reach the client, whether as it is or with another body.
    fn check_head(&mut self, _: &ResponseHead<'_>) -> Result<()> {
        Ok(())
    }

    /// Takes the head of the response. If it switches protocols, a tunnel follows.
    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()>;

    /// Ready once more of the response may be read from the server, with the most octets that are
    /// of use.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>>;

    /// Sends octets of the body or the tunnel, and removes what has been accepted from `part`.
    /// Ready once that is all of it. `is_last` says that the body ends with them.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>>;

    /// Ends a response whose whole body has been accepted, with these trailers if the client can
    /// take them.
    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()>;

    /// Ready once everything that was accepted is on its way.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// How many octets of the body the client has got, if they are others than the server's.
    fn recoded_octets(&self) -> Option<usize> {
        None
    }
}

/// Ready at the end of a body that must be empty.
pub(super) fn poll_empty_body<C: Client>(client: &mut C, cx: &mut Context<'_>) -> Poll<Result<()>> {
    loop {
        match ready!(client.poll_body(cx))? {
            None => return Poll::Ready(Ok(())),
            Some(part) if part.is_empty() => {}
            Some(_) => {
                let why = "the request's body is longer than declared";
                return Poll::Ready(Err(
                    Error::explain(ErrorType::HTTPStatus(400), why).into_down()
                ));
            }
        }
    }
}
