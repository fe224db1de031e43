//! The response on its way to the client.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::StatusCode;
use pingora_core::{Error, ErrorType, Result};

use super::client::Client;
use super::response::{Asked, Body, ResponseHead, parse_head, unfold_lines};
use crate::proxy::connection::Connection;
use crate::proxy::framing::Framing;

/// How many octets are read at once while a head is waited for.
const HEAD: usize = 8 * 1024;

/// The most interim responses (1xx) before a response.
const MAX_INTERIMS: usize = 100;

/// One attempt to receive a response.
#[derive(Debug)]
pub(super) struct Download {
    state: State,
    /// Octets for the client.
    part: Bytes,
    /// Whether the response ends with them.
    is_last: bool,
    /// Whether the end of the connection is the end of the response.
    ends_with_connection: bool,
    /// Whether what is in the connection's buffer has been parsed in vain.
    needs_more: bool,
    /// Interim responses that have been passed on.
    interims: usize,
    /// Whether the server keeps its connection.
    is_kept: bool,
    /// The status of the response, once its head is on its way.
    pub(super) status: Option<StatusCode>,
    /// Whether anything, interim responses included, has been passed on.
    pub(super) has_begun: bool,
    /// Octets of the body that the client has accepted.
    pub(super) octets: usize,
    /// Whether the server is waited for.
    pub(super) is_waiting: bool,
    /// Whether the server has sent something since this was last cleared.
    pub(super) has_moved: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Body(Framing),
    /// The client has the complete response.
    Ended,
}

impl Download {
    pub(super) fn new() -> Self {
        Self {
            state: State::Head,
            part: Bytes::new(),
            is_last: false,
            ends_with_connection: false,
            needs_more: true,
            interims: 0,
            is_kept: false,
            status: None,
            has_begun: false,
            octets: 0,
            is_waiting: false,
            has_moved: false,
        }
    }

    /// Whether the client has the complete response.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the connection has become a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.status == Some(StatusCode::SWITCHING_PROTOCOLS)
    }

    /// Whether the server keeps its connection after the complete response, and has sent nothing
    /// after it.
    pub(super) fn leaves_connection(&self, connection: &Connection) -> bool {
        self.is_ended() && self.is_kept && connection.buffer.is_empty()
    }

    /// Receives and passes on what can be passed on now. Ready once the client has all of it.
    ///
    /// # Errors
    /// If the client or the server fails.
    pub(super) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        loop {
            self.is_waiting = false;
            match self.state {
                State::Head => ready!(self.poll_head(cx, client, connection, asked))?,
                State::Body(_) => ready!(self.poll_body(cx, client, connection))?,
                State::Ended => return client.poll_flush(cx),
            }
        }
    }

    /// Ready after each step.
    fn poll_head<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        asked: Asked<'_>,
    ) -> Poll<Result<()>> {
        if self.needs_more {
            if self.interims > 0 {
                // What the client does not take must not pile up.
                ready!(client.poll_flush(cx))?;
            }
            let begin = connection.buffer.len();
            match ready!(self.poll_fill(cx, client, connection, HEAD))? {
                0 => {
                    let why = format!("before the end of a response's head, after {begin} octets");
                    let error = Error::explain(ErrorType::ConnectionClosed, why);
                    return Poll::Ready(Err(error.into_up()));
                }
                _ => {
                    // A head ends with a line.
                    let new = connection.buffer.get(begin..).unwrap_or_default();
                    self.needs_more = begin > 0
                        && memchr::memchr(b'\n', new).is_none()
                        && connection.buffer.len() <= HEAD;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let mut send = |head: &ResponseHead<'_>| match head.status.is_informational()
            && head.body != Body::Tunnel
        {
            true => client.send_interim(head),
            false => client.send_head(head),
        };
        let parsed = match parse_head(&connection.buffer, asked, &mut send) {
            Err(_) if unfold_lines(&mut connection.buffer) => {
                parse_head(&connection.buffer, asked, send)
            }
            parsed => parsed,
        }?;
        let Some(parsed) = parsed else {
            self.needs_more = true;
            return Poll::Ready(Ok(()));
        };
        connection.buffer.advance(parsed.len);
        self.has_begun = true;
        if parsed.status.is_informational() && parsed.body != Body::Tunnel {
            self.needs_more = connection.buffer.is_empty();
            self.interims += 1;
            if self.interims > MAX_INTERIMS {
                let why = "too many interim responses";
                let error = Error::explain(ErrorType::InvalidHTTPHeader, why);
                return Poll::Ready(Err(error.into_up()));
            }
            return Poll::Ready(Ok(()));
        }
        self.status = Some(parsed.status);
        self.is_kept = parsed.is_kept;
        self.ends_with_connection = matches!(parsed.body, Body::UntilClose | Body::Tunnel);
        self.state = State::Body(match parsed.body {
            Body::None(_) => Framing::DONE,
            Body::Length(length) => Framing::Length(length),
            Body::Chunked => Framing::chunked(),
            Body::UntilClose | Body::Tunnel => Framing::Tunnel,
        });
        Poll::Ready(Ok(()))
    }

    /// Ready after each step.
    fn poll_body<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
    ) -> Poll<Result<()>> {
        if self.part.is_empty()
            && !self.is_last
            && let State::Body(framing) = &mut self.state
        {
            self.part = framing.take_data(&mut connection.buffer).map_err(|error| {
                let why = "in the body of a response";
                Error::because(ErrorType::InvalidHTTPHeader, why, error).into_up()
            })?;
            self.is_last = framing.is_done();
        }
        if !self.part.is_empty() || self.is_last {
            let before = self.part.len();
            let sent = client.poll_send(cx, &mut self.part, self.is_last);
            self.octets += before - self.part.len();
            ready!(sent)?;
            if self.is_last {
                self.state = State::Ended;
            }
            return Poll::Ready(Ok(()));
        }
        let room = ready!(client.poll_room(cx))?;
        let count = ready!(self.poll_fill(cx, client, connection, room))?;
        if count == 0 {
            if !self.ends_with_connection {
                let why = "in the middle of a response's body";
                let error = Error::explain(ErrorType::ConnectionClosed, why);
                return Poll::Ready(Err(error.into_up()));
            }
            self.is_last = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more from the server. Meanwhile the client gets what it has not got yet.
    fn poll_fill<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        most: usize,
    ) -> Poll<Result<usize>> {
        match connection.poll_fill(cx, most) {
            Poll::Ready(Ok(count)) => {
                self.has_moved = true;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(read_error(error))),
            Poll::Pending => {
                self.is_waiting = true;
                if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
                Poll::Pending
            }
        }
    }
}

fn read_error(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, "while a response is read", error).into_up()
}
