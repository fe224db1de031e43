//! The head of a response as a server sends it in HTTP/1.

#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::proxy) mod fuzzing;

use std::mem::MaybeUninit;

use http::{HeaderName, HeaderValue, StatusCode, Version};
use pingora_core::{Error, ErrorType, Result};

use crate::proxy::error_page::{Replacements, describes_body};
use crate::proxy::response_fields::ResponseFields;
use crate::proxy::response_head::Meaning;
use crate::proxy::trailers::RequestTrailers;

/// The most octets of a head.
const MAX_HEAD: usize = 64 * 1024;

/// The most fields of a head.
const MAX_FIELDS: usize = 256;

/// The head of a response on its way to the client.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    pub status: StatusCode,
    /// As the server sent it.
    pub reason: &'a str,
    fields: &'a [httparse::Header<'a>],
    meaning: Meaning,
    /// What the gateway changes in its fields.
    gateway: ResponseFields<'a>,
    /// How the body ends, if one follows.
    pub body: Body,
}

/// The body that follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// None follows, though a length may be declared, as in the response to HEAD.
    None(Option<u64>),
    /// It has no octets, which the head does not say.
    Empty,
    Length(u64),
    Chunked,
    /// It ends with the server's connection.
    UntilClose,
    /// Everything that follows is a protocol of its own.
    Tunnel,
}

impl Body {
    /// The length that is declared.
    pub fn declared_length(self) -> Option<u64> {
        match self {
            Self::None(length) => length,
            Self::Length(length) => Some(length),
            Self::Empty => Some(0),
            Self::Chunked | Self::UntilClose | Self::Tunnel => None,
        }
    }
}

/// What a server was asked, as far as its response depends on it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Only for the head of the response.
    pub(super) head_alone: bool,
    pub(super) upgrade: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
    /// What the gateway changes in the fields of a final response.
    pub(super) gateway: ResponseFields<'a>,
    /// The pages that replace bodies.
    pub(super) replacements: Option<&'a Replacements>,
    /// Which trailers of the request are passed on; `None` if it can have none.
    pub(super) trailers: Option<RequestTrailers<'a>>,
}

/// What remains of a head that was handed on.
#[derive(Clone, Copy)]
pub(super) struct Parsed {
    /// Its length in octets.
    pub(super) len: usize,
    pub(super) status: StatusCode,
    pub(super) body: Body,
    /// Whether the server keeps its connection.
    pub(super) is_kept: bool,
}

