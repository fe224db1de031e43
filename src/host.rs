//! Hosts, by name and by address: the one form in which Snigate compares, stores and looks them up.
//!
//! A [`HostName`] is lower-case, in A-labels (punycode), without a trailing dot and at most 253
//! octets long, whatever its origin: SNI, a `Host` field, a subject alternative name or the
//! configuration. Code that holds a `HostName` never checks the string again.

mod identifier;

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

pub use self::identifier::{Host, Identifier};

/// The maximum length of a host name in octets, without the trailing dot (RFC 1035, section 2.3.4).
pub const MAX_HOST_NAME: usize = 253;

/// The maximum length of a label in octets (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// A normalized DNS host name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// The normalized name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as text, shared with this one.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The name without its first label: `b.example` of `a.b.example`.
    ///
    /// `None` for a name of one label.
    pub fn parent(&self) -> Option<&str> {
        parent(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    /// Parses a name as a person writes it: any case, Unicode or punycode, with or without the
    /// trailing dot.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut buffer = NameBuffer::new();
        if let Some(name) = buffer.normalize(text.as_bytes()) {
            return Ok(Self(name.into()));
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() {
            return Err(HostNameError::Empty);
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(HostNameError::IpAddress);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| HostNameError::Idna)?;
        let bare = ascii.strip_suffix('.').unwrap_or(&ascii);
        if bare.len() > MAX_HOST_NAME {
            return Err(HostNameError::TooLong(bare.len()));
        }
        if let Some(label) = bare.split('.').find(|label| label.len() > MAX_LABEL) {
            return Err(HostNameError::LabelTooLong(label.to_owned()));
        }
        match buffer.normalize(ascii.as_bytes()) {
            Some(name) => Ok(Self(name.into())),
            None => Err(HostNameError::Character),
        }
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The hosts that a site or a certificate covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// Every name: the catch-all site.
    Any,
    /// This name only.
    Exact(HostName),
    /// This address only. Clients that connect to it name no host in TLS.
    Ip(IpAddr),
    /// `*.parent`: exactly one label before the parent (RFC 6125, section 6.4.3).
    Wildcard(HostName),
}

impl Pattern {
    /// Returns true if this pattern covers `host`, a normalized name.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.as_str() == host,
            Self::Ip(_) => false,
            Self::Wildcard(of) => parent(host) == Some(of.as_str()),
        }
    }

    /// The wildcard that covers this name; `None` unless this is a single name of more than one
    /// label.
    pub fn wildcard_over(&self) -> Option<Self> {
        match self {
            Self::Exact(name) => name.parent()?.parse().ok().map(Self::Wildcard),
            Self::Any | Self::Ip(_) | Self::Wildcard(_) => None,
        }
    }
}

impl FromStr for Pattern {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(of) = text.strip_prefix("*.") {
            return exact(of).map(Self::Wildcard);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(address.to_canonical()));
        }
        exact(text).map(Self::Exact)
    }
}

/// A name without any `*`.
fn exact(text: &str) -> Result<HostName, HostNameError> {
    if text.contains('*') {
        return Err(HostNameError::Wildcard);
    }
    text.parse()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => name.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Wildcard(of) => write!(f, "*.{of}"),
        }
    }
}

/// Why a text is not a host name.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum HostNameError {
    /// It has a character that host names do not have.
    #[error("has a character that is not allowed in a host name")]
    Character,
    /// Nothing is left of it.
    #[error("is empty")]
    Empty,
    /// It is not valid under IDNA (UTS 46).
    #[error("is not a valid internationalized name")]
    Idna,
    /// It is an IP address.
    #[error("is an IP address, not a host name")]
    IpAddress,
    /// One label is over 63 octets.
    #[error("has a label of more than 63 characters: {0}")]
    LabelTooLong(String),
    /// It is over 253 octets.
    #[error("is {0} characters long, and 253 is the maximum")]
    TooLong(usize),
    /// `*` is not alone in the first label.
    #[error("may have '*' only as its whole first label")]
    Wildcard,
}

/// The name without its first label; `None` for a name of one label.
pub fn parent(host: &str) -> Option<&str> {
    host.split_once('.').map(|(_, parent)| parent)
}

/// Room on the stack to normalize a name from the wire without allocating.
pub struct NameBuffer([u8; MAX_HOST_NAME]);

