//! The request on its way to the server.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use pingora_core::Result;

use super::client::Client;
use super::request::Body;
use crate::proxy::connection::Connection;

/// The most octets of a body that are kept for another attempt.
const MAX_REPLAY: usize = 64 * 1024;

/// What has been sent of a body, for another attempt.
#[derive(Debug, Default)]
pub(super) struct Replay {
    octets: Vec<u8>,
    /// Whether more was sent than is kept.
    is_cut: bool,
    /// Whether the body has ended.
    is_whole: bool,
}

impl Replay {
    /// Keeps nothing: the request is never repeated.
    pub(super) fn never() -> Self {
        Self {
            is_cut: true,
            ..Self::default()
        }
    }

    /// Whether everything that was sent is kept.
    pub(super) fn is_complete(&self) -> bool {
        !self.is_cut
    }

    fn record(&mut self, part: &[u8]) {
        if self.is_cut {
            return;
        }
        if self.octets.len() + part.len() > MAX_REPLAY {
            self.octets = Vec::new();
            self.is_cut = true;
        } else {
            self.octets.extend_from_slice(part);
        }
    }
}

/// One attempt to send a request.
#[derive(Debug)]
pub(super) struct Upload {
    /// The head, or what frames the next part.
    prefix: Bytes,
    part: Bytes,
    suffix: Bytes,
    is_chunked: bool,
    state: State,
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
    /// The gateway's side of a tunnel has been ended.
    Closed,
    /// The server accepts no more.
    Stopped,
}

impl Upload {
    /// A request with this head. What `replay` holds comes before the rest of the body.
    pub(super) fn new(head: Bytes, body: Body, replay: &Replay) -> Self {
        let mut upload = Self {
            prefix: head,
            part: Bytes::new(),
            suffix: Bytes::new(),
            is_chunked: body == Body::Chunked,
            state: State::Sending,
            is_blocked: false,
            has_moved: false,
        };
        if !replay.octets.is_empty() {
            upload.push_part(Bytes::copy_from_slice(&replay.octets));
        }
        if body == Body::None || replay.is_whole {
            upload.end();
        }
        upload
    }

    /// Whether nothing is left to send: the server has everything, or accepts no more.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            State::Sending => false,
            State::Ended => !self.has_queued(),
            State::Closed | State::Stopped => true,
        }
    }

    /// Whether the server has the complete request.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Ended && !self.has_queued()
    }

    /// Whether the gateway has ended its side of a tunnel.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// From now on the connection is a tunnel.
    pub(super) fn begin_tunnel(&mut self) {
        if self.state == State::Ended {
            self.state = State::Sending;
        }
    }

    /// Sends what can be sent now.
    ///
    /// # Errors
    /// If the client fails. A server that fails may still have responded.
    pub(super) fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        connection: &mut Connection,
        replay: &mut Replay,
        in_tunnel: bool,
    ) -> Result<()> {
        loop {
            // The beginning of a body often comes with its head, and leaves with it.
            if self.state == State::Sending && self.part.is_empty() && self.suffix.is_empty() {
                match client.poll_body(cx)? {
                    Poll::Ready(Some(part)) if part.is_empty() => continue,
                    Poll::Ready(Some(part)) => {
                        if !in_tunnel {
                            replay.record(&part);
                        }
                        self.push_part(part);
                    }
                    Poll::Ready(None) => {
                        replay.is_whole = true;
                        self.end();
                    }
                    Poll::Pending => {}
                }
            }
            let sent = match self.has_queued() {
                true => self.poll_write(cx, connection),
                false if in_tunnel && self.state == State::Ended => connection
                    .poll_shutdown(cx)
                    .map_ok(|()| self.state = State::Closed),
                false => {
                    self.flush(cx, connection);
                    return Ok(());
                }
            };
            self.is_blocked = sent.is_pending();
            match sent {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if self.state == State::Closed => return Ok(()),
                Poll::Ready(Ok(())) => self.has_moved = true,
                Poll::Ready(Err(_)) => {
                    self.stop();
                    return Ok(());
                }
            }
        }
    }

    /// Sends no more.
    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
        self.is_blocked = false;
        (self.prefix, self.part, self.suffix) = Default::default();
    }

    fn flush(&mut self, cx: &mut Context<'_>, connection: &mut Connection) {
        if self.state == State::Stopped {
            return;
        }
        match connection.poll_flush(cx) {
            Poll::Pending => self.is_blocked = true,
            Poll::Ready(Ok(())) => self.is_blocked = false,
            Poll::Ready(Err(_)) => self.stop(),
        }
    }

    fn has_queued(&self) -> bool {
        !(self.prefix.is_empty() && self.part.is_empty() && self.suffix.is_empty())
    }

    fn push_part(&mut self, part: Bytes) {
        if self.is_chunked {
            let mut prefix = BytesMut::from(&*self.prefix);
            prefix.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            self.prefix = prefix.freeze();
            self.suffix = Bytes::from_static(b"\r\n");
        }
        self.part = part;
    }

    fn end(&mut self) {
        self.state = State::Ended;
        if self.is_chunked {
            self.suffix = match self.suffix.is_empty() {
                true => Bytes::from_static(b"0\r\n\r\n"),
                false => Bytes::from_static(b"\r\n0\r\n\r\n"),
            };
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
    ) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); 3];
        let mut count = 0;
        for part in [&self.prefix, &self.part, &self.suffix] {
            if let (false, Some(slice)) = (part.is_empty(), slices.get_mut(count)) {
                *slice = IoSlice::new(part);
                count += 1;
            }
        }
        let slices = slices.get(..count).unwrap_or_default();
        connection.poll_write(cx, slices).map_ok(|written| {
            let mut left = written;
            for part in [&mut self.prefix, &mut self.part, &mut self.suffix] {
                let here = left.min(part.len());
                part.advance(here);
                left -= here;
            }
        })
    }
}