/// Parses the head at the beginning of `octets`, and passes it to `send`. `None` if more octets
/// are needed.
///
/// # Errors
/// If the octets are not the beginning of a response that can be passed on, or if `send` fails.
pub(super) fn parse_head(
    octets: &[u8],
    asked: Asked<'_>,
    send: impl FnOnce(&ResponseHead<'_>) -> Result<()>,
) -> Result<Option<Parsed>> {
    let mut space = [MaybeUninit::uninit(); MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    let parsed = parser
        .parse_response_with_uninit_headers(&mut response, octets, &mut space)
        .map_err(|error| {
            Error::because(ErrorType::InvalidHTTPHeader, "in a response's head", error).into_up()
        })?;
    let httparse::Status::Complete(len) = parsed else {
        return match octets.len() > MAX_HEAD {
            true => Err(invalid("a response's head is too large")),
            false => Ok(None),
        };
    };
    if len > MAX_HEAD {
        return Err(invalid("a response's head is too large"));
    }
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| invalid("a response's status is out of range"))?;
    let version = match response.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let fields = &*response.headers;
    let pairs = fields
        .iter()
        .map(|field| (field.name.as_bytes(), field.value));
    let meaning = Meaning::read(status, version, pairs, asked.upgrade)?;
    let body = match meaning.length {
        _ if meaning.is_switching => Body::Tunnel,
        length if is_bodiless(status, asked) => Body::None(length),
        Some(length) => Body::Length(length),
        None if meaning.is_chunked => Body::Chunked,
        None => Body::UntilClose,
    };
    send(&ResponseHead {
        status,
        reason: response.reason.unwrap_or_default(),
        fields,
        meaning,
        gateway: changes(status, asked),
        body,
    })?;
    Ok(Some(Parsed {
        len,
        status,
        body,
        is_kept: meaning.is_kept && !matches!(body, Body::UntilClose | Body::Tunnel),
    }))
}

/// Whether no body follows the head of a response, whatever it declares.
fn is_bodiless(status: StatusCode, asked: Asked<'_>) -> bool {
    asked.head_alone
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What the gateway changes in the fields of a response.
fn changes(status: StatusCode, asked: Asked<'_>) -> ResponseFields<'_> {
    match status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        true => ResponseFields::of_request(asked.gateway.request_id),
        false => asked.gateway,
    }
}

/// Joins the folded lines of a head at the beginning of `octets` (RFC 9112, section 5.2). Returns
/// whether there were any.
pub(super) fn unfold_lines(octets: &mut [u8]) -> bool {
    let mut found = false;
    let mut begin = 0;
    while let Some(end) = octets
        .get(begin..)
        .and_then(|rest| memchr::memchr(b'\n', rest))
    {
        let end = begin + end;
        let line = octets.get(begin..end).unwrap_or_default();
        if matches!(line, [] | [b'\r']) {
            break;
        }
        if matches!(octets.get(end + 1), Some(b' ' | b'\t')) {
            let at = end.saturating_sub(usize::from(line.ends_with(b"\r")));
            if let Some(fold) = octets.get_mut(at..=end) {
                fold.fill(b' ');
                found = true;
            }
        }
        begin = end + 1;
    }
    found
}

impl<'a> ResponseHead<'a> {
    /// The head of a response that no server has sent.
    pub(in crate::proxy) fn own(
        status: StatusCode,
        fields: &'a [httparse::Header<'a>],
        gateway: ResponseFields<'a>,
        body: Body,
    ) -> Self {
        Self {
            status,
            reason: status.canonical_reason().unwrap_or_default(),
            fields,
            meaning: Meaning::default(),
            gateway,
            body,
        }
    }
}

impl<'a> ResponseHead<'a> {
    /// The head of a response over HTTP/2, with which the stream ends if `is_end`.
    ///
    /// # Errors
    /// If the response cannot be passed on without guessing what it means.
    pub(super) fn of_http2(
        status: StatusCode,
        fields: &'a [httparse::Header<'a>],
        is_end: bool,
        asked: Asked<'a>,
    ) -> Result<Self> {
        let pairs = fields
            .iter()
            .map(|field| (field.name.as_bytes(), field.value));
        let meaning = Meaning::read(status, Version::HTTP_2, pairs, false)?;
        let body = match meaning.length {
            length if is_bodiless(status, asked) => Body::None(length),
            Some(length) => Body::Length(length),
            None if is_end => Body::Empty,
            None => Body::Chunked,
        };
        Ok(Self {
            status,
            reason: status.canonical_reason().unwrap_or_default(),
            fields,
            meaning,
            gateway: changes(status, asked),
            body,
        })
    }
}

impl ResponseHead<'_> {
    /// Whether the response has a `Date`.
    pub fn is_dated(&self) -> bool {
        self.meaning.is_dated
    }

    /// The fields that reach the client, without the request's id, what frames the body, and what
    /// is said of the connection unless it becomes a tunnel.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let written = self.gateway.written();
        let written = written.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.server_fields().chain(written)
    }

    /// Those of the server that reach the client with another body.
    pub(super) fn fields_without_body(&self) -> Vec<(HeaderName, HeaderValue)> {
        let kept = self
            .server_fields()
            .filter(|(name, _)| !describes_body(name));
        let kept = kept.filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name).ok()?;
            Some((name, HeaderValue::from_bytes(value).ok()?))
        });
        kept.collect()
    }

    fn server_fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = || {
            let fields = self.fields.iter();
            fields.map(|field| (field.name.as_bytes(), field.value))
        };
        let is_kept = move |(name, _): &(&[u8], &[u8])| {
            !self.gateway.drops(name) && self.meaning.keeps_field(name, pairs())
        };
        pairs().filter(is_kept)
    }

    /// This head with other fields, which reach the client as they are, and another body.
    pub(super) fn with_fields<'b>(
        &'b self,
        fields: &'b [httparse::Header<'b>],
        body: Body,
    ) -> ResponseHead<'b> {
        ResponseHead {
            fields,
            gateway: ResponseFields::of_request(self.gateway.request_id),
            body,
            ..*self
        }
    }

    /// The id of the request, which a final response carries.
    pub fn request_id(&self) -> &HeaderValue {
        self.gateway.request_id
    }
}

fn invalid(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}

#[cfg(test)]
impl ResponseHead<'_> {
    /// Passes the head of a response to `send`, as if it was that to a request for an upgrade.
    pub(crate) fn parse_sample(
        octets: &[u8],
        send: impl FnOnce(&ResponseHead<'_>) -> Result<()>,
    ) -> Result<()> {
        let request_id = HeaderValue::from_static("00ff");
        let asked = Asked {
            head_alone: false,
            upgrade: true,
            expects: false,
            gateway: ResponseFields::of_request(&request_id),
            replacements: None,
            trailers: None,
        };
        parse_head(octets, asked, send).map(|parsed| assert!(parsed.is_some(), "a whole head"))
    }
}

