//! Listening sockets: how an address is bound, and why it cannot be.
//!
//! Who accepts from them is decided in `listeners`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

/// How many connections the kernel queues until they are accepted.
pub(super) const BACKLOG: i32 = 4096;

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    Http,
    Https,
}

impl ListenerKind {
    /// The value of the metrics' `listener` label, and of the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An address that could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {cause}{}", hint(.cause))]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub cause: io::Error,
}

impl BindError {
    /// Whether the IPv6 wildcard address was to be bound on a machine without IPv6.
    pub(super) fn lacks_ipv6(&self) -> bool {
        self.address.is_ipv6() && self.address.ip().is_unspecified() && is_of_family(&self.cause)
    }
}

/// Whether the machine lacks the address family, or any address of it.
fn is_of_family(cause: &io::Error) -> bool {
    matches!(
        cause.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn hint(cause: &io::Error) -> &'static str {
    if cause.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        return "; this machine has no IPv6, give an IPv4 address such as 0.0.0.0:443";
    }
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there, stop it or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
        }
        _ => "",
    }
}

/// A bound address, open for as long as this lives.
#[derive(Debug)]
pub(super) struct Bound {
    socket: TcpListener,
    /// As it is configured.
    wanted: SocketAddr,
    /// With the port that the kernel chose if 0 was requested.
    address: SocketAddr,
}

impl Bound {
    /// Binds `wanted`. An IPv6 address accepts IPv6 only, so that `0.0.0.0` and `[::]` can be bound
    /// side by side.
    ///
    /// `rivals` are our own sockets that will be closed once this one is in use: an address of one
    /// interface can replace that of all, and the reverse.
    pub(super) fn bind(wanted: SocketAddr, rivals: &[Arc<Self>]) -> Result<Self, BindError> {
        let bound = match Self::try_bind(wanted, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let mut rivals = rivals.iter().filter(|rival| rival.is_rival_of(wanted));
                match rivals.next() {
                    Some(first) => Self::bind_beside(wanted, rivals.chain([first]), error),
                    None => Err(error),
                }
            }
            bound => bound,
        };
        bound.map_err(|cause| BindError {
            address: wanted,
            cause,
        })
    }

    fn try_bind(wanted: SocketAddr, beside: bool) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(wanted),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        if wanted.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        if beside {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&wanted.into())?;
        socket.listen(BACKLOG)?;
        if beside {
            socket.set_reuse_port(false)?;
        }
        // Accepted sockets inherit it. Without it a connection is slower, not broken.
        _ = socket.set_tcp_nodelay(true);
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            wanted,
            address,
        })
    }

    /// Binds an address that sockets of ours still occupy. Nobody else can take part: the kernel
    /// demands the same user of all, and that all say so at the time.
    fn bind_beside<'a>(
        wanted: SocketAddr,
        rivals: impl Iterator<Item = &'a Arc<Self>> + Clone,
        in_use: io::Error,
    ) -> io::Result<Self> {
        let allow = |is_allowed| {
            let mut rivals = rivals.clone();
            rivals.try_for_each(|rival| SockRef::from(&rival.socket).set_reuse_port(is_allowed))
        };
        let bound = allow(true).and_then(|()| Self::try_bind(wanted, true));
        allow(false)?;
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => error,
            _ => in_use,
        })
    }

    fn is_rival_of(&self, other: SocketAddr) -> bool {
        let own = self.address;
        own.port() == other.port()
            && own.is_ipv4() == other.is_ipv4()
            && (own.ip().is_unspecified() || other.ip().is_unspecified())
    }

    pub(super) fn wanted(&self) -> SocketAddr {
        self.wanted
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A bound address that connections of one protocol can be accepted from.
#[derive(Debug)]
pub struct Listener {
    bound: Arc<Bound>,
    /// The same socket, for whoever accepts.
    socket: TcpListener,
    kind: ListenerKind,
}

impl Listener {
    /// Binds `address`, see [`Bound::bind`].
    ///
    /// # Errors
    /// If the address is in use, does not belong to this machine, or needs more privileges.
    pub fn bind(address: SocketAddr, kind: ListenerKind) -> Result<Self, BindError> {
        Self::of(Arc::new(Bound::bind(address, &[])?), kind)
    }

    /// A listener on an address that is bound already.
    pub(super) fn of(bound: Arc<Bound>, kind: ListenerKind) -> Result<Self, BindError> {
        match bound.socket.try_clone() {
            Ok(socket) => Ok(Self {
                bound,
                socket,
                kind,
            }),
            Err(cause) => Err(BindError {
                address: bound.wanted,
                cause,
            }),
        }
    }

    /// The address that was bound, with the port that the kernel chose if 0 was requested.
    pub fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// The protocol of this listener.
    pub fn kind(&self) -> ListenerKind {
        self.kind
    }

    pub(super) fn bound(&self) -> &Arc<Bound> {
        &self.bound
    }

    /// The socket to accept from. The address stays bound for as long as it, or whoever else has
    /// the address, lives.
    pub(super) fn into_socket(self) -> TcpListener {
        self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_replaces_one_of_ours_and_no_other() {
        let first = Arc::new(Bound::bind(at("127.0.0.1:0"), &[]).expect("a port"));
        let port = first.address().port();
        let any = at(&format!("0.0.0.0:{port}"));
        let refused = Bound::bind(any, &[]).expect_err("in use");
        assert_eq!(refused.cause.kind(), io::ErrorKind::AddrInUse);

        let second = Bound::bind(any, &[Arc::clone(&first)]).expect("it makes room");
        drop(first);
        let second = Arc::new(second);
        let third = Bound::bind(at(&format!("127.0.0.1:{port}")), &[Arc::clone(&second)]);
        let third = third.expect("it makes room");
        drop(second);
        // Neither lets others in.
        assert_eq!(third.address().port(), port);
        let other = Bound::try_bind(third.address(), true).expect_err("in use");
        assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
    }

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }
}
