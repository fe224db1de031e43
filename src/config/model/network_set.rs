//! Sets of networks that are asked often.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network::Network;

/// A set of networks, whose look-up takes the logarithm of their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    /// First and last addresses, in order, without overlaps.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl NetworkSet {
    /// Whether an address belongs to one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => covers(&self.v4, address.to_bits()),
            IpAddr::V6(address) => covers(&self.v6, address.to_bits()),
        }
    }

    /// Whether there is no network.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl NetworkSet {
    /// The first and the last address of each range, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let v4 = self.v4.iter().map(|&(first, last)| {
            let address = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
            (address(first), address(last))
        });
        let v6 = self.v6.iter().map(|&(first, last)| {
            let address = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
            (address(first), address(last))
        });
        v4.chain(v6)
    }
}

impl FromIterator<Network> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.range() {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits())),
                _ => {}
            }
        }
        Self {
            v4: merge(v4),
            v6: merge(v6),
        }
    }
}

fn covers<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    let range = after.checked_sub(1).and_then(|at| ranges.get(at));
    range.is_some_and(|&(_, last)| address <= last)
}

/// Sorts ranges and merges those that overlap.
fn merge<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, before)) if first <= *before => *before = last.max(*before),
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(networks: &[&str]) -> NetworkSet {
        let networks = networks.iter().map(|text| text.parse::<Network>());
        networks
            .map(|network| network.expect("a network"))
            .collect()
    }

    #[test]
    fn a_set_contains_what_one_of_its_networks_contains() {
        let all = set(&[
            "192.0.2.128/25",
            "10.1.0.0/16",
            "10.0.0.0/8",
            "10.0.0.0/8",
            "203.0.113.7",
            "255.255.255.255",
            "2001:db8::/32",
            "::1",
            "::ffff:198.51.100.0/120",
        ]);
        for (address, contains) in [
            ("10.0.0.0", true),
            ("10.1.2.3", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("192.0.2.127", false),
            ("192.0.2.128", true),
            ("203.0.113.6", false),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("255.255.255.255", true),
            ("::ffff:10.0.0.1", true),
            ("198.51.100.9", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::", false),
            ("::1", true),
            ("::2", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(all.contains(address), contains, "{address}");
        }
    }

    #[test]
    fn everything_and_nothing() {
        let any = "203.0.113.7".parse().expect("an address");
        assert!(!set(&[]).contains(any));
        assert!(set(&[]).is_empty());
        assert!(set(&["0.0.0.0/0"]).contains(any));
        assert!(!set(&["::/0"]).contains(any));
        assert!(set(&["::/0"]).contains("ffff::".parse().expect("an address")));
    }
}
