//! The system's resolvers (resolv.conf(5)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::dns::DnsError;
use crate::dns::exchange::PORT;

const FILE: &str = "/etc/resolv.conf";

/// As many as the system itself uses (`MAXNS`).
const MOST: usize = 3;

/// The resolvers as configured now: a machine may move to another network.
pub(super) async fn of_the_system() -> Result<Vec<SocketAddr>, DnsError> {
    let mut resolvers = parse(&read_file().await?);
    if resolvers.is_empty() {
        resolvers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    Ok(resolvers)
}

/// What the system's file says; nothing if there is none.
pub(in crate::dns) async fn read_file() -> Result<String, DnsError> {
    match tokio::fs::read_to_string(FILE).await {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(DnsError::Unreachable(format!(
            "cannot read the system's resolvers: {FILE}: {error}"
        ))),
    }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|word| *word == "nameserver")?;
            address(words.next()?)
        })
        .take(MOST)
        .collect()
}

fn address(text: &str) -> Option<SocketAddr> {
    // A link-local address comes with its interface: `fe80::1%eth0`.
    if let Some((address, interface)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = match interface.parse() {
            Ok(number) => number,
            Err(_) => nix::net::if_::if_nametoindex(interface).ok()?,
        };
        return Some(SocketAddrV6::new(address, PORT, 0, scope).into());
    }
    let address: IpAddr = text.parse().ok()?;
    Some((address, PORT).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_resolvers_are_read() {
        let text = "# nameserver 192.0.2.9\nsearch example.test\nnameserver 192.0.2.1 # main\n\
                    nameserver\nnameserver name\n  nameserver 2001:db8::1\nnameserver fe80::1%7\n\
                    nameserver 192.0.2.4\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"];
        assert_eq!(
            parse(text),
            expected.map(|text| text.parse().expect("an address"))
        );
        assert_eq!(
            address("fe80::1%lo").map(|address| address.to_string()),
            Some("[fe80::1%1]:53".to_owned())
        );
    }
}
