//! The fields of messages: what is added, replaced and dropped on the way.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HeaderName, HeaderValue, UPGRADE};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::refusal::Refusal;
use super::request::{Fields, Request};
use crate::field::{is_claim, is_token};
use crate::trace::{RequestTrace, TRACEPARENT, TRACESTATE};

/// The field that carries the id of a request through gateway, upstream and logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What an upstream learns about the client.
pub(crate) struct Forwarded<'a> {
    pub(crate) client: Option<IpAddr>,
    /// The client and the trusted proxies that have relayed the request, if any have.
    pub(crate) chain: Option<&'a str>,
    /// Whether the client spoke TLS.
    pub(crate) tls: bool,
    /// The authority in normal form.
    pub(crate) host: HeaderValue,
    /// What the upstream gets as `Host` instead, if its route says so.
    pub(crate) server_host: Option<&'a HeaderValue>,
    /// The port that the client connected to.
    pub(crate) port: Option<u16>,
    pub(crate) request_id: &'a HeaderValue,
    /// The trace of the request, if there are traces.
    pub(crate) trace: Option<&'a RequestTrace>,
}

impl Forwarded<'_> {
    /// Writes the fields that tell an upstream about the client, in place of the client's own.
    ///
    /// Clients cannot be trusted about where they come from. So none of their claims are kept:
    /// neither `Forwarded` (RFC 7239), nor any `X-Forwarded-*`, nor a spelling that a server might
    /// confuse with one.
    pub(crate) fn write_fields(&self, request: &mut RequestHeader) -> Result<()> {
        let dropped: Vec<HeaderName> = request
            .headers
            .keys()
            .filter(|name| self.replaces(name.as_str().as_bytes()))
            .cloned()
            .collect();
        for name in dropped {
            request.remove_header(&name);
        }
        let mut written = Ok(());
        self.for_each(|name, text| {
            if written.is_ok() {
                written = value(text).and_then(|value| request.insert_header(name, value));
            }
        });
        written
    }

    /// Whether the server does not get this field of the client's.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        is_claim(name)
            || self.trace.is_some_and(|trace| {
                let is = |other: HeaderName| name.eq_ignore_ascii_case(other.as_str().as_bytes());
                // What vendors add belongs to a trace that the client has named.
                is(TRACEPARENT) || trace.parent.is_none() && is(TRACESTATE)
            })
    }

    /// Passes each of the fields to `put`.
    pub(crate) fn for_each(&self, mut put: impl FnMut(&'static str, &[u8])) {
        let host = self.host.as_bytes();
        put("Host", self.server_host.map_or(host, HeaderValue::as_bytes));
        let proto = if self.tls { "https" } else { "http" };
        put("X-Forwarded-Proto", proto.as_bytes());
        let mut text = Text::default();
        if let Some(port) = self.port {
            _ = write!(text, "{port}");
            put("X-Forwarded-Port", text.as_bytes());
        }
        let mut forwarded = Text::default();
        if let Some(client) = self.client {
            text = Text::default();
            _ = write!(text, "{client}");
            let chain = self.chain.map_or(text.as_bytes(), str::as_bytes);
            put("X-Forwarded-For", chain);
            put("X-Real-IP", text.as_bytes());
            _ = match client {
                IpAddr::V4(address) => write!(forwarded, "for={address};"),
                IpAddr::V6(address) => write!(forwarded, "for=\"[{address}]\";"),
            };
        }
        let name = self.host.to_str().unwrap_or_default();
        _ = write!(forwarded, "proto={proto};host=\"{name}\"");
        put("Forwarded", forwarded.as_bytes());
        put("X-Forwarded-Host", host);
        put("X-Request-Id", self.request_id.as_bytes());
        if let Some(trace) = self.trace {
            text = Text::default();
            _ = write!(text, "{}", trace.passed_on());
            put("traceparent", text.as_bytes());
        }
    }
}

/// A short text that needs no allocation: at most a `Forwarded` field with the longest host.
struct Text {
    octets: [u8; 384],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            octets: [0; 384],
            len: 0,
        }
    }
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let end = self.len + part.len();
        let room = self.octets.get_mut(self.len..end);
        room.ok_or(std::fmt::Error)?
            .copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Checks what must hold for every request.
