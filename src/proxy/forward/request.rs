//! The head of a request as it is sent to a server, in HTTP/1.1 or in HTTP/2.

use std::borrow::Cow;
use std::mem;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use pingora_core::{Error, ErrorType, OrErr as _, Result};

use crate::field::is_hop_by_hop;
use crate::proxy::header::{Forwarded, connection_names};
use crate::proxy::request::Request;
use crate::proxy::request_ctx::RequestCtx;
use crate::proxy::rewriting::RequestChanges;

/// How the body of a request is framed for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Writes the head of the request of `ctx` for a server of HTTP/1.1.
///
/// # Errors
/// If its host is not valid.
pub(super) fn write_head(
    request: &Request<'_>,
    ctx: &RequestCtx,
    body: Body,
    is_websocket: bool,
) -> Result<Bytes> {
    let (changes, forwarded) = changes_of(request, ctx)?;
    Ok(write_lines(
        request,
        changes,
        &forwarded,
        body,
        is_websocket,
    ))
}

/// Builds the same head for a server of HTTP/2, with which the gateway speaks TLS if `is_tls`.
///
/// # Errors
/// If its host is not valid, or if a part of it cannot be sent over HTTP/2.
pub(super) fn build_head(
    request: &Request<'_>,
    ctx: &RequestCtx,
    body: Body,
    is_tls: bool,
) -> Result<http::Request<()>> {
    let (changes, forwarded) = changes_of(request, ctx)?;
    build_parts(request, changes, &forwarded, body, is_tls)
}

/// What the route changes in a request, and what its server is to know about the client.
fn changes_of<'a>(
    request: &Request<'a>,
    ctx: &'a RequestCtx,
) -> Result<(RequestChanges<'a>, Forwarded<'a>)> {
    let host = ctx.decision.as_ref().and_then(|one| one.host.clone());
    let invalid = || Error::explain(ErrorType::HTTPStatus(400), "the host is not valid");
    let changes = ctx.request_changes();
    let forwarded = Forwarded {
        client: request.client,
        chain: request.relayed.map(|relayed| &*relayed.chain),
        tls: request.is_secure(),
        host: host.ok_or_else(invalid)?,
        server_host: changes.host,
        port: request.port,
        request_id: ctx.request_id_value(),
        trace: ctx.trace_for_server(&changes),
    };
    Ok((changes, forwarded))
}

