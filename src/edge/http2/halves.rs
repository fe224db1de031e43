//! The two halves of a stream: the request's body comes in, the response leaves.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response};
use pingora_core::{Error, ErrorType, OrErr as _, Result};

use super::frames::FRAME_HEADER;
use super::websocket::Handshake;
use crate::proxy::check_trailers;

/// The most octets of a frame of data: with its header it fills one record of TLS.
pub(super) const FRAME: usize = 16 * 1024 - FRAME_HEADER;

/// A stream whose request has been read up to its body.
pub(super) struct Halves {
    body: RecvStream,
    /// What followed the body.
    trailers: Option<Box<HeaderMap>>,
    respond: SendResponse<Bytes>,
    /// Accepts the response's body once its head is sent.
    pub(super) writer: Option<SendStream<Bytes>>,
    /// Whether the complete response is sent.
    pub(super) is_ended: bool,
    /// Octets of the request's body and of the response's.
    pub(super) read: usize,
    pub(super) sent: usize,
    /// The handshake of a WebSocket, if the request asks for one.
    pub(super) handshake: Option<Box<Handshake>>,
}

impl Halves {
    pub(super) fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self {
            body,
            trailers: None,
            respond,
            writer: None,
            is_ended: false,
            read: 0,
            sent: 0,
            handshake: None,
        }
    }

    /// Ready once the client has cancelled the request, or the connection has failed.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason>> {
        let reset = match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|reset| reset.or_err(ErrorType::H2Error, "the connection has failed"))
    }

    /// The number of the stream.
    pub(super) fn id(&self) -> u32 {
        self.respond.stream_id().into()
    }

    /// Whether the client has ended its body, and all of it has been read.
    pub(super) fn has_body_ended(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The next part of the body, empty or not; `None` after the last.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let Some(part) = ready!(self.body.poll_data(cx)) else {
            let trailers = ready!(self.body.poll_trailers(cx));
            let why = "while the request's trailers are read";
            if let Some(trailers) = trailers.or_err(ErrorType::ReadError, why)? {
                check_trailers(&trailers)?;
                self.trailers = Some(Box::new(trailers));
            }
            return Poll::Ready(Ok(None));
        };
        let part = part.or_err(ErrorType::ReadError, "while the request's body is read")?;
        self.read += part.len();
        // It fails for a stream that has ended.
        _ = self.body.flow_control().release_capacity(part.len());
        Poll::Ready(Ok(Some(part)))
    }

    /// Takes the trailers that followed the body.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    /// Sends the head of the response as it is, and with `end` nothing after it.
    pub(super) fn send_head(&mut self, head: Response<()>, end: bool) -> Result<()> {
        let writer = self.respond.send_response(head, end);
        let writer = writer.or_err(ErrorType::WriteError, "while a response's head is sent")?;
        self.writer = Some(writer);
        self.is_ended = end;
        Ok(())
    }

    /// Sends the head of an interim response.
    pub(super) fn send_interim(&mut self, head: Response<()>) -> Result<()> {
        let sent = self.respond.send_informational(head);
        sent.or_err(ErrorType::WriteError, "while an interim response is sent")
    }

    /// Sends octets of the response's body, as far as the client accepts them, and removes them
    /// from `part`. Ready once that is all of it. The response ends with them if `is_last`.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        let failed = "while a response's body is sent";
        while !part.is_empty() {
            let writer = self.writer()?;
            // Only for what is sent now: what one stream has reserved, others lack.
            writer.reserve_capacity(part.len());
            let room = match writer.capacity() {
                0 => match ready!(writer.poll_capacity(cx)) {
                    Some(room) => room.or_err(ErrorType::WriteError, failed)?,
                    None => return Poll::Ready(Error::e_explain(ErrorType::WriteError, failed)),
                },
                room => room,
            };
            let now = part.split_to(room.min(part.len()).min(FRAME));
            let (octets, end) = (now.len(), is_last && part.is_empty());
            if octets > 0 {
                let sent = writer.send_data(now, end);
                sent.or_err(ErrorType::WriteError, failed)?;
                self.sent += octets;
                self.is_ended |= end;
            }
        }
        if is_last {
            self.finish()?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the response with trailers, unless it has ended.
    pub(super) fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if !self.is_ended {
            let sent = self.writer()?.send_trailers(trailers);
            let failed = "while a response's trailers are sent";
            sent.or_err(ErrorType::WriteError, failed)?;
            self.is_ended = true;
        }
        Ok(())
    }

    /// Ends the response, if it has begun and not ended.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let (false, Some(writer)) = (self.is_ended, &mut self.writer) {
            let sent = writer.send_data(Bytes::new(), true);
            sent.or_err(ErrorType::WriteError, "while a response is ended")?;
            self.is_ended = true;
        }
        Ok(())
    }

    /// Resets the stream, unless its response is complete.
    pub(super) fn shutdown(&mut self) {
        if !self.is_ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    pub(super) fn writer(&mut self) -> Result<&mut SendStream<Bytes>> {
        let why = "a response's body before its head";
        let writer = self.writer.as_mut();
        writer.ok_or_else(|| Error::explain(ErrorType::H2Error, why))
    }
}
