//! A request by its head, as it is routed and logged.

use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{Digest, SocketDigest};
use pingora_http::RequestHeader;

use super::authority::{Authority, Channel};
use super::proxy_header::Addresses;
use crate::config::model::ListenAddress;
use crate::host::{Host, NameBuffer};
use crate::tls::{ClientCertificate, TlsInfo, accepted_place};

/// A request by its head, which has been checked.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As it was sent.
    pub target: &'a [u8],
    /// `Host` or `:authority`, as it was sent.
    pub authority: &'a [u8],
    /// `HTTP/1.1` or the like.
    pub version: &'static str,
    pub fields: Fields<'a>,
    pub client: Option<IpAddr>,
    /// The port that the client connected to.
    pub port: Option<u16>,
    /// Of the connection; `None` if it is not TLS.
    pub tls: Option<&'a SslDigest>,
    /// Of the connection, with its addresses.
    pub socket: Option<&'a SocketDigest>,
    /// Of the connection, with the address that it was accepted at.
    pub(crate) accepted: Option<&'a ProxyDigest>,
    /// What trusted proxies say of it, which `client` and `port` are taken from.
    pub(crate) relayed: Option<&'a Relayed>,
}

/// What trusted proxies say of a request that they relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relayed {
    pub(crate) client: IpAddr,
    /// Whether the client speaks TLS, if they say so.
    pub(crate) is_tls: Option<bool>,
    /// The port that the client connected to, if they say so.
    pub(crate) port: Option<u16>,
    /// The client and the proxies, as `X-Forwarded-For` has them.
    pub(crate) chain: Box<str>,
}

/// The fields of a request.
#[derive(Clone, Copy)]
pub enum Fields<'a> {
    Map(&'a HeaderMap),
    /// Lines of HTTP/1 that end in CRLF, the first of which is that of the request.
    Lines(&'a [u8]),
}

/// Iterates over fields: names as they were sent, and values.
pub(crate) enum FieldsIter<'a> {
    Map(http::header::Iter<'a, HeaderValue>),
    Lines(&'a [u8]),
}

impl<'a> Iterator for FieldsIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = match self {
            Self::Map(map) => {
                let (name, value) = map.next()?;
                return Some((name.as_str().as_bytes(), value.as_bytes()));
            }
            Self::Lines(rest) => rest,
        };
        let (line, after) = rest.split_at_checked(memchr::memchr(b'\n', rest)? + 1)?;
        *rest = after;
        let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
        Some((name, value.get(1..)?.trim_ascii()))
    }
}

impl<'a> Fields<'a> {
    /// Iterates over the fields in their order.
    pub(crate) fn iter(self) -> FieldsIter<'a> {
        match self {
            Self::Map(map) => FieldsIter::Map(map.iter()),
            Self::Lines(lines) => {
                let first = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
                FieldsIter::Lines(lines.get(first..).unwrap_or_default())
            }
        }
    }

    /// The value of a field that may be there only once; empty if there is none, or more than one.
    pub(crate) fn get_only(self, name: &HeaderName) -> &'a [u8] {
        let first = self.get(name);
        if first.is_empty() {
            return first;
        }
        let wanted = name.as_str().as_bytes();
        let fields = self.iter();
        match fields
            .filter(|(found, _)| found.eq_ignore_ascii_case(wanted))
            .count()
        {
            1 => first,
            _ => b"",
        }
    }

    /// The first value of a field, empty if there is none.
    pub(crate) fn get(self, name: &HeaderName) -> &'a [u8] {
        match self {
            Self::Map(map) => map.get(name).map_or(b"", HeaderValue::as_bytes),
            Self::Lines(lines) => {
                let value = |line: &'a [u8]| {
                    let (found, value) = line.split_at_checked(name.as_str().len())?;
                    let value = value.strip_prefix(b":")?;
                    let is = found.eq_ignore_ascii_case(name.as_str().as_bytes());
                    is.then(|| value.trim_ascii())
                };
                let mut begin = 0;
                for end in memchr::memchr_iter(b'\n', lines) {
                    if let Some(found) = lines.get(begin..end).and_then(value) {
                        return found;
                    }
                    begin = end + 1;
                }
                lines.get(begin..).and_then(value).unwrap_or_default()
            }
        }
    }
}