/// Writes the head of a request: the client's fields without those that belong to its connection or
/// that the gateway vouches for, with the changes of the route, and what the server is to know about
/// the client.
fn write_lines(
    request: &Request<'_>,
    changes: RequestChanges<'_>,
    forwarded: &Forwarded<'_>,
    body: Body,
    is_websocket: bool,
) -> Bytes {
    let mut head = Vec::with_capacity(1024);
    let target = changes.target.unwrap_or_else(|| request.origin_form());
    for part in [request.method.as_bytes(), b" ", target] {
        head.extend_from_slice(part);
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let takes_trailers = for_each_field(request, changes, forwarded, |name, value| {
        put_field(&mut head, name, value);
    });
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
    } else if takes_trailers {
        put_field(&mut head, b"TE", b"trailers");
        put_field(&mut head, b"Connection", b"TE");
    }
    forwarded.for_each(|name, value| put_field(&mut head, name.as_bytes(), value));
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// The same for a server of HTTP/2.
fn build_parts(
    request: &Request<'_>,
    changes: RequestChanges<'_>,
    forwarded: &Forwarded<'_>,
    body: Body,
    is_tls: bool,
) -> Result<http::Request<()>> {
    let invalid = "the request cannot be sent over HTTP/2";
    let target = changes.target.unwrap_or_else(|| request.origin_form());
    let mut fields = HeaderMap::with_capacity(32);
    let mut unfit = None;
    let mut put = |name: &[u8], value: &[u8]| match (
        HeaderName::from_bytes(name),
        HeaderValue::from_bytes(value),
    ) {
        (Ok(name), Ok(value)) => _ = fields.append(name, value),
        (Err(error), _) => unfit = Some(http::Error::from(error)),
        (_, Err(error)) => unfit = Some(http::Error::from(error)),
    };
    if for_each_field(request, changes, forwarded, &mut put) {
        put(b"te", b"trailers");
    }
    if let Body::Length(length) = body {
        put(b"content-length", HeaderValue::from(length).as_bytes());
    }
    let mut authority = Vec::new();
    forwarded.for_each(|name, value| match name {
        "Host" => authority = value.to_vec(),
        name => put(name.as_bytes(), value),
    });
    let uri = Uri::builder()
        .scheme(if is_tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(target)
        .build();
    let uri = match unfit {
        Some(error) => Err(error),
        None => uri,
    };
    let uri = uri.or_err(ErrorType::HTTPStatus(400), invalid)?;
    let mut head = http::Request::new(());
    *head.method_mut() = Method::from_bytes(request.method.as_bytes())
        .or_err(ErrorType::HTTPStatus(400), invalid)?;
    (*head.uri_mut(), *head.headers_mut()) = (uri, fields);
    *head.version_mut() = Version::HTTP_2;
    Ok(head)
}

/// Passes the fields of a request to `put` that every server gets, whatever is spoken with it: the
/// client's, with the changes of the route. Returns whether the client takes trailers.
fn for_each_field(
    request: &Request<'_>,
    changes: RequestChanges<'_>,
    forwarded: &Forwarded<'_>,
    mut put: impl FnMut(&[u8], &[u8]),
) -> bool {
    let fields = || request.fields.iter();
    let nominates = connection_names(fields()).any(|name| {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        !is("keep-alive") && !is("close") && !is("upgrade")
    });
    let is_nominated = |name: &[u8]| {
        nominates && connection_names(fields()).any(|named| named.eq_ignore_ascii_case(name))
    };
    let mut has_cookie = false;
    let mut takes_trailers = false;
    for (name, value) in fields() {
        if is_framing(name) || is_hop_by_hop(name) || forwarded.replaces(name) || is_nominated(name)
        {
            // It belongs to its connection, and over HTTP/1 must say so.
            takes_trailers |= name.eq_ignore_ascii_case(b"te")
                && value.eq_ignore_ascii_case(b"trailers")
                && (request.is_http2() || is_nominated(name));
            continue;
        }
        if changes.fields.drops(name) {
            continue;
        }
        if is_cookie(name) {
            // HTTP/2 may split it (RFC 9113, section 8.2.3).
            if !mem::replace(&mut has_cookie, true) {
                put(name, &join_cookies(request));
            }
            continue;
        }
        put(name, value);
    }
    for (name, value) in changes.fields.written() {
        put(name.as_bytes(), value.as_bytes());
    }
    takes_trailers
}

fn is_cookie(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"cookie")
}

/// All cookies of a request as one value.
fn join_cookies<'a>(request: &Request<'a>) -> Cow<'a, [u8]> {
    let cookies = request.fields.iter().filter(|(name, _)| is_cookie(name));
    let mut cookies = cookies.map(|(_, value)| value);
    let mut joined = Cow::Borrowed(cookies.next().unwrap_or_default());
    for next in cookies {
        let joined = joined.to_mut();
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(next);
    }
    joined
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::request::Fields;

    fn request<'a>(target: &'a str, version: &'static str, fields: Fields<'a>) -> Request<'a> {
        Request {
            method: "POST",
            target: target.as_bytes(),
            authority: b"a.test",
            version,
            fields,
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        }
    }

    fn write(request: &Request<'_>, body: Body, is_websocket: bool) -> String {
        let request_id = HeaderValue::from_static("00ff");
        let forwarded = Forwarded {
            client: "192.0.2.1".parse().ok(),
            chain: None,
            tls: true,
            host: HeaderValue::from_static("a.test"),
            server_host: None,
            port: Some(443),
            request_id: &request_id,
            trace: None,
        };
        let changes = RequestChanges::default();
        let head = write_lines(request, changes, &forwarded, body, is_websocket);
        String::from_utf8(head.to_vec()).expect("text")
    }

    /// The lines between the first one and what is said about the client.
    fn own_lines(head: &str) -> Vec<&str> {
        let lines = head.split("\r\n").skip(1);
        lines.take_while(|line| *line != "Host: a.test").collect()
    }

    /// Those lines for a request of HTTP/1.1 with these lines.
    fn lines(fields: &str, body: Body, is_websocket: bool) -> Vec<String> {
        let lines = format!("POST / HTTP/1.1\r\nHost: A.TEST:443\r\n{fields}\r\n");
        let request = request("/", "HTTP/1.1", Fields::Lines(lines.as_bytes()));
        let head = write(&request, body, is_websocket);
        own_lines(&head).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_server_gets_the_clients_fields_as_they_were_written() {
        let fields = "uSER-agent: me\r\nAccept: a\r\nX: \r\nExpect: 100-continue\r\n\
             accept: b\r\nCookie: a=1\r\nCookie: b=2\r\n";
        assert_eq!(
            lines(fields, Body::None, false),
            [
                "uSER-agent: me",
                "Accept: a",
                "X: ",
                "Expect: 100-continue",
                "accept: b",
                "Cookie: a=1; b=2",
            ]
        );
    }

    #[test]
    fn a_server_learns_from_the_gateway_where_a_request_comes_from() {
        let lines = "POST http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\
             X-Forwarded-For: 203.0.113.9\r\nforwarded: for=203.0.113.9\r\nX-Real-IP: 1\r\n\
             x_forwarded_for: 1\r\nX-Request-Id: mine\r\nProxy: http://evil.test\r\n\r\n";
        let request = request(
            "http://a.test/x?y",
            "HTTP/1.1",
            Fields::Lines(lines.as_bytes()),
        );
        assert_eq!(
            write(&request, Body::None, false),
            "POST /x?y HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Port: 443\r\nX-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n\
             Forwarded: for=192.0.2.1;proto=https;host=\"a.test\"\r\nX-Forwarded-Host: a.test\r\n\
             X-Request-Id: 00ff\r\n\r\n"
        );
    }

    #[test]
    fn what_belongs_to_the_clients_connection_stays_there() {
        let fields = "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
             Trailer: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Authorization: Basic eA==\r\nconnection: close ,x-last,\r\nX-Last: 2\r\n\
             X-Hopper: 3\r\n";
        assert_eq!(lines(fields, Body::None, false), ["X-Hopper: 3"]);
    }

    #[test]
    fn the_gateway_frames_the_body() {
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(
            lines(chunked, Body::Chunked, false),
            ["Transfer-Encoding: chunked"]
        );
        let length = "X: 1\r\ncontent-length: 007\r\n";
        assert_eq!(
            lines(length, Body::Length(7), false),
            ["X: 1", "Content-Length: 7"]
        );
        let zero = "Content-Length: 0\r\n";
        assert_eq!(lines(zero, Body::Length(0), false), ["Content-Length: 0"]);
        assert!(lines("", Body::None, false).is_empty());
        // HTTP/2 need not declare a length.
        let none = HeaderMap::new();
        let request = request("/", "HTTP/2.0", Fields::Map(&none));
        let head = write(&request, Body::Chunked, false);
        assert_eq!(own_lines(&head), ["Transfer-Encoding: chunked"]);
    }

    #[test]
    fn a_websocket_is_asked_for_anew() {
        let fields = "connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
             Sec-WebSocket-Key: x\r\nContent-Length: 0\r\n";
        assert_eq!(
            lines(fields, Body::None, true),
            [
                "Sec-WebSocket-Key: x",
                "Connection: Upgrade",
                "Upgrade: websocket",
            ]
        );
    }

    /// The head of a request for a server of HTTP/2.
    fn build(request: &Request<'_>, body: Body) -> http::Request<()> {
        let request_id = HeaderValue::from_static("00ff");
        let forwarded = Forwarded {
            client: "192.0.2.1".parse().ok(),
            chain: None,
            tls: true,
            host: HeaderValue::from_static("a.test"),
            server_host: None,
            port: Some(443),
            request_id: &request_id,
            trace: None,
        };
        build_parts(request, RequestChanges::default(), &forwarded, body, false).expect("valid")
    }

    #[test]
    fn a_server_of_http2_gets_the_same_fields() {
        let lines = b"POST /x?y=\"z\" HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 203.0.113.9\r\n\
             Connection: keep-alive, X-Hop, TE\r\nX-Hop: 1\r\nTE: trailers\r\nX-A: 1\r\nx-a: 2\r\n\
             Transfer-Encoding: chunked\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n";
        let of_client = request("/x?y=z", "HTTP/1.1", Fields::Lines(lines));
        let head = build(&of_client, Body::Chunked);
        assert_eq!(head.uri(), "http://a.test/x?y=z");
        assert_eq!(head.version(), Version::HTTP_2);
        let fields = head.headers().iter();
        let fields: Vec<String> = fields
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        assert_eq!(
            fields,
            [
                "x-a: 1",
                "x-a: 2",
                "cookie: a=1; b=2",
                "te: trailers",
                "x-forwarded-proto: https",
                "x-forwarded-port: 443",
                "x-forwarded-for: 192.0.2.1",
                "x-real-ip: 192.0.2.1",
                "forwarded: for=192.0.2.1;proto=https;host=\"a.test\"",
                "x-forwarded-host: a.test",
                "x-request-id: 00ff",
            ]
        );
        let none = HeaderMap::new();
        let of_client = request("/", "HTTP/2.0", Fields::Map(&none));
        let head = build(&of_client, Body::Length(7));
        assert_eq!(head.headers()["content-length"], "7");
    }

    #[test]
    fn a_server_learns_that_the_client_takes_trailers() {
        let mut te = HeaderMap::new();
        te.insert("te", HeaderValue::from_static("trailers"));
        let of_client = request("/", "HTTP/2.0", Fields::Map(&te));
        let head = write(&of_client, Body::None, false);
        assert_eq!(own_lines(&head), ["TE: trailers", "Connection: TE"]);
        assert_eq!(build(&of_client, Body::None).headers()["te"], "trailers");
        let nominated = "Connection: te\r\nTE: trailers\r\n";
        let expected = ["TE: trailers", "Connection: TE"];
        assert_eq!(lines(nominated, Body::None, false), expected);
        assert!(lines("TE: trailers\r\n", Body::None, false).is_empty());
    }

    #[test]
    fn cookies_that_http2_has_split_are_joined() {
        let mut map = HeaderMap::new();
        for (name, value) in [("cookie", "a=1"), ("accept", "x"), ("cookie", "b=2")] {
            map.append(name, HeaderValue::from_static(value));
        }
        let split = request("/", "HTTP/2.0", Fields::Map(&map));
        let head = write(&split, Body::None, false);
        assert_eq!(own_lines(&head), ["cookie: a=1; b=2", "accept: x"]);
    }
}