///
/// HTTP/1 has already been checked octet by octet. For HTTP/2, h2 and `edge` refuse
/// connection-specific fields, upper case, forbidden octets, a bad `Content-Length` and an
/// authority that differs from `Host`. The rest is checked here, for both. Returns whether the
/// request may belong to a trace.
pub(crate) fn check_request(request: &Request<'_>) -> std::result::Result<bool, Refusal> {
    let bad = |why| Err(Refusal::Invalid(StatusCode::BAD_REQUEST, why));
    let mut is_traced = false;
    if matches!(request.method, "CONNECT" | "TRACE") {
        return Err(Refusal::Invalid(
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed here.",
        ));
    }
    let mut lengths = 0;
    for (name, value) in request.fields.iter() {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            6 if is("expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Refusal::Invalid(
                    StatusCode::EXPECTATION_FAILED,
                    "The only supported expectation is 100-continue.",
                ));
            }
            10 if is("connection") => check_nominated(request.fields)?,
            11 if is("traceparent") => is_traced = true,
            14 if is("content-length") => {
                lengths += 1;
                if lengths > 1 || digits(value).is_none() {
                    return bad("The length of the body is not given as one number.");
                }
            }
            17 if is("transfer-encoding") && request.is_http2() => {
                return bad("HTTP/2 does not allow Transfer-Encoding.");
            }
            _ => {}
        }
    }
    if !request.origin_form().starts_with(b"/") {
        return bad("The request has no path.");
    }
    Ok(is_traced)
}

/// Checks the names in `Connection` as Pingora does once it is connected to an upstream: none may
/// remove fields that routing and trust depend on.
fn check_nominated(fields: Fields<'_>) -> std::result::Result<(), Refusal> {
    const MOST: usize = 9;
    let is_good = |name: &[u8]| {
        !PROTECTED.iter().any(|kept| name.eq_ignore_ascii_case(kept))
            && name.iter().all(|&octet| is_token(octet))
    };
    let mut names = connection_names(fields.iter());
    let mut count = 0;
    if names.all(|name| {
        count += 1;
        is_good(name)
    }) && count <= MOST
    {
        return Ok(());
    }
    Err(Refusal::Invalid(
        StatusCode::BAD_REQUEST,
        "The Connection field names a field that it must not name.",
    ))
}

/// Fields that `Connection` must not name.
const PROTECTED: [&[u8]; 4] = [
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

/// The length that a checked request declares for its body.
pub(crate) fn declared_length(fields: Fields<'_>) -> Option<u64> {
    let mut fields = fields.iter();
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    digits(length?.1)
}

/// Whether the client of a checked request waits for `100 Continue` before it sends the body.
pub(crate) fn expects_continue(fields: Fields<'_>) -> bool {
    !fields.get(&EXPECT).is_empty()
}

/// Writes the length of a body in its normal form.
pub(crate) fn write_length(request: &mut RequestHeader, length: u64) -> Result<()> {
    match request.headers.get(CONTENT_LENGTH) {
        Some(value) if value.as_bytes().first() == Some(&b'0') && value.len() > 1 => {
            request.insert_header(CONTENT_LENGTH, length)
        }
        _ => Ok(()),
    }
}

/// A number that consists of digits only.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether a request asks for a WebSocket, in the only form that is passed on (RFC 6455, section
/// 4.1).
pub(crate) fn is_websocket(request: &Request<'_>) -> bool {
    if request.version == "HTTP/1.0" || request.method != "GET" {
        return false;
    }
    if request.is_http2() {
        // The field is not allowed there, so `edge` wrote it: the client asks for it in the manner
        // of HTTP/2 (RFC 8441).
        return !request.fields.get(&UPGRADE).is_empty();
    }
    let (mut asks, mut may) = (false, true);
    for (name, value) in request.fields.iter() {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            7 if is("upgrade") => {
                asks = true;
                may &= value.eq_ignore_ascii_case(b"websocket");
            }
            14 if is("content-length") => may &= value.iter().all(|&digit| digit == b'0'),
            17 if is("transfer-encoding") => may = false,
            _ => {}
        }
    }
    asks && may
        && connection_names(request.fields.iter()).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
}