impl<'a> Request<'a> {
    /// A request that Pingora has read.
    pub(crate) fn of(head: &'a RequestHeader, digest: Option<&'a Digest>) -> Self {
        let client = digest
            .and_then(|digest| digest.socket_digest.as_ref()?.peer_addr()?.as_inet())
            .map(|address| address.ip().to_canonical());
        Self {
            method: head.method.as_str(),
            target: head.raw_path(),
            authority: authority(head),
            version: match head.version {
                http::Version::HTTP_10 => "HTTP/1.0",
                http::Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            fields: Fields::Map(&head.headers),
            client,
            port: digest
                .and_then(|digest| digest.socket_digest.as_ref()?.local_addr()?.as_inet())
                .map(SocketAddr::port),
            tls: digest.and_then(|digest| digest.ssl_digest.as_deref()),
            socket: digest.and_then(|digest| digest.socket_digest.as_deref()),
            accepted: digest.and_then(|digest| digest.proxy_digest.as_deref()),
            relayed: None,
        }
    }

    /// The request as its client sent it, if trusted proxies have relayed it.
    pub(crate) fn through<'b>(&self, relayed: Option<&'b Relayed>) -> Request<'b>
    where
        'a: 'b,
    {
        let Some(relayed) = relayed else {
            return *self;
        };
        Request {
            client: Some(relayed.client),
            port: relayed.port.or(self.port),
            relayed: Some(relayed),
            ..*self
        }
    }

    /// The address that the connection was accepted at, as it is configured.
    pub(crate) fn place(&self) -> Option<&'a ListenAddress> {
        accepted_place(self.accepted)
    }

    /// Whether the client speaks TLS: with the gateway, or with a trusted proxy.
    pub(crate) fn is_secure(&self) -> bool {
        match self.relayed.and_then(|relayed| relayed.is_tls) {
            Some(is_tls) => is_tls,
            None => self.tls.is_some(),
        }
    }

    /// The addresses of the client and of what it connected to.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        let socket = self.socket?;
        let peer = *socket.peer_addr()?.as_inet()?;
        let source = match self.client {
            // The port of a client that was named by a proxy is unknown.
            Some(client) if client != peer.ip().to_canonical() => SocketAddr::new(client, 0),
            Some(_) | None => peer,
        };
        Some(Addresses {
            source,
            destination: *socket.local_addr()?.as_inet()?,
        })
    }

    /// The host that the request is for, as it was sent; `None` if that is not valid. A request of
    /// HTTP/1.0 need not name one: it is for the host that the client has connected to.
    pub(crate) fn parse_authority<'b>(
        &'b self,
        buffer: &'b mut NameBuffer,
    ) -> Option<Authority<'b>> {
        let parsed = Authority::parse(self.authority, buffer);
        parsed.or_else(|| self.connected_authority())
    }

    fn connected_authority(&self) -> Option<Authority<'_>> {
        if self.version != "HTTP/1.0" || !self.authority.is_empty() {
            return None;
        }
        let info = self.tls.and_then(|tls| tls.extension.get::<TlsInfo>());
        let host = match info.and_then(|info| info.server_name.as_ref()) {
            Some(name) => Host::Name(name.as_str()),
            None => Host::Ip(self.socket?.local_addr()?.as_inet()?.ip()),
        };
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.port.filter(|port| *port != default);
        Some(Authority { host, port })
    }

    /// Whether the request came over HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.version == "HTTP/2.0"
    }

    /// The certificate that the client presented, if any.
    pub(crate) fn client_certificate(&self) -> Option<&'a ClientCertificate> {
        let info = self.tls?.extension.get::<TlsInfo>()?;
        info.client_certificate()
    }

    /// How the request arrived.
    pub(crate) fn channel(&self) -> Channel<'a> {
        match self.tls {
            Some(tls) => Channel::Tls(tls.extension.get::<TlsInfo>()),
            None => Channel::Plain,
        }
    }

    /// The value of a cookie, as it was sent; `None` if there is none or it is empty.
    pub(crate) fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        self.cookies(name).next()
    }

    /// The values of all cookies of this name that are not empty.
    pub(crate) fn cookies(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_cookie = |name: &[u8]| name.eq_ignore_ascii_case(b"cookie");
        let fields = self.fields.iter();
        let fields = fields.filter(move |(field, _)| is_cookie(field));
        let pairs = fields.flat_map(|(_, value)| value.split(|octet| *octet == b';'));
        pairs.filter_map(move |pair| {
            let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            let value = rest.strip_prefix(b"=")?;
            (!value.is_empty()).then_some(value)
        })
    }

    /// The target as `/path?query`, whichever form it was sent in.
    pub(crate) fn origin_form(&self) -> &'a [u8] {
        origin_form(self.target)
    }

    /// Whether the request may be repeated (RFC 9110, section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
    }

    /// Whether the request reads what its target names and changes nothing: GET or HEAD.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }
}

