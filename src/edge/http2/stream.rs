//! One stream of a connection: its request and the response.
//!
//! Pingora's type of the same name is built only from valid requests. It responds to others itself,
//! with a bare status that is neither logged nor counted.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Connection;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Response};
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::http::v1::client::http_req_header_to_wire;
use pingora_core::protocols::http::v2::write_body;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{Digest, Stream};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::timeout;

use super::halves::Halves;
use super::websocket::begin_handshake;
use crate::edge::refusal::Refusal;

/// How much of a body is kept for another attempt at an upstream, in octets.
const RETRY: usize = 64 * 1024;

/// Fields of an HTTP/1 connection, which a response of HTTP/2 must not have (RFC 9113, section
/// 8.2.2).
const OF_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request and its response.
pub(super) struct HttpSession {
    head: RequestHeader,
    halves: Halves,
    response: Option<Box<ResponseHeader>>,
    retry: Option<FixedBuffer>,
    digest: Arc<Digest>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

impl HttpSession {
    /// Drives the connection. Returns the next request, valid or not; `None` once the connection
    /// has ended.
    pub(super) fn poll_accept(
        connection: &mut Connection<Stream, Bytes>,
        digest: &Arc<Digest>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self>> {
        let Some(Ok((request, respond))) = ready!(connection.poll_accept(cx)) else {
            return Poll::Ready(None);
        };
        let (head, body) = request.into_parts();
        Poll::Ready(Some(Self {
            head: head.into(),
            halves: Halves::new(body, respond),
            response: None,
            retry: None,
            digest: Arc::clone(digest),
            write_timeout: None,
            drain_timeout: None,
        }))
    }

    /// Makes a request for a WebSocket one of HTTP/1.1. Other requests stay as they are.
    pub(super) fn begin_handshake(&mut self) -> std::result::Result<(), Refusal> {
        self.halves.handshake = begin_handshake(&mut self.head)?.map(Box::new);
        Ok(())
    }

    /// Whether the client waits for a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        self.halves.handshake.is_some()
    }

    /// The next part of the body; `None` after the last.
    pub(super) async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let part = poll_fn(|cx| self.halves.poll_body(cx)).await?;
        if let (Some(retry), Some(part)) = (&mut self.retry, &part) {
            retry.write_to_buffer(part);
        }
        Ok(part)
    }

    /// The head, the digest of the connection, and the stream itself.
    pub(super) fn split(&mut self) -> (&RequestHeader, &Digest, &mut Halves) {
        (&self.head, &self.digest, &mut self.halves)
    }

    /// Waits until the client cancels the request, or the connection fails. Returns the cause.
    pub(super) async fn await_reset(&mut self) -> Box<Error> {
        match poll_fn(|cx| self.halves.poll_reset(cx)).await {
            Ok(reason) => {
                let why = format!("the client has reset the request: {reason}");
                Error::explain(ErrorType::H2Error, why)
            }
            Err(error) => error,
        }
    }

    /// Sends the head of the response, and with `end` nothing after it. An informational head is
    /// not sent.
    pub(super) fn write_response_header(
        &mut self,
        mut head: Box<ResponseHeader>,
        end: bool,
    ) -> Result<()> {
        if self.halves.is_ended || self.response.is_some() || head.status.is_informational() {
            return Ok(());
        }
        head.insert_header(DATE, get_cached_date())?;
        for name in &OF_CONNECTION {
            head.remove_header(name);
        }
        self.halves
            .send_head(Response::from_parts(head.as_owned_parts(), ()), end)?;
        self.response = Some(head);
        Ok(())
    }

    /// Sends a part of the response's body, which the client has to accept within the timeout.
    pub(super) async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        if self.halves.is_ended {
            return Ok(());
        }
        let (octets, within) = (data.len(), self.write_timeout);
        let writing = write_body(self.halves.writer()?, data, end, None);
        let written = match within {
            Some(within) => timeout(within, writing).await.unwrap_or_else(|_| {
                let why = format!("the client reads nothing for {within:?}");
                Err(Error::explain(ErrorType::WriteTimedout, why))
            }),
            None => writing.await,
        };
        written.map_err(|error| error.into_down())?;
        self.halves.sent += octets;
        self.halves.is_ended = end;
        Ok(())
    }

    /// Sends trailers, which end the response.
    pub(super) fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.halves.send_trailers(trailers)
    }

    /// Returns the writer for the rest of the response, whose head is sent.
    pub(super) fn take_response_body_writer(&mut self) -> Option<SendStream<Bytes>> {
        self.halves.writer.take()
    }

    /// Resets the stream, unless its response is complete.
    pub(super) fn shutdown(&mut self) {
        self.halves.shutdown();
    }

    /// Ends the response, if it has begun and not ended.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.halves.finish()
    }

    /// Ready once the client has cancelled the request, or the connection has failed.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason>> {
        self.halves.poll_reset(cx)
    }

    /// Whether the client has ended its body, and all of it has been read.
    pub(super) fn has_body_ended(&self) -> bool {
        self.halves.has_body_ended()
    }

    /// Whether the body has ended.
    pub(super) fn is_body_done(&self) -> bool {
        self.is_body_empty() || self.halves.has_body_ended()
    }

    pub(super) fn is_body_empty(&self) -> bool {
        let length = self.head.headers.get(CONTENT_LENGTH);
        let is_zero = length.is_some_and(|length| length.as_bytes() == b"0");
        self.halves.read == 0 && (is_zero || self.halves.has_body_ended())
    }

    pub(super) fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    pub(super) fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    /// The head of the request in HTTP/1 form; empty if it has none.
    pub(super) fn pseudo_raw_h1_request_header(&self) -> Bytes {
        http_req_header_to_wire(&self.head).map_or_else(Bytes::new, bytes::BytesMut::freeze)
    }

    pub(super) fn request_summary(&self) -> String {
        let (method, uri) = (&self.head.method, &self.head.uri);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        format!("{method} {}, Host: {authority}", uri.path())
    }

    pub(super) fn response_written(&self) -> Option<&ResponseHeader> {
        self.response.as_deref()
    }

    pub(super) fn body_bytes_read(&self) -> usize {
        self.halves.read
    }

    pub(super) fn body_bytes_sent(&self) -> usize {
        self.halves.sent
    }

    pub(super) fn enable_retry_buffering(&mut self) {
        self.retry.get_or_insert_with(|| FixedBuffer::new(RETRY));
    }

    pub(super) fn retry_buffer_truncated(&self) -> bool {
        self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    /// What has been read of the body; `None` if that is nothing, or too much to be kept.
    pub(super) fn get_retry_buffer(&self) -> Option<Bytes> {
        let retry = self.retry.as_ref().filter(|retry| !retry.is_truncated())?;
        retry.get_buffer()
    }

    pub(super) fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    pub(super) fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    pub(super) fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    pub(super) fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    /// The digest of the connection.
    pub(super) fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    pub(super) fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    pub(super) fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    pub(super) fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }
}
