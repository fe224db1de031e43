//! What a CA validates and clients ask for: a name, or an IP address (RFC 8738).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{HostName, HostNameError, Pattern};

/// A host name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identifier {
    /// A host name.
    Dns(HostName),
    /// An IP address.
    Ip(IpAddr),
}

/// The same as it comes with a request, without a copy: the name is normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// An IP address.
    Ip(IpAddr),
    /// A name in normal form.
    Name(&'a str),
}

impl Identifier {
    /// The host name; `None` if it is an address.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Dns(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// Its name in the DNS: for an address the name of its reverse mapping, by which a CA asks for
    /// it over TLS (RFC 8738, section 6).
    pub fn dns_name(&self) -> HostName {
        match self {
            Self::Dns(name) => name.clone(),
            Self::Ip(IpAddr::V4(address)) => reverse_v4(*address),
            Self::Ip(IpAddr::V6(address)) => reverse_v6(*address),
        }
    }

    /// Returns true if `host` is the same.
    pub fn is(&self, host: Host<'_>) -> bool {
        match (self, host) {
            (Self::Dns(name), Host::Name(asked)) => name.as_str() == asked,
            (Self::Ip(address), Host::Ip(asked)) => *address == asked.to_canonical(),
            (Self::Dns(_), Host::Ip(_)) | (Self::Ip(_), Host::Name(_)) => false,
        }
    }
}

/// `7.2.0.192.in-addr.arpa` of `192.0.2.7` (RFC 1035, section 3.5).
fn reverse_v4(address: Ipv4Addr) -> HostName {
    let [a, b, c, d] = address.octets();
    HostName(format!("{d}.{c}.{b}.{a}.in-addr.arpa").into())
}

/// A label for each half of an octet, the last first (RFC 3596, section 2.5).
fn reverse_v6(address: Ipv6Addr) -> HostName {
    let mut name = String::with_capacity(72);
    for octet in address.octets().iter().rev() {
        name.push_str(&format!("{:x}.{:x}.", octet & 15, octet >> 4));
    }
    name.push_str("ip6.arpa");
    HostName(name.into())
}

impl FromStr for Identifier {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Ip(address.to_canonical())),
            Err(_) => text.parse().map(Self::Dns),
        }
    }
}

impl From<HostName> for Identifier {
    fn from(name: HostName) -> Self {
        Self::Dns(name)
    }
}

impl From<Identifier> for Pattern {
    fn from(identifier: Identifier) -> Self {
        match identifier {
            Identifier::Dns(name) => Self::Exact(name),
            Identifier::Ip(address) => Self::Ip(address),
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(f),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// As in a request: an IPv6 address in brackets.
impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(text: &str) -> Identifier {
        text.parse().expect("a name or an address")
    }

    #[test]
    fn addresses_have_a_name_in_the_dns() {
        let name = |text| identifier(text).dns_name().to_string();
        assert_eq!(name("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        // The example of RFC 3596.
        assert_eq!(
            name("4321:0:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"
        );
        assert_eq!(name("A.example."), "a.example");
        for text in ["192.0.2.7", "2001:db8::1"] {
            let name = name(text);
            assert_eq!(name.parse::<HostName>().expect("a name").as_str(), name);
        }
    }

    #[test]
    fn addresses_are_told_from_names() {
        let v6 = identifier("2001:DB8:0::1");
        assert_eq!(v6.to_string(), "2001:db8::1");
        assert!(v6.name().is_none());
        assert!(v6.is(Host::Ip("2001:db8::1".parse().expect("an address"))));
        // The same address, however it is written.
        let v4 = identifier("::ffff:192.0.2.7");
        assert_eq!(v4, identifier("192.0.2.7"));
        assert!(v4.is(Host::Ip("::ffff:192.0.2.7".parse().expect("an address"))));
        assert!(!v4.is(Host::Name("192.0.2.7")));
        assert!(identifier("a.example").is(Host::Name("a.example")));
        assert!("192.0.2.7.8".parse::<Identifier>().is_err());
    }
}