#[cfg(test)]
mod tests {
    use pingora_core::ErrorSource;

    use super::super::fake::asked;
    use super::*;

    fn asked_for_head() -> Asked<'static> {
        Asked {
            head_alone: true,
            ..asked()
        }
    }

    fn asked_for_upgrade() -> Asked<'static> {
        Asked {
            upgrade: true,
            ..asked()
        }
    }

    #[test]
    fn over_http2_the_end_of_a_stream_is_that_of_its_body() {
        let of = |status: u16, is_end, asked| {
            let status = StatusCode::from_u16(status).expect("a status");
            let fields = [httparse::Header {
                name: "content-length",
                value: b"3",
            }];
            let fields = if status.is_server_error() {
                &fields[..]
            } else {
                &[]
            };
            let head = ResponseHead::of_http2(status, fields, is_end, asked).ok()?;
            Some(head.body)
        };
        assert_eq!(of(200, true, asked()), Some(Body::Empty));
        assert_eq!(of(200, false, asked()), Some(Body::Chunked));
        assert_eq!(of(500, false, asked()), Some(Body::Length(3)));
        assert_eq!(of(500, false, asked_for_head()), Some(Body::None(Some(3))));
        assert_eq!(of(204, false, asked()), Some(Body::None(None)));
        assert_eq!(of(101, false, asked_for_upgrade()), None);
    }

    /// The body that follows a head, and whether the connection is kept after it. `None` if the
    /// head is refused.
    fn framed_as(head: &str, asked: Asked<'_>) -> Option<(Body, bool)> {
        let octets = format!("{head}\r\n\r\nrest");
        match parse_head(octets.as_bytes(), asked, |_| Ok(())) {
            Ok(parsed) => {
                let parsed = parsed.expect("a whole head");
                assert_eq!(parsed.len, octets.len() - "rest".len());
                Some((parsed.body, parsed.is_kept))
            }
            Err(error) => {
                assert_eq!(*error.esource(), ErrorSource::Upstream, "{head}");
                None
            }
        }
    }

    /// The lines of a head as they reach the client.
    fn lines(head: &str, asked: Asked<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        let octets = format!("{head}\r\n\r\n");
        let parsed = parse_head(octets.as_bytes(), asked, |head| {
            lines.push(format!("{} {}", head.status.as_u16(), head.reason));
            for (name, value) in head.fields() {
                let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
                lines.push(format!("{}: {}", text(name), text(value)));
            }
            Ok(())
        });
        assert!(parsed.expect("valid").is_some());
        lines
    }

    #[test]
    fn the_head_says_how_the_body_ends() {
        for (head, body, is_kept) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3",
                Body::Length(3),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 003",
                Body::Length(3),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0",
                Body::Length(0),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length : 3",
                Body::Length(3),
                true,
            ),
            ("HTTP/1.1 404\r\ncontent-length: 3", Body::Length(3), true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked",
                Body::Chunked,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
                Body::Chunked,
                false,
            ),
            ("HTTP/1.1 200 OK", Body::UntilClose, false),
            ("HTTP/1.0 200 OK", Body::UntilClose, false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 3",
                Body::Length(3),
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: x, Close",
                Body::Length(3),
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close",
                Body::Chunked,
                false,
            ),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 3",
                Body::None(None),
                true,
            ),
            (
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked",
                Body::None(None),
                true,
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 3",
                Body::None(Some(3)),
                true,
            ),
            ("HTTP/1.1 304 Not Modified", Body::None(None), true),
            (
                "HTTP/1.1 100 Continue\r\nContent-Length: 3",
                Body::None(None),
                true,
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: x",
                Body::None(None),
                true,
            ),
        ] {
            assert_eq!(framed_as(head, asked()), Some((body, is_kept)), "{head}");
        }
    }

    #[test]
    fn no_body_follows_a_head_that_was_asked_for_alone() {
        for (fields, length) in [
            ("Content-Length: 3", Some(3)),
            ("Transfer-Encoding: chunked", None),
            ("Server: x", None),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}");
            let framed = framed_as(&head, asked_for_head());
            assert_eq!(framed, Some((Body::None(length), true)), "{head}");
        }
    }

    #[test]
    fn only_an_upgrade_that_was_asked_for_begins_a_tunnel() {
        let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket";
        assert_eq!(
            framed_as(switching, asked_for_upgrade()),
            Some((Body::Tunnel, false))
        );
        assert_eq!(framed_as(switching, asked()), None);
        let old = "HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket";
        assert_eq!(framed_as(old, asked_for_upgrade()), None);
        let refused = "HTTP/1.1 200 OK\r\nContent-Length: 3";
        assert_eq!(
            framed_as(refused, asked_for_upgrade()),
            Some((Body::Length(3), true))
        );
        let early = "HTTP/1.1 100 Continue";
        assert_eq!(
            framed_as(early, asked_for_upgrade()),
            Some((Body::None(None), true))
        );
    }

    #[test]
    fn a_head_with_two_meanings_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 4",
            "HTTP/1.1 200 OK\r\nContent-Length: -3",
            "HTTP/1.1 200 OK\r\nContent-Length: +3",
            "HTTP/1.1 200 OK\r\nContent-Length: 0x3",
            "HTTP/1.1 200 OK\r\nContent-Length:",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\nX: a\r\n folded",
            "HTTP/1.1 200 OK\r\nX: a\0b",
            "HTTP/1.1 200 OK\r\nno field",
            "HTTP/1.1 200 OK\r\n: x",
            "HTTP/1.1 099 Low",
            "HTTP/1.1 20 Short",
            "HTTP/2 200 OK",
            "<html>",
        ] {
            assert_eq!(framed_as(head, asked()), None, "{head}");
        }
    }

    #[test]
    fn what_belongs_to_the_servers_connection_stays_there() {
        let head = "HTTP/1.1 200 Fine\r\nConnection: X-Hop, keep-alive\r\nSet-Cookie: a\r\n\
             X-Hop: 1\r\nKeep-Alive: 5\r\nSERVER : x\r\nTransfer-Encoding: chunked\r\n\
             Trailer: t\r\nUpgrade: h2c\r\nset-cookie: b\r\nX-Request-Id: theirs\r\n\
             Proxy-Authenticate: Basic\r\nDate: d\r\nX-Empty:";
        assert_eq!(
            lines(head, asked()),
            [
                "200 Fine",
                "Set-Cookie: a",
                "SERVER: x",
                "set-cookie: b",
                "Date: d",
                "X-Empty: ",
            ]
        );
        assert_eq!(lines("HTTP/1.1 200 ", asked()), ["200 "]);
        let nominated = "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 3";
        assert_eq!(lines(nominated, asked()), ["200 OK"]);
    }

    #[test]
    fn the_client_learns_which_protocol_it_switches_to() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nKeep-Alive: 5\r\nSec-WebSocket-Accept: x";
        assert_eq!(
            lines(head, asked_for_upgrade()),
            [
                "101 Switching Protocols",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Accept: x",
            ]
        );
    }

    #[test]
    fn a_head_says_whether_it_is_dated() {
        for (octets, expected) in [
            (&b"HTTP/1.1 200 OK\r\ndate: d\r\n\r\n"[..], true),
            (b"HTTP/1.1 200 OK\r\nX-Date: d\r\n\r\n", false),
        ] {
            let sent = ResponseHead::parse_sample(octets, |head| {
                assert_eq!(head.is_dated(), expected);
                Ok(())
            });
            assert!(sent.is_ok());
        }
    }

    #[test]
    fn a_head_is_handed_on_once_it_is_whole() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\n";
        for len in 0..head.len() {
            let parsed = parse_head(&head[..len], asked(), |_| panic!("after {len} octets"));
            assert!(parsed.expect("the beginning of a head").is_none());
        }
        let parsed = parse_head(head, asked(), |_| Ok(())).expect("a head");
        assert_eq!(parsed.map(|parsed| parsed.len), Some(head.len()));
    }

    #[test]
    fn a_head_is_limited_in_octets_and_fields() {
        let (begin, end) = ("HTTP/1.1 200 OK\r\nX: ", "\r\n\r\n");
        let value = |len: usize| "a".repeat(len - begin.len() - end.len());
        let of = |len| format!("{begin}{}{end}", value(len));
        let parse = |octets: &str| {
            let parsed = parse_head(octets.as_bytes(), asked(), |_| Ok(()));
            parsed.map(|parsed| parsed.is_some()).ok()
        };
        assert_eq!(parse(&of(MAX_HEAD)), Some(true));
        assert_eq!(parse(&of(MAX_HEAD + 1)), None);
        let endless = of(MAX_HEAD + 8);
        assert_eq!(parse(&endless[..MAX_HEAD]), Some(false));
        assert_eq!(parse(&endless[..=MAX_HEAD]), None);
        let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
        assert_eq!(parse(&fields(MAX_FIELDS)), Some(true));
        assert_eq!(parse(&fields(MAX_FIELDS + 1)), None);
    }
}
