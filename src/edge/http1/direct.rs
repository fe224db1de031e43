//! Responses of the application's own, for which a request's head suffices.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::tls::SslDigest;

use super::head::{Head, HeadRanges};
use super::request_line::RoughLine;
use super::stream::MessageStream;

use crate::edge::refusal::Refusal;
use crate::proxy::{Decision, DirectResponder, Fields, Prepared, Request, Routed};

/// Up to this size a body is sent in one piece with its head.
const SMALL: usize = 8 * 1024;

/// What requests of a connection have in common.
pub(super) struct Client {
    address: Option<IpAddr>,
    tls: Option<Arc<SslDigest>>,
}

impl Client {
    pub(super) fn of(connection: &Stream) -> Self {
        let socket = connection.get_socket_digest();
        let address = socket.and_then(|socket| Some(*socket.peer_addr()?.as_inet()?));
        Self {
            address: address.map(|address| address.ip().to_canonical()),
            tls: connection.get_ssl_digest(),
        }
    }

    /// The request in `bytes`, which begin with its head.
    fn request_from<'a>(&'a self, ranges: &HeadRanges, bytes: &'a [u8]) -> Option<Request<'a>> {
        Some(Request {
            method: str::from_utf8(bytes.get(ranges.method.clone())?).ok()?,
            target: bytes.get(ranges.target.clone())?,
            authority: bytes.get(ranges.host.clone())?,
            version: "HTTP/1.1",
            fields: Fields::Lines(bytes),
            client: self.address,
            tls: self.tls.as_deref(),
        })
    }
}

/// What became of a message.
pub(super) enum Outcome {
    Answered,
    /// It goes to Pingora, with what the application has decided.
    Forward(Option<Decision>),
}

/// Has the application decide the message whose head has been read, and sends its response if it
/// has one.
///
/// # Errors
/// If the client does not accept it.
pub(super) async fn respond<A: DirectResponder>(
    app: &A,
    stream: &mut MessageStream,
    client: &Client,
    head: &Head,
) -> io::Result<Outcome> {
    let Some(ranges) = &head.ranges else {
        return Ok(Outcome::Forward(None));
    };
    let request = stream.unread().get(..head.len);
    let request = request.and_then(|bytes| client.request_from(ranges, bytes));
    let response = match request.map(|request| app.route(&request)) {
        Some(Routed::Respond(response)) => response,
        Some(Routed::Forward(decision)) => return Ok(Outcome::Forward(decision)),
        None => return Ok(Outcome::Forward(None)),
    };
    let bytes = stream.take_bytes(head.len);
    let body = response.body().map_or(&[][..], |body| body);
    let mut piece = whole_head(&response, body.len(), "keep-alive");
    let sent = if body.len() <= SMALL {
        piece.extend_from_slice(body);
        stream.send_response(&piece, &[]).await
    } else {
        stream.send_response(&piece, body).await
    };
    let octets = sent.as_ref().map_or(0, |()| body.len());
    if let Some(request) = client.request_from(ranges, &bytes) {
        app.record_sent(*response, &request, octets);
    }
    sent.map(|()| Outcome::Answered)
}

/// Responds to what is refused as malformed. Returns whether the client has accepted the response;
/// the connection must be closed in any case.
pub(super) async fn respond_refusal<A: DirectResponder>(
    app: &A,
    stream: &mut MessageStream,
    client: &Client,
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
        tls: client.tls.as_deref(),
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
    let status = response.status();
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
