//! Where a gateway listens.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::Arc;

use super::NetworkSet;
use crate::printable::Printable as _;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Ip(SocketAddr),
    /// All addresses of one family that packets reach through an interface.
    Interface {
        interface: Arc<str>,
        /// The unspecified one of the family.
        address: SocketAddr,
    },
    /// An address that is one of many machines' unless its interface is named.
    LinkLocal {
        interface: Arc<str>,
        address: SocketAddrV6,
    },
    Unix {
        path: Arc<Path>,
        /// The permissions of its file.
        mode: u32,
    },
    /// The sockets of this name that systemd passes.
    Systemd(Arc<str>),
}

impl ListenAddress {
    /// All addresses at `port`.
    pub fn all(port: u16) -> [Self; 2] {
        unspecified(port).map(Self::Ip)
    }

    /// All addresses of `interface` at `port`.
    pub fn all_of(interface: &Arc<str>, port: u16) -> [Self; 2] {
        unspecified(port).map(|address| Self::Interface {
            interface: Arc::clone(interface),
            address,
        })
    }

    /// The IP address and port, if there are any.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) | Self::Interface { address, .. } => Some(*address),
            Self::LinkLocal { address, .. } => Some((*address).into()),
            Self::Unix { .. } | Self::Systemd(_) => None,
        }
    }

    /// The port that clients are sent to that should use TLS: 443 if it is among these addresses, else
    /// that of the first one. Clients of Unix sockets, and of sockets of systemd, are taken to come by
    /// the usual port.
    pub fn https_port<'a>(addresses: impl IntoIterator<Item = &'a Self>) -> u16 {
        const USUAL: u16 = 443;
        let addresses = addresses.into_iter().filter_map(Self::ip);
        let mut first = None;
        for port in addresses.map(|address| address.port()) {
            if port == USUAL {
                return port;
            }
            first = first.or(Some(port));
        }
        first.unwrap_or(USUAL)
    }

    /// The interface that it is limited to.
    pub fn interface(&self) -> Option<&Arc<str>> {
        match self {
            Self::Interface { interface, .. } | Self::LinkLocal { interface, .. } => {
                Some(interface)
            }
            Self::Ip(_) | Self::Unix { .. } | Self::Systemd(_) => None,
        }
    }

    /// The same without permissions: equal for equal sockets.
    pub fn place(&self) -> Self {
        match self {
            Self::Unix { path, .. } => Self::Unix {
                path: Arc::clone(path),
                mode: 0,
            },
            other => other.clone(),
        }
    }

    /// Whether both are the same socket, whatever its permissions.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            _ => self == other,
        }
    }

    /// Whether the two cannot be listened on at the same time. The system chooses the port for port
    /// 0.
    pub fn collides_with(&self, other: &Self) -> bool {
        let (Some(one), Some(two)) = (self.ip(), other.ip()) else {
            return self.is_same_place(other);
        };
        let is_apart = match (self.interface(), other.interface()) {
            (Some(one), Some(two)) => one != two,
            _ => false,
        };
        one.port() == two.port()
            && one.port() != 0
            && one.is_ipv4() == two.is_ipv4()
            && !is_apart
            && (one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified())
    }
}

fn unspecified(port: u16) -> [SocketAddr; 2] {
    [
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ]
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Interface { interface, address } => {
                let port = address.port();
                match address {
                    SocketAddr::V4(address) => write!(f, "{}%{interface}:{port}", address.ip()),
                    SocketAddr::V6(address) => write!(f, "[{}]%{interface}:{port}", address.ip()),
                }
            }
            Self::LinkLocal { interface, address } => {
                write!(f, "[{}%{interface}]:{}", address.ip(), address.port())
            }
            Self::Unix { path, .. } => write!(f, "unix:{}", path.printable()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// Who begins connections with a header of the PROXY protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancers {
    pub networks: NetworkSet,
    /// Whoever connects to a Unix socket.
    pub unix: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_sent_to_the_usual_port_if_it_is_served() {
        let port = |ports: &[u16]| {
            let addresses: Vec<_> = ports
                .iter()
                .map(|port| ListenAddress::Ip((Ipv4Addr::LOCALHOST, *port).into()))
                .collect();
            ListenAddress::https_port(&addresses)
        };
        assert_eq!(port(&[8883, 443]), 443);
        assert_eq!(port(&[8443, 8883]), 8443);
        assert_eq!(port(&[]), 443);
        let named = [ListenAddress::Systemd("https".into())];
        assert_eq!(ListenAddress::https_port(&named), 443);
    }

    #[test]
    fn addresses_collide_if_one_contains_the_other() {
        let ip = |text: &str| ListenAddress::Ip(text.parse().expect("an address"));
        let [v4, v6] = ListenAddress::all(443);
        let [eth0_v4, eth0_v6] = ListenAddress::all_of(&"eth0".into(), 443);
        let [eth1_v4, _] = ListenAddress::all_of(&"eth1".into(), 443);
        let link = |interface: &str| ListenAddress::LinkLocal {
            interface: interface.into(),
            address: "[fe80::1]:443".parse().expect("an address"),
        };
        for (one, other, collide) in [
            (&ip("192.0.2.1:443"), &ip("192.0.2.1:443"), true),
            (&ip("192.0.2.1:443"), &ip("192.0.2.2:443"), false),
            (&ip("192.0.2.1:443"), &v4, true),
            (&ip("192.0.2.1:444"), &v4, false),
            (&v4, &v6, false),
            (&eth0_v4, &v4, true),
            (&eth0_v4, &eth1_v4, false),
            (&eth0_v4, &ip("192.0.2.1:443"), true),
            (&eth0_v6, &link("eth0"), true),
            (&eth0_v6, &link("eth1"), false),
            (&link("eth0"), &link("eth1"), false),
            (&ip("127.0.0.1:0"), &ip("127.0.0.1:0"), false),
        ] {
            assert_eq!(one.collides_with(other), collide, "{one} {other}");
            assert_eq!(other.collides_with(one), collide, "{one} {other}");
        }
        let unix = |mode| ListenAddress::Unix {
            path: Path::new("/run/x").into(),
            mode,
        };
        assert!(unix(0o660).collides_with(&unix(0o666)));
    }
}
