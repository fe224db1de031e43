//! Strict reading of an HTTP/1 request head.
//!
//! Requests are smuggled if two parties read one message differently. So everything that another
//! server could read differently is refused here, before Pingora or an upstream sees a byte of it
//! (RFC 9112, sections 2.2, 3, 5 and 6).

use std::ops::Range;

use super::request_line::{self, Absolute, MAX_REQUEST_LINE, RequestLine, looks_like_http};
use crate::edge::refusal::{LINE_TOO_LONG, Refusal, TOO_LARGE, bad};
use crate::field::is_token;
use crate::host::NameBuffer;
use crate::proxy::{Authority, Framing};

/// The most fields of a head.
pub(in crate::edge) const MAX_FIELDS: usize = 100;

/// A request head that was found valid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its length in bytes, the empty line included.
    pub(super) len: usize,
    pub(super) body: Body,
    /// Whether its version is 1.0.
    pub(super) http_10: bool,
    /// Where the authority is in a target in absolute form. Boxed, since few requests have one.
    pub(super) absolute: Option<Box<Absolute>>,
    /// Whether the client keeps the connection for another request.
    pub(super) keeps_connection: bool,
    /// Whether the client waits for an interim response before it sends its body.
    pub(super) expects: bool,
    pub(super) ranges: HeadRanges,
}

/// Where method, target and host are in a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeadRanges {
    pub(super) method: Range<usize>,
    pub(super) target: Range<usize>,
    pub(super) host: Range<usize>,
}

/// How the end of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Chunked,
    /// This many bytes; 0 if there is no body.
    Length(u64),
    /// An upgrade to WebSocket is requested: what follows is no longer HTTP once it is granted.
    Upgrade,
}

impl Body {
    /// How the body is framed, which begins after the head.
    pub(super) fn framing(self) -> Framing {
        match self {
            Self::Chunked => Framing::chunked(),
            Self::Length(length) => Framing::Length(length),
            Self::Upgrade => Framing::Tunnel,
        }
    }
}

/// Parses the head at the beginning of `bytes`.
///
/// `Ok(None)` if more bytes are needed. `max` is the most bytes that a head may have.
///
/// # Errors
/// If the bytes are not the beginning of a request that is served.
pub(super) fn parse(bytes: &[u8], max: usize) -> Result<Option<Head>, Refusal> {
    let mut lines = Lines { rest: bytes };
    let Some(line) = lines.next_line()? else {
        return if bytes.len() > MAX_REQUEST_LINE {
            Err(LINE_TOO_LONG)
        } else {
            // A beginning that cannot be HTTP is refused now, not when the deadline has passed.
            looks_like_http(bytes).map(|()| None)
        };
    };
    if line.len() > MAX_REQUEST_LINE {
        return Err(LINE_TOO_LONG);
    }
    let request = RequestLine::parse(line)?;
    let mut fields = Fields::default();
    let mut count = 0;
    while let Some(line) = lines.next_line()? {
        if line.is_empty() {
            let len = bytes.len() - lines.rest.len();
            if len > max {
                return Err(TOO_LARGE);
            }
            let body = fields.body(&request)?;
            let absolute = fields.absolute(bytes, &request)?;
            return Ok(Some(Head {
                len,
                body,
                http_10: request.http_10,
                keeps_connection: fields.keeps_connection(&request),
                expects: fields.expects,
                ranges: HeadRanges {
                    method: within(bytes, request.method),
                    target: within(bytes, request.target),
                    host: within(bytes, fields.host),
                },
                absolute: absolute.map(Box::new),
            }));
        }
        count += 1;
        if count > MAX_FIELDS {
            return Err(TOO_LARGE);
        }
        fields.add_line(line)?;
    }
    if bytes.len() > max {
        return Err(TOO_LARGE);
    }
    Ok(None)
}

/// The range of `part` within `bytes`, which contain it.
fn within(bytes: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    start..start + part.len()
}