impl NameBuffer {
    /// An empty buffer.
    #[expect(
        clippy::new_without_default,
        reason = "a quarter of a kilobyte of stack is asked for by name"
    )]
    /// An empty buffer.
    pub const fn new() -> Self {
        Self([0; MAX_HOST_NAME])
    }

    /// Normalizes an ASCII name as it comes in SNI or `Host` (any case, perhaps with a trailing
    /// dot).
    ///
    /// `None` if the bytes are not a host name: empty, too long, an empty or too long label, an
    /// IPv4 address, or any octet but letters, digits, hyphen and underscore.
    pub fn normalize<'a>(&'a mut self, raw: &[u8]) -> Option<&'a str> {
        let raw = raw.strip_suffix(b".").unwrap_or(raw);
        if raw.is_empty() {
            return None;
        }
        let out = self.0.get_mut(..raw.len())?;
        let mut label = 0;
        let mut last_label_numeric = true;
        for (to, from) in out.iter_mut().zip(raw) {
            *to = match from {
                b'.' if label > 0 => {
                    label = 0;
                    last_label_numeric = true;
                    b'.'
                }
                b'0'..=b'9' => {
                    label += 1;
                    *from
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => {
                    label += 1;
                    last_label_numeric = false;
                    from.to_ascii_lowercase()
                }
                _ => return None,
            };
            if label > MAX_LABEL {
                return None;
            }
        }
        // A last label of only digits makes it an address, not a name (WHATWG URL, section 3.5).
        if label == 0 || last_label_numeric {
            return None;
        }
        std::str::from_utf8(out).ok()
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 subscriber gets.
pub fn client_network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &str) -> Option<String> {
        NameBuffer::new()
            .normalize(raw.as_bytes())
            .map(str::to_owned)
    }

    #[test]
    fn wire_names_are_lower_cased_and_lose_the_trailing_dot() {
        assert_eq!(
            normal("WWW.Example.COM.").as_deref(),
            Some("www.example.com")
        );
        assert_eq!(normal("localhost").as_deref(), Some("localhost"));
        assert_eq!(
            normal("_srv.a-b.example").as_deref(),
            Some("_srv.a-b.example")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for raw in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "127.0.0.1",
            "::1",
            "[::1]",
            "a b",
            "*.a",
            "a/b",
            "bücher.example",
            "1",
        ] {
            assert_eq!(normal(raw), None, "{raw:?}");
        }
        let label = "a".repeat(64);
        assert_eq!(normal(&format!("{label}.example")), None);
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(longest.len(), MAX_HOST_NAME);
        assert_eq!(normal(&longest).as_deref(), Some(&*longest));
        assert_eq!(normal(&format!("{longest}.")).as_deref(), Some(&*longest));
        assert_eq!(normal(&format!("c{longest}")), None);
    }

    #[test]
    fn people_may_write_unicode() {
        let name: HostName = "Bücher.Example.".parse().expect("a valid name");
        assert_eq!(name.as_str(), "xn--bcher-kva.example");
        assert_eq!("xn--bcher-kva.example".parse(), Ok(name));
        assert_eq!(
            "192.0.2.1".parse::<HostName>(),
            Err(HostNameError::IpAddress)
        );
        assert_eq!("".parse::<HostName>(), Err(HostNameError::Empty));
        // As full stops go, so does that of another script.
        assert_eq!("a\u{3002}".parse(), "a".parse::<HostName>());
        for text in ["a b.example", "a..", "a.\u{3002}", ".."] {
            let parsed = text.parse::<HostName>();
            assert_eq!(parsed, Err(HostNameError::Character), "{text:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wildcard: Pattern = "*.Example.com".parse().expect("a valid pattern");
        assert!(wildcard.covers("a.example.com"));
        assert!(!wildcard.covers("example.com"));
        assert!(!wildcard.covers("a.b.example.com"));
        assert!(
            "*".parse::<Pattern>()
                .expect("valid")
                .covers("anything.test")
        );
        for bad in ["a.*.com", "*a.com", "**.com", "*.*.com"] {
            assert_eq!(
                bad.parse::<Pattern>(),
                Err(HostNameError::Wildcard),
                "{bad}"
            );
        }
    }
}
