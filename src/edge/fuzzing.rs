//! Targets for fuzzing: what the first octets of a connection say.

use std::net::SocketAddr;

use super::proxy_protocol::{Parsed, parse};
use crate::proxy::Addresses;

pub(crate) use super::http1::fuzzing::request_head;

/// The header of the PROXY protocol.
///
/// # Panics
/// If it depends on how the octets arrive, if it takes more of them than it has, or if addresses
/// that are written anew are others.
pub(crate) fn proxy_protocol(octets: &[u8]) {
    let whole = parse(octets);
    for end in 0..octets.len().min(1024) {
        let begin = octets.get(..end).unwrap_or_default();
        let expected = match whole {
            Parsed::Header { len, .. } if end < len => Parsed::Incomplete,
            Parsed::Invalid(_) if parse(begin) == Parsed::Incomplete => continue,
            whole => whole,
        };
        assert_eq!(parse(begin), expected, "the first {end} octets");
    }
    let Parsed::Header { len, addresses } = whole else {
        return;
    };
    assert!(len <= octets.len(), "it takes what is not there");
    let header = octets.get(..len).unwrap_or_default();
    assert_eq!(parse(header), whole, "what follows the header matters");
    let Some(addresses) = addresses else {
        return;
    };
    if header.starts_with(b"PROXY TCP4 ") {
        // There is only one way to write it.
        assert_eq!(header, line(addresses).as_bytes());
    }
    for header in [line(addresses).into_bytes(), binary(addresses)] {
        let len = header.len();
        let addresses = Some(addresses);
        assert_eq!(parse(&header), Parsed::Header { len, addresses });
    }
}

/// Version 1, written as simply as possible.
fn line(addresses: Addresses) -> String {
    let [source, destination] = of_one_family(addresses);
    let family = if source.is_ipv4() { 4 } else { 6 };
    let (source_ip, destination_ip) = (source.ip(), destination.ip());
    let (from, to) = (source.port(), destination.port());
    format!("PROXY TCP{family} {source_ip} {destination_ip} {from} {to}\r\n")
}

/// Version 2, with a field that nobody knows.
fn binary(addresses: Addresses) -> Vec<u8> {
    let both = of_one_family(addresses);
    let mut content = Vec::new();
    for address in both {
        match address {
            SocketAddr::V4(address) => content.extend(address.ip().octets()),
            SocketAddr::V6(address) => content.extend(address.ip().octets()),
        }
    }
    for address in both {
        content.extend(address.port().to_be_bytes());
    }
    content.extend([0xea, 0, 1, 7]);
    let family = if content.len() == 16 { 0x11 } else { 0x21 };
    let mut octets = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    octets.extend([family, 0, u8::try_from(content.len()).unwrap_or(0)]);
    octets.extend(content);
    octets
}

/// Source and destination. If only one is of IPv4, both are in the form of IPv6.
fn of_one_family(addresses: Addresses) -> [SocketAddr; 2] {
    let both = [addresses.source, addresses.destination];
    if both.iter().all(SocketAddr::is_ipv4) {
        return both;
    }
    both.map(|address| match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    })
}
