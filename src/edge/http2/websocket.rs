//! A WebSocket over one stream of HTTP/2 (RFC 8441).
//!
//! A client asks for it with an extended CONNECT. That is made the request that asks for a
//! WebSocket in HTTP/1.1, so that it is routed, changed and passed on like one. The part of the
//! handshake that HTTP/2 does not have is the gateway's: it makes the key and checks the server's
//! answer to it.

use h2::ext::Protocol;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, StatusCode};
use openssl::base64::encode_block;
use openssl::sha::sha1;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use crate::edge::refusal::{Refusal, bad};
use crate::proxy::{ResponseBody, ResponseHead};

/// What a server adds to a key before it responds (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The refusal of a WebSocket where the gateway has a response of its own.
pub(super) const NOT_HERE: Refusal = Refusal {
    status: StatusCode::NOT_FOUND,
    reason: "there is no WebSocket here",
};

/// The server's part of a handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    /// What it has to respond.
    accept: String,
}

/// Whether a head asks for a WebSocket.
pub(super) fn is_asked_for(head: &RequestHeader) -> bool {
    let protocol = head.extensions.get::<Protocol>();
    head.method == Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Makes a checked head that asks for a WebSocket one of HTTP/1.1. Other heads stay as they are.
///
/// # Errors
/// If the request has a body beside.
pub(super) fn begin_handshake(head: &mut RequestHeader) -> Result<Option<Handshake>, Refusal> {
    if !is_asked_for(head) {
        return Ok(None);
    }
    if head.headers.contains_key(CONTENT_LENGTH) {
        return Err(bad("a Content-Length in a request for a WebSocket"));
    }
    let key = encode_block(&fastrand::u128(..).to_ne_bytes());
    let handshake = Handshake {
        accept: accept_for(&key),
    };
    head.set_method(Method::GET);
    let fields = [
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_KEY, key.as_str()),
    ];
    for (name, value) in fields {
        let value = HeaderValue::from_str(value);
        let inserted = value.map(|value| head.insert_header(name, value));
        if !matches!(inserted, Ok(Ok(()))) {
            return Err(bad("the request cannot be passed on"));
        }
    }
    Ok(Some(handshake))
}

impl Handshake {
    /// Checks a server's response. Returns whether the stream becomes a tunnel.
    ///
    /// # Errors
    /// If the response would be misunderstood by a client of HTTP/2.
    pub(super) fn check_response(&self, head: &ResponseHead<'_>) -> Result<bool> {
        if head.body != ResponseBody::Tunnel {
            // Over HTTP/2 any success says that the tunnel is open.
            return match head.status.is_success() {
                true => Err(Error::explain(
                    ErrorType::HTTPStatus(NOT_HERE.status.as_u16()),
                    "the server does not open a WebSocket",
                )
                .into_down()),
                false => Ok(false),
            };
        }
        let is_answer = |name: &[u8]| name.eq_ignore_ascii_case(b"sec-websocket-accept");
        let mut answers = head.fields().filter(|(name, _)| is_answer(name));
        match (answers.next(), answers.next()) {
            (Some((_, value)), None) if value == self.accept.as_bytes() => Ok(true),
            _ => {
                let why = "the server does not answer to the key of the WebSocket";
                Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())
            }
        }
    }
}

/// Whether a field of the response that opens a tunnel belongs to HTTP/1.1 alone.
pub(super) fn is_of_http1(name: &[u8]) -> bool {
    let names = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT];
    let is = |other: &http::HeaderName| name.eq_ignore_ascii_case(other.as_str().as_bytes());
    names.iter().any(is)
}

/// The answer to a key (RFC 6455, section 4.2.2).
fn accept_for(key: &str) -> String {
    encode_block(&sha1([key, GUID].concat().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, protocol: Option<&str>, fields: &[(&str, &str)]) -> RequestHeader {
        let mut request = http::Request::builder()
            .method(method)
            .uri("https://a.test/chat?x");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(protocol) = protocol {
            request = request.extension(Protocol::from(protocol));
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        parts.into()
    }

    #[test]
    fn a_key_is_answered_as_in_the_standard() {
        let accept = accept_for("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade() {
        let fields = [("origin", "https://a.test"), ("sec-websocket-key", "mine")];
        let mut head = head("CONNECT", Some("websocket"), &fields);
        let handshake = begin_handshake(&mut head).expect("good");
        let handshake = handshake.expect("a handshake");
        assert_eq!(head.method, Method::GET);
        assert_eq!(head.raw_path(), b"/chat?x");
        assert_eq!(head.headers[CONNECTION], "Upgrade");
        assert_eq!(head.headers[UPGRADE], "websocket");
        assert_eq!(head.headers["origin"], "https://a.test");
        let keys: Vec<_> = head.headers.get_all(SEC_WEBSOCKET_KEY).iter().collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].len(), 24);
        let key = keys[0].to_str().expect("text");
        assert_eq!(handshake.accept, accept_for(key));
    }

    #[test]
    fn other_requests_stay_as_they_are() {
        for (method, protocol) in [
            ("CONNECT", None),
            ("CONNECT", Some("connect-udp")),
            ("CONNECT", Some("WebSocket")),
            ("GET", Some("websocket")),
            ("GET", None),
        ] {
            let mut head = head(method, protocol, &[]);
            let handshake = begin_handshake(&mut head).expect("good");
            assert!(handshake.is_none(), "{method} {protocol:?}");
            assert_eq!(head.method.as_str(), method);
            assert!(head.headers.is_empty());
        }
        let mut with_body = head("CONNECT", Some("websocket"), &[("content-length", "0")]);
        assert!(begin_handshake(&mut with_body).is_err());
    }

    #[test]
    fn a_response_opens_a_tunnel_only_with_the_answer_to_the_key() {
        let handshake = Handshake {
            accept: "yes".to_owned(),
        };
        let check = |octets: &str| {
            let mut checked = None;
            let parsed = ResponseHead::parse_sample(octets.as_bytes(), |head| {
                checked = Some(handshake.check_response(head));
                Ok(())
            });
            assert!(parsed.is_ok());
            let checked = checked.expect("a head");
            checked.map_err(|error| error.etype().clone())
        };
        let switching = |fields: &str| {
            check(&format!(
                "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n{fields}\r\n"
            ))
        };
        let refused = || Err(ErrorType::InvalidHTTPHeader);
        assert_eq!(switching("Sec-WebSocket-Accept: yes\r\n"), Ok(true));
        assert_eq!(switching(""), refused());
        assert_eq!(switching("Sec-WebSocket-Accept: no\r\n"), refused());
        let twice = "Sec-WebSocket-Accept: yes\r\n".repeat(2);
        assert_eq!(switching(&twice), refused());
        assert_eq!(check("HTTP/1.1 403 No\r\n\r\n"), Ok(false));
        assert_eq!(
            check("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"),
            Ok(false)
        );
        let success = check("HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(success, Err(ErrorType::HTTPStatus(404)));
    }
}
