//! The header of the PROXY protocol, versions 1 and 2, with which a connection to a server begins.
//!
//! It says who the client is. Its two layouts are those of HAProxy's specification. It never has
//! optional fields.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::model::ProxyProtocolVersion;

/// The signature of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and whether the connection is for a client or the gateway's own.
const FOR_CLIENT: u8 = 0x21;
const LOCAL: u8 = 0x20;

/// Streams over IPv4 and IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;

/// The addresses of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The client.
    pub(crate) source: SocketAddr,
    /// What the client connected to.
    pub(crate) destination: SocketAddr,
}

/// The header of a connection for a client, or, without addresses, of the gateway's own, such as a
/// health check.
pub(super) fn encode(version: ProxyProtocolVersion, addresses: Option<Addresses>) -> Vec<u8> {
    match version {
        ProxyProtocolVersion::V1 => encode_text(addresses).into_bytes(),
        ProxyProtocolVersion::V2 => encode_binary(addresses),
    }
}

/// Two addresses of one family, where both are of it.
enum Pair {
    V4([std::net::SocketAddrV4; 2]),
    V6([std::net::SocketAddrV6; 2]),
    Mixed([SocketAddr; 2]),
}

impl Pair {
    fn of(addresses: Addresses) -> Self {
        // A listener for both families sees addresses of IPv4 as addresses of IPv6.
        let canonical =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (source, destination) = (addresses.source, addresses.destination);
        match [source, destination].map(canonical) {
            [SocketAddr::V4(source), SocketAddr::V4(destination)] => {
                Self::V4([source, destination])
            }
            [SocketAddr::V6(source), SocketAddr::V6(destination)] => {
                Self::V6([source, destination])
            }
            mixed => Self::Mixed(mixed),
        }
    }
}

fn encode_text(addresses: Option<Addresses>) -> String {
    match addresses.map(Pair::of) {
        Some(Pair::V4([source, destination])) => format!(
            "PROXY TCP4 {} {} {} {}\r\n",
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
        Some(Pair::V6([source, destination])) => format!(
            "PROXY TCP6 {} {} {} {}\r\n",
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
        // One line cannot name addresses of two families.
        Some(Pair::Mixed(_)) | None => "PROXY UNKNOWN\r\n".to_owned(),
    }
}

fn encode_binary(addresses: Option<Addresses>) -> Vec<u8> {
    let mut header = Vec::with_capacity(52);
    header.extend_from_slice(&SIGNATURE);
    let (family, ips, ports) = match addresses.map(Pair::of) {
        None => {
            header.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]);
            return header;
        }
        Some(Pair::V4([source, destination])) => (
            TCP4,
            [*source.ip(), *destination.ip()]
                .map(|ip| ip.octets())
                .concat(),
            [source.port(), destination.port()],
        ),
        Some(Pair::V6([source, destination])) => (
            TCP6,
            [*source.ip(), *destination.ip()]
                .map(|ip| ip.octets())
                .concat(),
            [source.port(), destination.port()],
        ),
        Some(Pair::Mixed(addresses)) => (
            TCP6,
            addresses.map(|one| mapped(one.ip()).octets()).concat(),
            addresses.map(|one| one.port()),
        ),
    };
    let ports = ports.map(u16::to_be_bytes).concat();
    let length = u16::try_from(ips.len() + ports.len()).unwrap_or(0);
    header.extend_from_slice(&[FOR_CLIENT, family]);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&ips);
    header.extend_from_slice(&ports);
    header
}

/// An address as one of IPv6.
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProxyProtocolVersion::{V1, V2};

    fn addresses(source: &str, destination: &str) -> Option<Addresses> {
        Some(Addresses {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        })
    }

    fn text(addresses: Option<Addresses>) -> String {
        String::from_utf8(encode(V1, addresses)).expect("text")
    }

    /// What follows the signature of version 2.
    fn binary(addresses: Option<Addresses>) -> Vec<u8> {
        let header = encode(V2, addresses);
        let (signature, rest) = header.split_at(12);
        assert_eq!(
            signature,
            [
                0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a
            ]
        );
        rest.to_vec()
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        assert_eq!(
            text(addresses("192.0.2.1:56324", "198.51.100.7:443")),
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
        );
        assert_eq!(
            text(addresses("[2001:db8::1]:1", "[2001:db8::2]:65535")),
            "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
        );
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        // The specification's bound, without the terminating zero.
        assert!(text(addresses(longest, longest)).len() <= 107);
    }

    #[test]
    fn version_2_is_binary() {
        assert_eq!(
            binary(addresses("192.0.2.1:56324", "198.51.100.7:443")),
            [
                0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb
            ]
        );
        let six = binary(addresses("[2001:db8::1]:1", "[2001:db8::2]:258"));
        assert_eq!(six[..4], [0x21, 0x21, 0, 36]);
        assert_eq!(six[4..8], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!((six[19], six[35]), (1, 2));
        assert_eq!(six[36..], [0, 1, 1, 2]);
    }

    #[test]
    fn ipv4_in_the_form_of_ipv6_is_ipv4() {
        let seen = addresses("[::ffff:192.0.2.1]:5", "[::ffff:198.51.100.7]:443");
        let plain = addresses("192.0.2.1:5", "198.51.100.7:443");
        for version in [V1, V2] {
            assert_eq!(encode(version, seen), encode(version, plain));
        }
    }

    #[test]
    fn two_families_are_unknown_in_version_1_and_mapped_in_version_2() {
        let mixed = addresses("192.0.2.1:5", "[2001:db8::2]:443");
        assert_eq!(text(mixed), "PROXY UNKNOWN\r\n");
        let mapped = binary(mixed);
        assert_eq!(mapped[..4], [0x21, 0x21, 0, 36]);
        assert_eq!(
            mapped[4..20],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]
        );
    }

    #[test]
    fn the_gateways_own_connections_name_nobody() {
        assert_eq!(text(None), "PROXY UNKNOWN\r\n");
        assert_eq!(binary(None), [0x20, 0x00, 0, 0]);
    }
}
