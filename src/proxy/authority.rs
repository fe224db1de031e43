//! Which host a request is for, and whether it may be requested on its connection.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::HeaderValue;

use crate::host::{Host, NameBuffer};
use crate::tls::TlsInfo;

/// The authority of a request: its host and, if it is named, its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) port: Option<u16>,
}

/// How a request arrived.
#[derive(Clone, Copy)]
pub(crate) enum Channel<'a> {
    Plain,
    /// `None` if nothing is known of the handshake: then no host is covered.
    Tls(Option<&'a TlsInfo>),
}

impl<'a> Authority<'a> {
    /// Reads `host [":" port]` (RFC 3986, section 3.2) without user information.
    ///
    /// `None` for anything else.
    pub(crate) fn parse(raw: &[u8], buffer: &'a mut NameBuffer) -> Option<Self> {
        if let Some(bracketed) = raw.strip_prefix(b"[") {
            let end = memchr::memchr(b']', bracketed)?;
            let (address, rest) = bracketed.split_at_checked(end)?;
            let address: Ipv6Addr = std::str::from_utf8(address).ok()?.parse().ok()?;
            return Some(Self {
                host: Host::Ip(address.into()),
                port: port(rest.strip_prefix(b"]")?)?,
            });
        }
        let end = memchr::memchr(b':', raw).unwrap_or(raw.len());
        let (host, rest) = raw.split_at_checked(end)?;
        let port = port(rest)?;
        let host = match buffer.normalize(host) {
            Some(name) => Host::Name(name),
            None => Host::Ip(IpAddr::V4(std::str::from_utf8(host).ok()?.parse().ok()?)),
        };
        Some(Self { host, port })
    }

    /// This authority in normal form, as the value of a `Host` field. `raw` is what it was parsed
    /// from: a name that is normal already is not formatted anew.
    pub(crate) fn to_field(self, raw: &[u8]) -> Option<HeaderValue> {
        match self {
            Self {
                host: Host::Name(name),
                port: None,
            } if name.as_bytes() == raw => HeaderValue::from_bytes(raw).ok(),
            _ => HeaderValue::try_from(self.to_string()).ok(),
        }
    }
}

/// Reads an empty text, or a colon with a port that may be empty. `None` for anything else.
fn port(rest: &[u8]) -> Option<Option<u16>> {
    match rest.strip_prefix(b":") {
        None => rest.is_empty().then_some(None),
        Some(b"") => Some(None),
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().ok().map(Some)
        }
        Some(_) => None,
    }
}

impl std::fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.host.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Channel<'_> {
    /// What the handshake left for the first request of its connection. So a client that connects
    /// while the configuration changes sees the certificate and the response of one state.
    pub(crate) fn attachment<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        match self {
            Self::Tls(Some(info)) => info.take_attachment()?.downcast().ok(),
            Self::Tls(None) | Self::Plain => None,
        }
    }

    /// The host that the client has named in its handshake.
    pub(crate) fn server_name(&self) -> Option<Host<'_>> {
        match self {
            Self::Tls(Some(info)) => info
                .server_name
                .as_ref()
                .map(|name| Host::Name(name.as_str())),
            Self::Tls(None) | Self::Plain => None,
        }
    }

    /// Whether `host` may be served on this connection.
    ///
    /// Over TLS the certificate that was presented must be valid for `host`, and it must be one for
    /// the name that the client requested (RFC 9110, section 7.4).
    pub(crate) fn covers(&self, host: Host<'_>) -> bool {
        match (self, host) {
            (Self::Plain, _) => true,
            (Self::Tls(None), _) => false,
            (Self::Tls(Some(info)), _) if info.fell_back => false,
            (Self::Tls(Some(info)), Host::Name(name)) => {
                info.server_name
                    .as_ref()
                    .is_some_and(|asked| asked.as_str() == name)
                    || info.covers(name)
            }
            (Self::Tls(Some(info)), Host::Ip(address)) => info.covers_ip(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Option<(String, Option<u16>)> {
        let mut buffer = NameBuffer::new();
        let authority = Authority::parse(raw.as_bytes(), &mut buffer)?;
        Some((authority.host.to_string(), authority.port))
    }

    #[test]
    fn authorities_are_read_in_every_form() {
        let host = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(parse("Example.COM."), host("example.com", None));
        assert_eq!(parse("example.com:8443"), host("example.com", Some(8443)));
        assert_eq!(parse("example.com:"), host("example.com", None));
        assert_eq!(parse("192.0.2.1:80"), host("192.0.2.1", Some(80)));
        assert_eq!(parse("[2001:DB8::1]:443"), host("[2001:db8::1]", Some(443)));
        assert_eq!(parse("[::1]"), host("[::1]", None));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for raw in [
            "",
            ":80",
            "a b",
            "a@b",
            "a:b",
            "a:80:80",
            "a:99999",
            "a:+1",
            "[::1",
            "[::1]x",
            "::1",
            "[192.0.2.1]",
            "a/b",
            "a?b",
            "a,b",
            "a..b",
            "1.2.3",
            "127.1",
            "[::1%eth0]",
        ] {
            assert_eq!(parse(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn a_connection_answers_for_the_name_it_was_opened_for() {
        let info = |server_name: &str, fell_back| {
            TlsInfo::new(Some(server_name.parse().expect("a name")), None, fell_back)
        };
        let asked = info("a.example", false);
        assert!(Channel::Tls(Some(&asked)).covers(Host::Name("a.example")));
        assert!(!Channel::Tls(Some(&asked)).covers(Host::Name("b.example")));
        assert!(!Channel::Tls(Some(&asked)).covers(Host::Ip(Ipv6Addr::LOCALHOST.into())));
        let fallen = info("a.example", true);
        assert!(!Channel::Tls(Some(&fallen)).covers(Host::Name("a.example")));
        assert!(!Channel::Tls(None).covers(Host::Name("a.example")));
        assert!(Channel::Plain.covers(Host::Name("a.example")));
    }
}
