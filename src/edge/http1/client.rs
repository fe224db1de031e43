//! The client of HTTP/1 in an exchange with a server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::AsyncWrite as _;

use super::stream::{Gone, MessageStream};
use crate::proxy::{Client, ResponseBody, ResponseHead};
use crate::shutdown::ShutdownWatch;

/// How many octets of a response are read at once.
const ROOM: usize = 32 * 1024;

/// The client of one request.
pub(super) struct Http1Client<'a> {
    stream: &'a mut MessageStream,
    /// Whether the client speaks HTTP/1.0.
    is_http_10: bool,
    /// Whether the connection may be kept after the response.
    may_keep: bool,
    shutdown: &'a ShutdownWatch,
    /// What frames the body, and is not written yet.
    out: BytesMut,
    is_chunked: bool,
    /// Whether the chunk that is being written has begun.
    in_chunk: bool,
    /// Whether the end of the response has been put into `out`.
    is_ended: bool,
    /// Whether the response says that the connection is kept.
    is_kept: bool,
}

impl<'a> Http1Client<'a> {
    pub(super) fn new(
        stream: &'a mut MessageStream,
        is_http_10: bool,
        may_keep: bool,
        shutdown: &'a ShutdownWatch,
    ) -> Self {
        Self {
            stream,
            is_http_10,
            may_keep,
            shutdown,
            out: BytesMut::new(),
            is_chunked: false,
            in_chunk: false,
            is_ended: false,
            is_kept: false,
        }
    }

    /// Whether another request may follow.
    pub(super) fn keeps_connection(&self) -> bool {
        self.is_kept && self.is_ended && self.stream.is_done()
    }

    fn put_line(&mut self, head: &ResponseHead<'_>) {
        self.out.reserve(1024);
        self.put(&[b"HTTP/1.1 ", head.status.as_str().as_bytes(), b" "]);
        self.put(&[head.reason.as_bytes(), b"\r\n"]);
        for (name, value) in head.fields() {
            self.put_field(name, value);
        }
    }

    fn put_field(&mut self, name: &[u8], value: &[u8]) {
        self.put(&[name, b": ", value, b"\r\n"]);
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    /// Writes what frames the body.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.out.is_empty() {
            let written = Pin::new(&mut *self.stream).poll_write(cx, &self.out);
            let count = ready!(written).map_err(write_error)?;
            self.out.advance(count);
            self.stream.note_written();
        }
        Poll::Ready(Ok(()))
    }
}

impl Client for Http1Client<'_> {
    fn at_upstreams(&self) -> Option<&Arc<AtomicUsize>> {
        None
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let data = ready!(self.stream.poll_data(cx));
        Poll::Ready(data.map_err(|error| {
            let why = "while the request's body is read";
            Error::because(ErrorType::ReadError, why, error).into_down()
        }))
    }

    fn is_body_done(&self) -> bool {
        self.stream.is_done()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let (kind, why) = match ready!(self.stream.poll_gone(cx)) {
            Gone::Closed => (ErrorType::ConnectionClosed, "the client has gone away"),
            Gone::Early => (ErrorType::ConnectError, "the upgrade is not granted yet"),
        };
        Poll::Ready(Error::explain(kind, why).into_down())
    }

    fn has_cancelled(&self) -> bool {
        false
    }

    fn send_interim(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        // A client of HTTP/1.0 knows no interim responses.
        if !self.is_http_10 {
            self.put_line(head);
            self.put(&[b"\r\n"]);
        }
        Ok(())
    }

    fn send_head(&mut self, head: &ResponseHead<'_>) -> Result<()> {
        self.put_line(head);
        self.put_field(b"X-Request-Id", head.request_id().as_bytes());
        if head.body == ResponseBody::Tunnel {
            self.put(&[b"\r\n"]);
            return Ok(());
        }
        if let Some(length) = head.body.declared_length() {
            let length = http::HeaderValue::from(length);
            self.put_field(b"Content-Length", length.as_bytes());
        }
        let is_unsized = matches!(head.body, ResponseBody::Chunked | ResponseBody::UntilClose);
        self.is_chunked = is_unsized && !self.is_http_10;
        if self.is_chunked {
            self.put_field(b"Transfer-Encoding", b"chunked");
        }
        if !head.is_dated() {
            self.put_field(b"Date", get_cached_date().as_bytes());
        }
        // To a client of HTTP/1.0 the end of the connection is the end of such a body. And what a
        // client may still send of its own cannot be told from its next request.
        let ends_with_connection = is_unsized && self.is_http_10;
        self.is_kept = self.may_keep
            && !ends_with_connection
            && self.stream.is_done()
            && !*self.shutdown.borrow();
        let connection: &[u8] = match self.is_kept {
            true => b"keep-alive",
            false => b"close",
        };
        self.put_field(b"Connection", connection);
        self.put(&[b"\r\n"]);
        Ok(())
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<usize>> {
        // Nothing more is read while a part is being sent.
        Poll::Ready(Ok(ROOM))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Bytes,
        is_last: bool,
    ) -> Poll<Result<()>> {
        if self.is_chunked && !part.is_empty() && !self.in_chunk {
            self.in_chunk = true;
            let size = format!("{:x}\r\n", part.len());
            self.put(&[size.as_bytes()]);
        }
        ready!(self.poll_out(cx))?;
        while !part.is_empty() {
            let written = Pin::new(&mut *self.stream).poll_write(cx, part);
            let count = ready!(written).map_err(write_error)?;
            part.advance(count);
            self.stream.note_written();
        }
        if std::mem::take(&mut self.in_chunk) {
            self.put(&[b"\r\n"]);
        }
        if is_last && !self.is_ended {
            self.is_ended = true;
            if self.is_chunked {
                self.put(&[b"0\r\n\r\n"]);
            }
        }
        self.poll_out(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut *self.stream)
            .poll_flush(cx)
            .map_err(write_error)
    }
}

fn write_error(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "while a response is sent", error).into_down()
}
