//! The head of a request as it is sent to a server.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;

use crate::proxy::header::{Forwarded, connection_names, is_claim, is_hop_by_hop};
use crate::proxy::request::Request;

/// How the body of a request is framed for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Writes the head of a request: the client's fields without those that belong to its connection or
/// that the gateway vouches for, and what the server is to know about the client.
pub(super) fn write_head(
    request: &Request<'_>,
    forwarded: &Forwarded<'_>,
    body: Body,
    is_websocket: bool,
) -> Bytes {
    let fields = || request.fields.iter();
    let mut head = Vec::with_capacity(1024);
    for part in [request.method.as_bytes(), b" ", request.origin_form()] {
        head.extend_from_slice(part);
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let nominates = connection_names(fields()).any(|name| {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        !is("keep-alive") && !is("close") && !is("upgrade")
    });
    let is_nominated = |name: &[u8]| {
        nominates && connection_names(fields()).any(|named| named.eq_ignore_ascii_case(name))
    };
    let mut cookie: Option<Cow<'_, [u8]>> = None;
    for (name, value) in fields() {
        if is_framing(name) || is_hop_by_hop(name) || is_claim(name) || is_nominated(name) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"cookie") {
            // HTTP/2 may split it (RFC 9113, section 8.2.3).
            cookie = Some(match cookie {
                None => Cow::Borrowed(value),
                Some(first) => Cow::Owned([&*first, value].join(&b"; "[..])),
            });
            continue;
        }
        put_field(&mut head, name, value);
    }
    if let Some(cookie) = cookie {
        put_field(&mut head, b"Cookie", &cookie);
    }
    match body {
        Body::None => {}
        Body::Length(length) => {
            let length = HeaderValue::from(length);
            put_field(&mut head, b"Content-Length", length.as_bytes());
        }
        Body::Chunked => put_field(&mut head, b"Transfer-Encoding", b"chunked"),
    }
    if is_websocket {
        put_field(&mut head, b"Connection", b"Upgrade");
        put_field(&mut head, b"Upgrade", b"websocket");
    }
    forwarded.for_each(|name, value| put_field(&mut head, name.as_bytes(), value));
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// Whether the gateway writes a field itself: where the request goes, and how its body is framed.
fn is_framing(name: &[u8]) -> bool {
    match name.len() {
        4 => name.eq_ignore_ascii_case(b"host"),
        14 => name.eq_ignore_ascii_case(b"content-length"),
        _ => false,
    }
}

fn put_field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}
