//! Requests as the application reads them, and its own responses to them.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{SocketDigest, Stream};

use super::head::{Body, Head};
use super::request_line::RoughLine;
use super::stream::MessageStream;

use crate::edge::refusal::Refusal;
use crate::proxy::{DRAIN_LIMIT, DRAIN_TIMEOUT, DirectResponder, Fields, Prepared, Request};

/// Up to this size a body is sent in one piece with its head.
const SMALL: usize = 8 * 1024;

/// What requests of a connection have in common.
pub(super) struct Connected {
    address: Option<IpAddr>,
    port: Option<u16>,
    tls: Option<Arc<SslDigest>>,
    socket: Option<Arc<SocketDigest>>,
    accepted: Option<Arc<ProxyDigest>>,
}

impl Connected {
    pub(super) fn of(connection: &Stream) -> Self {
        let digest = connection.get_socket_digest();
        let socket = digest.as_ref();
        let address = socket.and_then(|socket| Some(*socket.peer_addr()?.as_inet()?));
        let own = socket.and_then(|socket| Some(*socket.local_addr()?.as_inet()?));
        Self {
            address: address.map(|address| address.ip().to_canonical()),
            port: own.map(|address| address.port()),
            tls: connection.get_ssl_digest(),
            socket: digest,
            accepted: connection.get_proxy_digest(),
        }
    }

    /// The request in `bytes`, which begin with its head.
    pub(super) fn request_from<'a>(&'a self, head: &Head, bytes: &'a [u8]) -> Option<Request<'a>> {
        let ranges = &head.ranges;
        Some(Request {
            method: str::from_utf8(bytes.get(ranges.method.clone())?).ok()?,
            target: bytes.get(ranges.target.clone())?,
            authority: bytes.get(ranges.host.clone())?,
            version: match head.http_10 {
                true => "HTTP/1.0",
                false => "HTTP/1.1",
            },
            fields: Fields::Lines(bytes),
            client: self.address,
            port: self.port,
            tls: self.tls.as_deref(),
            socket: self.socket.as_deref(),
            accepted: self.accepted.as_deref(),
            relayed: None,
        })
    }
}

/// Sends the application's own response to a request whose head has been taken from the stream, and
/// has it recorded. Returns whether another request may follow, for which `may_keep` allows it.
///
/// # Errors
/// If the client does not accept it.
pub(super) async fn respond<A: DirectResponder>(
    app: &A,
    stream: &mut MessageStream,
    head: &Head,
    request: &Request<'_>,
    response: Box<Prepared>,
    may_keep: bool,
) -> io::Result<bool> {
    let may_keep = may_keep && !response.closes() && head.body != Body::Upgrade;
    if may_keep && !stream.is_done() {
        // In a box, since few requests have a body that nobody reads.
        Box::pin(drain_body(stream, head)).await;
    }
    let is_kept = may_keep && stream.is_done();
    let body = response.body().map_or(&[][..], |body| body);
    let connection = if is_kept { "keep-alive" } else { "close" };
    let mut piece = whole_head(&response, body.len(), connection);
    let sent = if body.len() <= SMALL {
        piece.extend_from_slice(body);
        stream.send_response(&piece, &[]).await
    } else {
        stream.send_response(&piece, body).await
    };
    let octets = sent.as_ref().map_or(0, |()| body.len());
    app.record_sent(*response, request, octets);
    sent.map(|()| is_kept)
}

/// Reads what is left of a small body, so that the next request can follow it on the connection.
async fn drain_body(stream: &mut MessageStream, head: &Head) {
    let is_large = matches!(head.body, Body::Length(length) if length > DRAIN_LIMIT as u64);
    if is_large || head.expects {
        return;
    }
    let read = async {
        let mut left = DRAIN_LIMIT;
        while let Ok(Some(part)) = poll_fn(|cx| stream.poll_data(cx)).await {
            match left.checked_sub(part.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
}

/// Responds to what is refused as malformed. Returns whether the client has accepted the response;
/// the connection must be closed in any case.
pub(super) async fn respond_refusal<A: DirectResponder>(
    app: &A,
    stream: &mut MessageStream,
    client: &Connected,
    refusal: &Refusal,
) -> bool {
    let bytes = stream.take_bytes(stream.unread().len());
    let line = RoughLine::of(&bytes);
    let fields = Fields::Lines(&bytes);
    let request = Request {
        method: line.method,
        target: line.target,
        authority: fields.get(&HOST),
        version: line.version,
        fields,
        client: client.address,
        port: client.port,
        tls: client.tls.as_deref(),
        socket: client.socket.as_deref(),
        accepted: client.accepted.as_deref(),
        relayed: None,
    };
    let response = app.prepare_refusal(refusal.status, refusal.reason, &request);
    let body = response.body().map_or(&[][..], |body| body);
    let head = whole_head(&response, 0, "close");
    let sent = stream.send_refusal(&head, body).await;
    let octets = if sent { body.len() } else { 0 };
    app.record_sent(response, &request, octets);
    sent
}

/// The head of a response, `Connection` included, with room for a body of this size after it.
fn whole_head(response: &Prepared, body: usize, connection: &str) -> Vec<u8> {
    let status = response.head_status();
    let mut head = Vec::with_capacity(384 + body.min(SMALL));
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in response.fields() {
        write_field(&mut head, &name, &value);
    }
    head.extend_from_slice(b"Date: ");
    head.extend_from_slice(get_cached_date().as_bytes());
    head.extend_from_slice(b"\r\nConnection: ");
    head.extend_from_slice(connection.as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// Writes a field as most programs do: with each word of its name capitalized.
fn write_field(head: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let mut begins = true;
    for &octet in name.as_str().as_bytes() {
        head.push(if begins {
            octet.to_ascii_uppercase()
        } else {
            octet
        });
        begins = octet == b'-';
    }
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_bytes());
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn names_of_fields_are_written_in_capitals() {
        let mut head = Vec::new();
        write_field(
            &mut head,
            &CONTENT_TYPE,
            &HeaderValue::from_static("text/plain"),
        );
        assert_eq!(head, b"Content-Type: text/plain\r\n");
    }
}
