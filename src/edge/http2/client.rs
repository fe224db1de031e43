//! The client of HTTP/2 in an exchange with a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderName, HeaderValue, Response};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, OrErr as _, Result};

use super::halves::Halves;
use crate::edge::pace::Pace;
use crate::edge::timer::Timer;
use crate::proxy::{Client, HeldBody, ResponseBody, ResponseHead};

/// Octets of responses that the streams of a connection share, before their clients accept them.
const SHARED: usize = 512 * 1024;

/// The smallest and the largest share of one stream.
const LEAST: usize = 8 * 1024;
const MOST: usize = 32 * 1024;

/// The client of one request.
pub(super) struct Http2Client<'a> {
    halves: &'a mut Halves,
    at_upstreams: &'a Arc<AtomicUsize>,
    /// Set if the client does not read the response.
    stalled: &'a AtomicBool,
    /// How long the client may accept nothing.
    idle: Duration,
    blocked: Timer,
    pace: Pace,
    /// What the length of the body, if it is declared, leaves of it.
    held: HeldBody,
    /// Whether all of the body has been handed on.
    is_body_done: bool,
    has_cancelled: bool,
}

impl<'a> Http2Client<'a> {
    /// The client of a request that declares its body's length as `length`, if it does.
    pub(super) fn new(
        halves: &'a mut Halves,
        at_upstreams: &'a Arc<AtomicUsize>,
        stalled: &'a AtomicBool,
        idle: Duration,
        length: Option<u64>,
    ) -> Self {
        let is_body_done = halves.has_body_ended();
        Self {
            halves,
            at_upstreams,
            stalled,
            idle,
            blocked: Timer::default(),
            pace: Pace::new(idle),
            held: HeldBody::of(length),
            is_body_done,
            has_cancelled: false,
        }
    }

    fn note_failure<T>(&mut self, done: Result<T>) -> Result<T> {
        // Whatever fails a stream, nobody waits for its response.
        self.has_cancelled |= done.is_err();
        done.map_err(|error| error.into_down())
    }
}

impl Client for Http2Client<'_> {
    fn at_upstreams(&self) -> Option<&Arc<AtomicUsize>> {
        Some(self.at_upstreams)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if self.is_body_done {
            return Poll::Ready(Ok(None));
        }
        let Poll::Ready(part) = self.halves.poll_body(cx) else {
            ready!(self.pace.poll_too_slow(cx)).map_err(|error| {
                let why = "while the request's body is awaited";
                Error::because(ErrorType::ReadTimedout, why, error).into_down()
            })?;
            return Poll::Pending;
        };
        let mut part = self.note_failure(part)?;
        self.pace.advance(part.as_ref().map_or(0, Bytes::len));
        let is_end = part.is_none();
        self.held.check_part(&mut part, is_end);
        self.is_body_done = is_end;
        Poll::Ready(Ok(part))
    }

    fn is_body_done(&self) -> bool {
        self.is_body_done
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let reset = ready!(self.halves.poll_reset(cx));
        self.has_cancelled = true;
        Poll::Ready(match reset {
            Ok(reason) => {
                let why = format!("the client has reset the request: {reason}");
                Error::explain(ErrorType::H2Error, why).into_down()
            }
            Err(error) => error.into_down(),
        })
    }

    fn has_cancelled(&self) -> bool {
        self.has_cancelled
    }

    fn send_interim(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        let head = build_head(head)?;
        let sent = self.halves.send_interim(head);
        self.note_failure(sent)
    }

    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        let is_complete = matches!(head.body, ResponseBody::None(_));
        let (length, is_dated) = (head.body.declared_length(), head.is_dated());
        let id = head.request_id().clone();
        let mut head = build_head(head)?;
        let fields = head.headers_mut();
        if let Some(length) = length {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if !is_dated {
            fields.insert(DATE, get_cached_date());
        }
        fields.insert(HeaderName::from_static("x-request-id"), id);
        let sent = self.halves.send_head(head, is_complete);
        self.note_failure(sent)
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize>> {
        let streams = self.at_upstreams.load(Ordering::Relaxed);
        Poll::Ready(Ok((SHARED / streams.max(1)).clamp(LEAST, MOST)))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        let before = part.len();
        let sent = self.halves.poll_send(cx, part, is_last);
        if part.len() < before || sent.is_ready() {
            self.blocked.clear();
        }
        if let Poll::Ready(sent) = sent {
            return Poll::Ready(self.note_failure(sent));
        }
        if let Poll::Ready(error) = self.poll_gone(cx) {
            return Poll::Ready(Err(error));
        }
        ready!(self.blocked.poll_after(cx, self.idle));
        self.stalled.store(true, Ordering::Relaxed);
        let why = format!("the client reads nothing for {:?}", self.idle);
        let stalled = Err(Error::explain(ErrorType::WriteTimedout, why));
        Poll::Ready(self.note_failure(stalled))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // The task of the connection sends what its streams have accepted.
        Poll::Ready(Ok(()))
    }
}

/// A head with the server's fields.
fn build_head(head: &ResponseHead<'_>) -> Result<Response<()>> {
    let mut built = Response::new(());
    *built.status_mut() = head.status;
    let invalid = "a field of a response is not valid in HTTP/2";
    for (name, value) in head.fields() {
        let name = HeaderName::from_bytes(name).or_err(ErrorType::InvalidHTTPHeader, invalid);
        let value = HeaderValue::from_bytes(value).or_err(ErrorType::InvalidHTTPHeader, invalid);
        let (name, value) = (
            name.map_err(|error| error.into_up())?,
            value.map_err(|error| error.into_up())?,
        );
        built.headers_mut().append(name, value);
    }
    Ok(built)
}
