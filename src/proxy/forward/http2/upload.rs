//! The request on its way to a server of HTTP/2.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use pingora_core::Result;

use super::super::client::Client;
use super::super::upload::{BodySize, Replay};
use crate::proxy::trailers::RequestTrailers;

/// One attempt to send the body of a request.
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    part: Bytes,
    size: BodySize,
    state: State,
    /// Octets that the server has accepted. What fits into the buffer of its connection counts.
    pub(super) accepted: u64,
    /// Whether the server accepts nothing more for now.
    pub(super) is_blocked: bool,
    /// Whether the server has accepted something since this was last cleared.
    pub(super) has_moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The body continues.
    Sending,
    /// All of the body has come from the client.
    Ended,
    /// The server has everything, or accepts no more.
    Over,
}

impl Upload {
    /// The body of a request whose head has been sent, and has ended it if `has_ended`. What
    /// `replay` holds comes before the rest.
    pub(super) fn new(
        stream: SendStream<Bytes>,
        has_ended: bool,
        replay: &Replay,
        most: u64,
    ) -> Self {
        Self {
            stream,
            part: Bytes::copy_from_slice(replay.octets()),
            size: BodySize::new(replay, most),
            state: match (has_ended, replay.is_whole()) {
                (true, _) => State::Over,
                (false, true) => State::Ended,
                (false, false) => State::Sending,
            },
            accepted: 0,
            is_blocked: false,
            has_moved: false,
        }
    }

    /// Whether nothing is left to send: the server has everything, or accepts no more.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Octets of the body that have come from the client.
    pub(super) fn body_octets(&self) -> u64 {
        self.size.octets()
    }

    /// Whether nothing of the body has come from the client.
    pub(super) fn is_untouched(&self) -> bool {
        self.size.is_zero()
    }

    /// Sends what can be sent now. It is kept for another attempt if `may_repeat`.
    ///
    /// # Errors
    /// If the client fails. A server that fails may still have responded.
    pub(super) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        replay: &mut Replay,
        trailers: Option<RequestTrailers<'_>>,
        may_repeat: bool,
    ) -> Result<()> {
        while self.state != State::Over {
            if self.part.is_empty() && self.state == State::Sending {
                match client.poll_body(cx)? {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Some(part)) => {
                        self.size.count(&part)?;
                        if may_repeat {
                            replay.record(&part);
                        }
                        self.part = part;
                    }
                    Poll::Ready(None) => {
                        let passed = trailers.zip(client.take_trailers());
                        let passed = passed.and_then(|(rules, all)| rules.select(all, false));
                        replay.record_end(passed);
                        self.state = State::Ended;
                    }
                }
            }
            let sent = self.poll_send(cx);
            self.is_blocked = sent.is_pending();
            match sent {
                Poll::Pending => return Ok(()),
                Poll::Ready(true) if self.state == State::Sending => {}
                Poll::Ready(true) => self.end(replay.trailers().cloned()),
                Poll::Ready(false) => self.state = State::Over,
            }
        }
        Ok(())
    }

    /// Sends the part as far as the server accepts it. Ready once that is all of it, or with
    /// `false` if it accepts no more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while !self.part.is_empty() {
            self.stream.reserve_capacity(self.part.len());
            let room = match self.stream.capacity() {
                0 => match std::task::ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(false),
                },
                room => room,
            };
            let now = self.part.split_to(room.min(self.part.len()));
            let octets = now.len();
            if octets > 0 {
                if self.stream.send_data(now, false).is_err() {
                    return Poll::Ready(false);
                }
                self.accepted += octets as u64;
                self.has_moved = true;
            }
        }
        Poll::Ready(true)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        // An error shows in the response.
        _ = match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        self.has_moved = true;
        self.state = State::Over;
    }
}