/// Joins the `Cookie` fields that HTTP/2 may split (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let mut cookies = request.headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = request
        .headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = crumbs.join(&b"; "[..]);
    request.insert_header(COOKIE, value(joined)?)
}

/// The names in the `Connection` fields among these.
pub(crate) fn connection_names<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> impl Iterator<Item = &'a [u8]> {
    fields
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
        .flat_map(|(_, value)| value.split(|&octet| octet == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

fn value(text: impl Into<Vec<u8>>) -> Result<HeaderValue> {
    HeaderValue::try_from(text.into()).map_err(|error| {
        Error::because(ErrorType::InvalidHTTPHeader, "in a field of our own", error).into_in()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::is_vouched_for;

    fn request(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).expect("a head");
        for (name, value) in fields {
            request.append_header(*name, *value).expect("a field");
        }
        request
    }

    #[test]
    fn an_address_of_ipv6_is_quoted() {
        let mut request = request("GET", "/", &[("Host", "a.example")]);
        let id = HeaderValue::from_static("00ff");
        Forwarded {
            client: "2001:db8::1".parse().ok(),
            chain: None,
            tls: true,
            host: HeaderValue::from_static("[::1]:8443"),
            server_host: None,
            port: Some(443),
            request_id: &id,
            trace: None,
        }
        .write_fields(&mut request)
        .expect("written");
        let forwarded = "for=\"[2001:db8::1]\";proto=https;host=\"[::1]:8443\"";
        assert_eq!(request.headers["forwarded"], forwarded);
        assert_eq!(request.headers["x-forwarded-for"], "2001:db8::1");
        assert_eq!(request.headers["x-forwarded-port"], "443");
        assert_eq!(request.headers["host"], "[::1]:8443");
    }

    #[test]
    fn what_is_written_is_what_routes_may_not_set() {
        let id = HeaderValue::from_static("00ff");
        let forwarded = Forwarded {
            client: "192.0.2.1".parse().ok(),
            chain: None,
            tls: true,
            host: HeaderValue::from_static("a.example"),
            server_host: None,
            port: Some(443),
            request_id: &id,
            trace: None,
        };
        let mut count = 0;
        forwarded.for_each(|name, _| {
            assert!(name == "Host" || is_vouched_for(name.as_bytes()), "{name}");
            count += usize::from(name != "Host");
        });
        assert_eq!(count, 7);
    }

    #[test]
    fn only_a_whole_handshake_asks_for_a_websocket() {
        let upgrade = ("Upgrade", "websocket");
        let connection = ("Connection", "keep-alive, Upgrade");
        let is_websocket = |head: &RequestHeader| is_websocket(&Request::of(head, None));
        assert!(is_websocket(&request("GET", "/", &[upgrade, connection])));
        let mut http_10 = request("GET", "/", &[upgrade, connection]);
        http_10.set_version(http::Version::HTTP_10);
        assert!(!is_websocket(&http_10));
        let mut http_2 = request("GET", "/", &[upgrade]);
        http_2.set_version(http::Version::HTTP_2);
        assert!(is_websocket(&http_2));
        http_2.remove_header("Upgrade");
        assert!(!is_websocket(&http_2));
        for (method, fields) in [
            ("POST", &[upgrade, connection][..]),
            ("GET", &[upgrade]),
            ("GET", &[upgrade, ("Connection", "keep-alive")]),
            ("GET", &[("Upgrade", "h2c"), connection]),
            ("GET", &[("Upgrade", "websocket, h2c"), connection]),
            ("GET", &[upgrade, ("Upgrade", "h2c"), connection]),
            ("GET", &[upgrade, connection, ("Content-Length", "3")]),
            (
                "GET",
                &[upgrade, connection, ("Transfer-Encoding", "chunked")],
            ),
        ] {
            assert!(
                !is_websocket(&request(method, "/", fields)),
                "{method} {fields:?}"
            );
        }
    }
}