/// Lines that end in CRLF, each without a CR, LF or NUL inside.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The next whole line without its end; `None` if it is incomplete.
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        let Some(end) = memchr::memchr3(b'\r', b'\n', 0, self.rest) else {
            return Ok(None);
        };
        let (line, end) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        match end {
            [b'\r', b'\n', rest @ ..] => {
                self.rest = rest;
                Ok(Some(line))
            }
            [b'\r'] => Ok(None),
            [b'\r', ..] => Err(bad("a carriage return without a line feed")),
            [b'\n', ..] => Err(bad("a line feed without a carriage return")),
            _ => Err(bad("a NUL in the request head")),
        }
    }
}

/// What the fields say about the framing.
#[derive(Default)]
struct Fields<'a> {
    hosts: usize,
    host: &'a [u8],
    expects: bool,
    connection_close: bool,
    connection_keep_alive: bool,
    length: Option<u64>,
    chunked: bool,
    has_upgrade: bool,
    /// Whether each protocol that the client offers to upgrade to is WebSocket.
    upgrade_to_websocket: bool,
    connection_upgrade: bool,
}

impl<'a> Fields<'a> {
    /// Adds one field line.
    fn add_line(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(bad("a folded field line"));
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return Err(bad("a field line without a colon"));
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(bad("a field name is not a token"));
        }
        let value = value.get(1..).unwrap_or_default();
        if value
            .iter()
            .any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f)
        {
            return Err(bad("a control character in a field value"));
        }
        self.record_field(name, value.trim_ascii())
    }

    /// Records a field that matters for the framing.
    fn record_field(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                self.host = value;
                if value.is_empty() {
                    return Err(bad("an empty Host field"));
                }
                if memchr::memchr(b'@', value).is_some() {
                    return Err(bad("a user in the Host field"));
                }
            }
            6 if is("expect") => self.expects = true,
            7 if is("upgrade") => {
                let is_websocket = value.eq_ignore_ascii_case(b"websocket");
                self.upgrade_to_websocket =
                    is_websocket && (self.upgrade_to_websocket || !self.has_upgrade);
                self.has_upgrade = true;
            }
            10 if is("connection") => {
                for option in value.split(|&byte| byte == b',') {
                    let option = option.trim_ascii();
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    self.connection_close |= option.eq_ignore_ascii_case(b"close");
                    self.connection_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("content-length") => {
                if self.length.is_some() {
                    return Err(bad("more than one Content-Length"));
                }
                self.length = Some(parse_length(value)?);
            }
            17 if is("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad("a Transfer-Encoding other than chunked"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the authority of a target in absolute form is in `bytes`, which contain the head. It
    /// must be the same as that of `Host`, however the two are written.
    fn absolute(
        &self,
        bytes: &[u8],
        request: &RequestLine<'_>,
    ) -> Result<Option<Absolute>, Refusal> {
        let Some((authority, default_port)) = request_line::authority(request.target) else {
            return Ok(None);
        };
        let mut buffers = [NameBuffer::new(), NameBuffer::new()];
        let [of_target, of_host] = &mut buffers;
        let target = Authority::parse(authority, of_target);
        let target = target.ok_or(bad("the request target has no valid host"))?;
        if self.hosts > 0 {
            let host = Authority::parse(self.host, of_host);
            let host = host.ok_or(bad("the Host field is not a valid host"))?;
            let port = |of: Authority<'_>| of.port.unwrap_or(default_port);
            if host.host != target.host || port(host) != port(target) {
                return Err(bad("the request target and the Host field differ"));
            }
        }
        Ok(Some(Absolute {
            target: within(bytes, request.target),
            authority: within(bytes, authority),
            has_host: self.hosts > 0,
        }))
    }

    /// Whether the connection is kept (RFC 9112, section 9.3).
    fn keeps_connection(&self, request: &RequestLine<'_>) -> bool {
        !self.connection_close && (!request.http_10 || self.connection_keep_alive)
    }

    /// How the body is framed, once all fields are known.
    fn body(&self, request: &RequestLine<'_>) -> Result<Body, Refusal> {
        match (self.hosts, request.http_10) {
            (0, true) | (1, _) => {}
            (0, false) => return Err(bad("no Host field")),
            _ => return Err(bad("more than one Host field")),
        }
        if self.chunked {
            if self.length.is_some() {
                return Err(bad("both Content-Length and Transfer-Encoding"));
            }
            if request.http_10 {
                return Err(bad("Transfer-Encoding in HTTP/1.0"));
            }
            return Ok(Body::Chunked);
        }
        let length = self.length.unwrap_or(0);
        let upgrade = self.upgrade_to_websocket
            && self.connection_upgrade
            && !request.http_10
            && request.method == b"GET"
            && length == 0;
        Ok(if upgrade {
            Body::Upgrade
        } else {
            Body::Length(length)
        })
    }
}

/// A Content-Length: only digits, and few enough for any file.
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad("Content-Length is not a number"));
    }
    Ok(value
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn what_is_asked_for_is_found() {
        let asked = |head: &str| {
            let found = parse(head.as_bytes(), 1024).expect("good").expect("whole");
            let ranges = found.ranges;
            let at = |range: Range<usize>| head[range].to_owned();
            [at(ranges.method), at(ranges.target), at(ranges.host)]
        };
        for fields in [
            "Host: a.example\r\n",
            "X: y\r\nhost:  a.example \r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n",
        ] {
            let head = format!("GET /a?b HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(asked(&head), ["GET", "/a?b", "a.example"], "{fields}");
        }
    }

    #[test]
    fn only_websocket_alone_is_upgraded_to() {
        let body = |fields: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n{fields}\r\n");
            let found = parse(head.as_bytes(), 1024).expect("good").expect("whole");
            found.body
        };
        let (websocket, other) = ("Upgrade: WebSocket\r\n", "Upgrade: h2c\r\n");
        assert_eq!(body(websocket), Body::Upgrade);
        for fields in [
            other.to_owned(),
            [websocket, other].concat(),
            [other, websocket].concat(),
            "Upgrade: websocket, h2c\r\n".to_owned(),
        ] {
            assert_eq!(body(&fields), Body::Length(0), "{fields}");
        }
    }

    #[test]
    fn a_connection_is_kept_unless_the_client_closes_it() {
        for (version, field, is_kept) in [
            ("1.1", "X: y", true),
            ("1.1", "Connection: upgrade", true),
            ("1.1", "Connection: x, Close", false),
            ("1.0", "X: y", false),
            ("1.0", "Connection: Keep-Alive", true),
            ("1.0", "Connection: keep-alive, close", false),
        ] {
            let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n\r\n");
            let found = parse(head.as_bytes(), 1024).expect("good").expect("whole");
            assert_eq!(found.keeps_connection, is_kept, "{version} {field}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_becomes_one_in_origin_form() {
        let turned = |head: &str| {
            let rest = "\r\nrest";
            let mut bytes = BytesMut::from(format!("{head}{rest}").as_bytes());
            let found = parse(&bytes, 1024).ok()?.expect("whole");
            let absolute = found.absolute.expect("an absolute target");
            absolute.to_origin_form(&mut bytes, found.len);
            let text = String::from_utf8(bytes.to_vec()).expect("text");
            Some(text.strip_suffix(rest).expect("the rest").to_owned())
        };
        for (target, host, path) in [
            ("http://a.test/x?y", "a.test", "/x?y"),
            ("http://A.Test/", "a.test", "/"),
            ("http://a.test./", "A.TEST", "/"),
            ("http://a.test:80/", "a.test", "/"),
            ("HTTPS://a.test", "a.test:443", "/"),
            ("http://a.test?y", "a.test", "/?y"),
            ("http://[::1]:8080/", "[0::1]:8080", "/"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nA: b\r\nHost: {host}\r\n\r\n");
            let expected = format!("GET {path} HTTP/1.1\r\nA: b\r\nHost: {host}\r\n\r\n");
            assert_eq!(turned(&head), Some(expected), "{target}");
        }
        let old = "GET http://a.test:8/x HTTP/1.0\r\nA: b\r\n\r\n";
        let expected = "GET /x HTTP/1.0\r\nHost: a.test:8\r\nA: b\r\n\r\n";
        assert_eq!(turned(old).as_deref(), Some(expected));
        for (target, host) in [
            ("http://a.test/", "b.test"),
            ("http://a.test:443/", "a.test"),
            ("https://a.test:80/", "a.test"),
            ("http://x@a.test/", "a.test"),
            ("http://a.test\\b.test/", "a.test"),
            ("http://a.test/", "a b"),
            ("http:///x", "a.test"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(turned(&head), None, "{target} {host}");
        }
        assert_eq!(with("Host: x@a.test\r\n"), Err(400));
    }

    fn body_of(head: &str) -> Result<Body, u16> {
        match parse(head.as_bytes(), 64 * 1024) {
            Ok(Some(found)) => {
                assert_eq!(found.len, head.len(), "{head:?}");
                Ok(found.body)
            }
            Ok(None) => panic!("incomplete: {head:?}"),
            Err(refusal) => Err(refusal.status.as_u16()),
        }
    }

    fn with(fields: &str) -> Result<Body, u16> {
        body_of(&format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
    }

    #[test]
    fn good_heads_tell_their_framing() {
        assert_eq!(
            body_of("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Ok(Body::Length(0))
        );
        assert_eq!(body_of("GET / HTTP/1.0\r\n\r\n"), Ok(Body::Length(0)));
        assert_eq!(
            body_of("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
            Ok(Body::Length(0))
        );
        assert_eq!(
            body_of("GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            Ok(Body::Length(0))
        );
        assert_eq!(with("content-LENGTH: \t12 \r\n"), Ok(Body::Length(12)));
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), Ok(Body::Chunked));
        assert_eq!(with("X: \u{fc}\ttab\r\n"), Ok(Body::Length(0)));
        assert_eq!(
            body_of(
                "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                 Upgrade: websocket\r\n\r\n"
            ),
            Ok(Body::Upgrade)
        );
        assert_eq!(
            with("Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            Ok(Body::Length(0))
        );
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\rb\r\n",
            "X: a\nb\r\n",
            "X: a\0b\r\n",
            "X\0: a\r\n",
            ": a\r\n",
            "X Y: a\r\n",
            "Host: b.test\r\n",
        ] {
            assert_eq!(with(fields), Err(400), "{fields:?}");
        }
        assert_eq!(
            body_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(400)
        );
    }

    #[test]
    fn malformed_request_lines_are_refused() {
        for (line, status) in [
            ("GET /", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET / HTTP/1.1 ", 400),
            (" GET / HTTP/1.1", 400),
            ("GET / http/1.1", 400),
            ("GET / HTTP/1.10", 400),
            ("GET / HTTP/2.0", 400),
            ("GET / HTTP/1.2", 400),
            ("G(T / HTTP/1.1", 400),
            ("GET /a\tb HTTP/1.1", 400),
            ("GET /a#b HTTP/1.1", 400),
            ("GET a.test HTTP/1.1", 400),
            ("GET * HTTP/1.1", 400),
            ("GET ftp://a.test/ HTTP/1.1", 400),
            ("CONNECT a.test:443 HTTP/1.1", 405),
            ("TRACE / HTTP/1.1", 405),
        ] {
            let head = format!("{line}\r\nHost: a.test\r\n\r\n");
            assert_eq!(body_of(&head), Err(status), "{line:?}");
        }
        assert_eq!(body_of("GET / HTTP/1.1\r\n\r\n"), Err(400), "no Host");
    }

    #[test]
    fn limits_hold_before_the_head_is_whole() {
        let status = |bytes: &str| parse(bytes.as_bytes(), 1024).map_err(|r| r.status.as_u16());
        assert_eq!(
            status(&format!("GET /{}", "a".repeat(MAX_REQUEST_LINE))),
            Err(414)
        );
        assert_eq!(
            status(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1024))),
            Err(431)
        );
        assert_eq!(
            status(&format!(
                "GET / HTTP/1.1\r\n{}",
                "X: a\r\n".repeat(MAX_FIELDS + 1)
            )),
            Err(431)
        );
        assert_eq!(status("\x16\x03\x01"), Err(400), "a TLS ClientHello");
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r"), Ok(None));
        assert_eq!(status(""), Ok(None));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_the_same_in_pieces(bytes in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::sample::select(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
                proptest::num::u8::ANY,
            ], 0..200))
        {
            let whole = parse(&bytes, 1024);
            for end in 0..bytes.len() {
                // A prefix is either not whole yet or decided as the whole is.
                match parse(&bytes[..end], 1024) {
                    Ok(None) => {}
                    Ok(found) => proptest::prop_assert_eq!(&Ok(found), &whole),
                    Err(_) => proptest::prop_assert!(whole.is_err()),
                }
            }
        }
    }
}
