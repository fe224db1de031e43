//! Networks of clients.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network: an address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("it is not a network")]
    Malformed,
    #[error("it has bits beyond its length")]
    HostBits,
}

impl Network {
    /// Whether an address belongs to this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other) = (bits(self.first), bits(address.to_canonical()));
        let rest = own.1.saturating_sub(u32::from(self.length));
        own.1 == other.1
            && own.0.checked_shr(rest).unwrap_or(0) == other.0.checked_shr(rest).unwrap_or(0)
    }

    /// Whether every address of a family belongs to this network.
    pub fn is_everything(&self) -> bool {
        self.length == 0
    }

    /// The first and the last address.
    pub(super) fn range(&self) -> (IpAddr, IpAddr) {
        let (first, width) = bits(self.first);
        let rest = width.saturating_sub(u32::from(self.length));
        let last = first | !u128::MAX.checked_shl(rest).unwrap_or(0);
        let last = match (self.first, u32::try_from(last)) {
            (IpAddr::V4(_), Ok(last)) => IpAddr::V4(last.into()),
            _ => IpAddr::V6(last.into()),
        };
        (self.first, last)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `ADDRESS/LENGTH`, or an address alone. Networks of IPv4 in the form of IPv6 are IPv4, since
    /// that is how addresses are compared.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let first = address.parse().map_err(|_| NetworkError::Malformed)?;
        let (bits, width) = bits(first);
        let length = match length {
            Some(length) => length.parse().map_err(|_| NetworkError::Malformed)?,
            None => width,
        };
        let host_width = width.checked_sub(length).ok_or(NetworkError::Malformed)?;
        let host_mask = !u128::MAX.checked_shl(host_width).unwrap_or(0);
        if bits & host_mask != 0 {
            return Err(NetworkError::HostBits);
        }
        // The first 96 bits are the same for all of them.
        let (first, length) = match (first.to_canonical(), length.checked_sub(96)) {
            (v4 @ IpAddr::V4(_), Some(length)) if first.is_ipv6() => (v4, length),
            _ => (first, length),
        };
        Ok(Self {
            first,
            length: u8::try_from(length).unwrap_or(u8::MAX),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

/// The bits of an address, and how many there are.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        for good in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.1/32",
            "192.0.2.1",
            "2001:db8::/32",
            "::/0",
        ] {
            assert!(good.parse::<Network>().is_ok(), "{good}");
        }
        for odd in ["10.0.0.1/8", "2001:db8::1/32", "192.0.2.1/0"] {
            assert_eq!(odd.parse::<Network>(), Err(NetworkError::HostBits), "{odd}");
        }
        for bad in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0/8",
            "10.0.0.0/-1",
            "lb.example",
        ] {
            assert_eq!(
                bad.parse::<Network>(),
                Err(NetworkError::Malformed),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_network_contains_the_addresses_that_share_its_bits() {
        for (network, address, contains) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "11.1.1.1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::ffff:0.0.0.0/96", "11.1.1.1", true),
            ("0.0.0.0/0", "203.0.113.7", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "::1", true),
            ("::1", "::1", true),
        ] {
            let network: Network = network.parse().expect("a network");
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(network.contains(address), contains, "{network} {address}");
        }
    }
}
