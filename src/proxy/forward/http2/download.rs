//! The response of a server of HTTP/2 on its way to the client.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora_core::{Error, ErrorType, Result};

use super::super::client::Client;
use super::super::download::MAX_INTERIMS;
use super::super::response::{Asked, Body, ResponseHead};
use crate::proxy::grpc;
use crate::proxy::http2::{is_unprocessed, stream_error};
use crate::proxy::trailers::{check_size, select};

/// One attempt to receive a response.
pub(super) struct Download {
    response: ResponseFuture,
    /// The body, once the head has arrived.
    body: Option<RecvStream>,
    state: State,
    /// Octets for the client.
    part: Bytes,
    /// Trailers for the client.
    trailers: Option<Box<HeaderMap>>,
    /// Interim responses that have been passed on.
    interims: usize,
    /// What is kept of the fields of the response, if the gateway responds in its place.
    pub(super) replaced: Option<Vec<(HeaderName, HeaderValue)>>,
    /// The status of the response, once its head is on its way.
    pub(super) status: Option<StatusCode>,
    /// Whether the server has asked for the body with `100 Continue`.
    pub(super) has_continued: bool,
    /// Whether anything, interim responses included, has been passed on.
    pub(super) has_begun: bool,
    /// Octets of the body that the client has accepted.
    pub(super) octets: usize,
    /// Whether the server has failed without having processed the request.
    pub(super) is_unprocessed: bool,
    /// Whether the request is a call of gRPC as it is, and the response too as far as it is known.
    pub(super) is_call: bool,
    /// Whether its stream has failed.
    pub(super) has_failed: bool,
    /// Whether the server is waited for.
    pub(super) is_waiting: bool,
    /// Whether the server has sent something since this was last cleared.
    pub(super) has_moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body,
    /// All of the body has come from the server.
    BodyEnded,
    /// The client has the complete response.
    Ended,
}

impl Download {
    pub(super) fn new(response: ResponseFuture, is_call: bool) -> Self {
        Self {
            response,
            body: None,
            state: State::Head,
            part: Bytes::new(),
            trailers: None,
            interims: 0,
            replaced: None,
            status: None,
            has_continued: false,
            has_begun: false,
            octets: 0,
            is_unprocessed: false,
            is_call,
            has_failed: false,
            is_waiting: false,
            has_moved: false,
        }
    }