/// The authority that a request names, as it was sent.
///
/// `edge` has refused requests in which `:authority`, an absolute request target and `Host` are not
/// the same authority, and those with two `Host` fields. So any of them will do.
fn authority(head: &RequestHeader) -> &[u8] {
    match (head.uri.authority(), head.headers.get(HOST)) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (None, None) => b"",
    }
}

/// A request's target as `/path?query`, whichever form it was sent in.
pub(crate) fn origin_form(raw: &[u8]) -> &[u8] {
    if raw.first() == Some(&b'/') {
        return raw;
    }
    // The URI of a target in absolute form contains what follows the authority.
    match memchr::memmem::find(raw, b"://").and_then(|at| raw.get(at + 3..)) {
        Some(rest) => match rest.iter().position(|octet| matches!(octet, b'/' | b'?')) {
            Some(at) => rest
                .get(at..)
                .filter(|target| target.starts_with(b"/"))
                .unwrap_or(b"/"),
            None => b"/",
        },
        None => raw,
    }
}

/// Whether each octet of a target may appear there unescaped. If one may not, some servers accept
/// it and others refuse it.
pub(crate) fn is_well_formed(target: &[u8]) -> bool {
    let query = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at_checked(query).unwrap_or((target, &[]));
    let is_good = |byte: u8| byte > b' ' && !matches!(byte, 0x7f | b'#' | b'<' | b'>');
    path.iter().all(|&byte| is_good(byte) && byte != b'`')
        && query.iter().all(|&byte| is_good(byte) && byte != b'"')
        && (target.is_ascii() || str::from_utf8(target).is_ok())
}

#[cfg(test)]
mod tests {
    use http::header::{REFERER, USER_AGENT};

    use super::*;

    #[test]
    fn cookies_are_found_in_every_field() {
        let cookie = |name| {
            let fields = b"GET / HTTP/1.1\r\ncookie: a=1; idx=2;id=3=4\r\nCookie: b=5; e=\r\n\r\n";
            let request = Request {
                method: "GET",
                target: b"/",
                authority: b"a",
                version: "HTTP/1.1",
                fields: Fields::Lines(fields),
                client: None,
                port: None,
                tls: None,
                socket: None,
                accepted: None,
                relayed: None,
            };
            request.cookie(name).map(<[u8]>::to_vec)
        };
        assert_eq!(cookie("a"), Some(b"1".to_vec()));
        assert_eq!(cookie("id"), Some(b"3=4".to_vec()));
        assert_eq!(cookie("b"), Some(b"5".to_vec()));
        assert_eq!(cookie("e"), None);
        assert_eq!(cookie("i"), None);
    }

    #[test]
    fn fields_are_found_in_lines_as_in_a_map() {
        let lines =
            b"GET /referer: HTTP/1.1\r\nHost: a\r\nUSER-agent:  me \r\nX-Referer: no\r\n\r\n";
        let lines = Fields::Lines(lines);
        assert_eq!(lines.get(&USER_AGENT), b"me");
        assert_eq!(lines.get(&REFERER), b"");
        let map: HeaderMap = [(USER_AGENT, HeaderValue::from_static("me"))]
            .into_iter()
            .collect();
        let map = Fields::Map(&map);
        assert_eq!(map.get(&USER_AGENT), b"me");
        assert_eq!(map.get(&REFERER), b"");
    }
}
