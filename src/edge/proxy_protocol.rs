//! Reads the header of the PROXY protocol, versions 1 and 2, with which the connections of a
//! balancer begin. Both layouts are those of HAProxy's specification.
//!
//! A pure function of octets. It neither reads from a connection nor knows who may send a header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::proxy::Addresses;

/// The longest header of version 1, its line end included.
const LONGEST_LINE: usize = 107;

/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";

/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The part of version 2 that says how long the rest is.
const FIXED: usize = 16;

/// What the addresses of UNIX sockets take in version 2.
const UNIX: usize = 216;

/// A field of version 2 that has the checksum of the header.
const CHECKSUM: u8 = 0x03;

/// What the first octets of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The header has more octets.
    Incomplete,
    /// A whole header.
    Header {
        /// How many octets belong to it.
        len: usize,
        /// Whom it names; `None` if the balancer speaks for itself, or for a client without an
        /// address.
        addresses: Option<Addresses>,
    },
    Invalid(Fault),
}

/// Why octets are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They begin with something else.
    Missing,
    Malformed,
    /// The checksum is not that of the header.
    Checksum,
}

use Fault::{Checksum, Malformed, Missing};

/// Parses the header that `octets` begin with.
pub(super) fn parse(octets: &[u8]) -> Parsed {
    let result = if is_begun(octets, SIGNATURE) {
        parse_binary(octets)
    } else if is_begun(octets, WORD) {
        parse_line(octets)
    } else {
        Err(Missing)
    };
    match result {
        Ok(Some((len, addresses))) => Parsed::Header { len, addresses },
        Ok(None) => Parsed::Incomplete,
        Err(fault) => Parsed::Invalid(fault),
    }
}

/// A header's length and whom it names; `None` if octets are missing.
type Found = Result<Option<(usize, Option<Addresses>)>, Fault>;

/// Whether `octets` begin with `start`, as far as there are any.
fn is_begun(octets: &[u8], start: &[u8]) -> bool {
    octets.iter().zip(start).all(|(one, other)| one == other)
}

/// Parses version 1.
fn parse_line(octets: &[u8]) -> Found {
    let within = octets.get(..LONGEST_LINE).unwrap_or(octets);
    let Some(end) = memchr::memchr(b'\n', within) else {
        return match octets.len() < LONGEST_LINE {
            true => Ok(None),
            false => Err(Malformed),
        };
    };
    let line = within.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let text = line.and_then(|line| str::from_utf8(line.strip_prefix(WORD)?).ok());
    let mut words = text.ok_or(Malformed)?.split(' ');
    let addresses = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(line_addresses::<Ipv4Addr>(words).ok_or(Malformed)?),
        Some("TCP6") => Some(line_addresses::<Ipv6Addr>(words).ok_or(Malformed)?),
        _ => return Err(Malformed),
    };
    Ok(Some((end + 1, addresses)))
}

/// Two addresses and two ports, in that order and nothing else.
fn line_addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Option<Addresses>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || Some(words.next()?.parse::<A>().ok()?.into());
    let ips: [IpAddr; 2] = [address()?, address()?];
    let mut port = || {
        let digits = words.next()?;
        let is_plain = digits.bytes().all(|octet| octet.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        is_plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let ports = [port()?, port()?];
    words.next().is_none().then(|| of_pairs(ips, ports))
}

/// Parses version 2.
fn parse_binary(octets: &[u8]) -> Found {
    let Some((fixed, rest)) = octets.split_first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    // A wrong header is refused before the rest of it has arrived.
    let is_for_client = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed),
    };
    if is_for_client && !matches!(family, 0x00 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32) {
        return Err(Malformed);
    }
    let Some(content) = rest.get(..length) else {
        return Ok(None);
    };
    let len = FIXED + length;
    // A check of the balancer's own says nothing else, and whatever it says is to be ignored.
    if !is_for_client || family == 0x00 {
        return Ok(Some((len, None)));
    }
    let (addresses, fields) = match family >> 4 {
        1 => {
            let (addresses, fields) = content.split_first_chunk::<12>().ok_or(Malformed)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            let ips = [[a, b, c, d], [e, f, g, h]].map(IpAddr::from);
            (Some(of_pairs(ips, split_ports(ports))), fields)
        }
        2 => {
            let (source, rest) = content.split_first_chunk::<16>().ok_or(Malformed)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            let (ports, fields) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let ips = [*source, *destination].map(IpAddr::from);
            (Some(of_pairs(ips, split_ports(*ports))), fields)
        }
        _ => (None, content.get(UNIX..).ok_or(Malformed)?),
    };
    let header = octets.get(..len).unwrap_or_default();
    check_fields(header, len - fields.len())?;
    Ok(Some((len, addresses)))
}

fn split_ports([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [[a, b], [c, d]].map(u16::from_be_bytes)
}

/// The addresses of a source and a destination. Those of IPv4 in the form of IPv6 are IPv4.
fn of_pairs(ips: [IpAddr; 2], ports: [u16; 2]) -> Addresses {
    let [source, destination] = ips.map(|ip| ip.to_canonical());
    let [source_port, destination_port] = ports;
    Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }
}

/// Checks the fields of type, length and value that follow the addresses, from `at` to the end of
/// `header`, and the checksum if there is one.
fn check_fields(header: &[u8], mut at: usize) -> Result<(), Fault> {
    let mut checksum = None;
    while let Some([kind, length @ ..]) = header.get(at..).and_then(|rest| rest.first_chunk::<3>())
    {
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes(*length));
        let octets = header.get(value..end).ok_or(Malformed)?;
        if *kind == CHECKSUM {
            let sum: [u8; 4] = octets.try_into().map_err(|_| Malformed)?;
            if checksum.replace((value, u32::from_be_bytes(sum))).is_some() {
                return Err(Malformed);
            }
        }
        at = end;
    }
    if at != header.len() {
        return Err(Malformed);
    }
    match checksum {
        Some((at, sum)) if checksum_of(header, at) != sum => Err(Checksum),
        _ => Ok(()),
    }
}

/// The CRC32C of a header, with zeros for the four octets of the checksum at `at`.
fn checksum_of(header: &[u8], at: usize) -> u32 {
    let octets = header.iter().enumerate().map(|(index, &octet)| {
        let is_checksum = (at..at + 4).contains(&index);
        if is_checksum { 0 } else { octet }
    });
    !octets.fold(u32::MAX, |crc, octet| {
        (0..8).fold(crc ^ u32::from(octet), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests;