    /// Receives and passes on what can be passed on now. Ready once the client has all of it.
    ///
    /// # Errors
    /// If the client or the server fails.
    pub(super) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        loop {
            self.is_waiting = false;
            let step = match self.state {
                State::Ended => return client.poll_flush(cx),
                State::Head => self.poll_head(cx, client, asked),
                State::Body | State::BodyEnded => self.poll_body(cx, client, asked),
            };
            if step.is_pending() && self.is_waiting {
                // Meanwhile the client gets what it has not got yet.
                if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
            }
            ready!(step)?;
        }
    }

    /// Ready after each step.
    fn poll_head<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        if self.interims > 0 {
            // What the client does not take must not pile up.
            ready!(client.poll_flush(cx))?;
        }
        self.is_waiting = true;
        // The final head is taken only once it is certain that no other precedes it: taking it
        // would drop them.
        if let Some(head) = ready!(self.response.poll_informational(cx)) {
            let (head, ()) = head
                .map_err(|error| self.fail(error, AT_HEAD))?
                .into_parts();
            self.interims += 1;
            if self.interims > MAX_INTERIMS {
                return Poll::Ready(Err(invalid("too many interim responses")));
            }
            with_head(head.status, &head.headers, false, asked, |head| {
                client.send_interim(head)
            })?;
            (self.has_moved, self.has_begun) = (true, true);
            self.has_continued |= head.status == StatusCode::CONTINUE;
            return Poll::Ready(Ok(()));
        }
        let response = ready!(std::pin::Pin::new(&mut self.response).poll(cx));
        let (head, body) = response
            .map_err(|error| self.fail(error, AT_HEAD))?
            .into_parts();
        let is_end = body.is_end_stream();
        let replaced = &mut self.replaced;
        let is_replaced = asked
            .replacements
            .is_some_and(|pages| pages.has(head.status));
        let follows = with_head(head.status, &head.headers, is_end, asked, |head| {
            if is_replaced {
                client.check_head(head)?;
                *replaced = Some(head.fields_without_body());
                return Ok(());
            }
            client.send_head(head)
        })?;
        (self.has_moved, self.has_begun) = (true, true);
        self.status = Some(head.status);
        self.is_call = self.is_call && grpc::is_native(head.headers.get(CONTENT_TYPE));
        if self.replaced.is_some() {
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        self.state = match follows {
            // What else comes is no part of the response.
            Body::None(_) | Body::Empty => State::BodyEnded,
            _ => State::Body,
        };
        self.body = Some(body);
        Poll::Ready(Ok(()))
    }

    /// Ready after each step.
    fn poll_body<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        if !self.part.is_empty() || self.state == State::BodyEnded {
            return self.poll_send(cx, client);
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(invalid("a response's body before its head")));
        };
        ready!(client.poll_room(cx))?;
        self.is_waiting = true;
        if let Some(part) = ready!(body.poll_data(cx)) {
            self.part = part.map_err(|error| self.fail(error, IN_BODY))?;
            // A server that sends empty parts makes no progress.
            self.has_moved |= !self.part.is_empty();
            return Poll::Ready(Ok(()));
        }
        let trailers = ready!(body.poll_trailers(cx));
        let trailers = trailers.map_err(|error| self.fail(error, IN_BODY))?;
        if let Some(trailers) = trailers {
            check_size(&trailers).map_err(|error| error.into_up())?;
            let passed = select(trailers, |name| !asked.gateway.drops(name));
            self.trailers = passed.map(Box::new);
        }
        self.has_moved = true;
        self.state = State::BodyEnded;
        Poll::Ready(Ok(()))
    }

    /// Ready once the client has accepted what has arrived.
    fn poll_send<C: Client>(&mut self, cx: &mut Context<'_>, client: &mut C) -> Poll<Result<()>> {
        let has_ended = self.state == State::BodyEnded;
        let before = self.part.len();
        let sent = client.poll_send(cx, &mut self.part, has_ended && self.trailers.is_none());
        let accepted = before - self.part.len();
        self.octets += accepted;
        if let Some(body) = &mut self.body {
            // The server may send as much again. It fails for a stream that has ended.
            _ = body.flow_control().release_capacity(accepted);
        }
        ready!(sent)?;
        if has_ended {
            if let Some(trailers) = self.trailers.take() {
                client.send_trailers(*trailers)?;
            }
            self.state = State::Ended;
        }
        Poll::Ready(Ok(()))
    }

    /// The error of a stream that has failed.
    fn fail(&mut self, error: h2::Error, why: &'static str) -> Box<Error> {
        self.has_failed = true;
        self.is_unprocessed = !self.has_begun && is_unprocessed(&error);
        stream_error(error, why)
    }
}

const AT_HEAD: &str = "before the end of a response's head";
const IN_BODY: &str = "in the middle of a response's body";

/// Passes the head of a response to `send`. Returns what follows it.
fn with_head(
    status: StatusCode,
    fields: &HeaderMap,
    is_end: bool,
    asked: Asked<'_>,
    send: impl FnOnce(&ResponseHead<'_>) -> Result<()>,
) -> Result<Body> {
    let field = |(name, value)| {
        let (name, value): (&HeaderName, &HeaderValue) = (name, value);
        httparse::Header {
            name: name.as_str(),
            value: value.as_bytes(),
        }
    };
    let fields: Vec<_> = fields.iter().map(field).collect();
    let head = ResponseHead::of_http2(status, &fields, is_end, asked)?;
    let body = head.body;
    send(&head)?;
    Ok(body)
}

fn invalid(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}
