//! Listening sockets: how an address is bound, and why it cannot be.
//!
//! Who accepts from them is decided in `listeners`.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, TcpListener};
use std::sync::Arc;

use nix::net::if_::{if_nameindex, if_nametoindex};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use super::inherited;
use super::stream::ListeningSocket;
use crate::config::model::ListenAddress;
use crate::unix_socket::{self, SocketFile, UnixBindError};

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
#[error("cannot listen on {address}: {cause}{hint}")]
pub struct BindError {
    address: ListenAddress,
    #[source]
    cause: io::Error,
    hint: String,
}

impl BindError {
    fn new(address: ListenAddress, cause: io::Error) -> Self {
        Self {
            hint: hint(&address, &cause),
            address,
            cause,
        }
    }

    /// Whether all IPv6 addresses were to be bound on a machine without IPv6.
    pub(super) fn lacks_ipv6(&self) -> bool {
        self.address
            .ip()
            .is_some_and(|address| address.is_ipv6() && address.ip().is_unspecified())
            && matches!(
                self.cause.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            )
    }
}

fn hint(address: &ListenAddress, cause: &io::Error) -> String {
    let hint = match (address, cause.raw_os_error()) {
        (ListenAddress::Unix { .. } | ListenAddress::Systemd(_), _) => "",
        (_, Some(libc::ENODEV)) => return known_interfaces(address),
        (_, Some(libc::EAFNOSUPPORT)) => {
            "; this machine has no IPv6, give an IPv4 address such as 0.0.0.0:443"
        }
        _ => match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program listens there, stop it or choose another port"
            }
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
            }
            _ => "",
        },
    };
    hint.to_owned()
}

/// Says which interfaces there are instead of the one of `address`.
fn known_interfaces(address: &ListenAddress) -> String {
    let Some(wanted) = address.interface() else {
        return String::new();
    };
    let known = if_nameindex().map(|interfaces| {
        let names = interfaces.iter().map(|one| one.name().to_string_lossy());
        names.collect::<Vec<_>>().join(", ")
    });
    match known {
        Ok(known) => format!("; there is no interface '{wanted}', this machine has {known}"),
        Err(_) => format!("; there is no interface '{wanted}'"),
    }
}

/// A bound address, open for as long as this lives.
#[derive(Debug)]
pub(super) struct Bound {
    socket: ListeningSocket,
    /// As it is configured.
    wanted: ListenAddress,
    /// With the port that the kernel chose if 0 was requested.
    address: ListenAddress,
    /// Of a Unix socket.
    file: Option<SocketFile>,
}

impl Bound {
    /// Binds `wanted`, which may be several sockets if they come from systemd. An IPv6 address accepts
    /// IPv6 only, so that `0.0.0.0` and `[::]` can be bound side by side.
    ///
    /// `rivals` are our own sockets that will be closed once these are in use: an address of one
    /// interface can replace that of all, and the reverse.
    pub(super) fn bind(
        wanted: &ListenAddress,
        rivals: &[Arc<Self>],
    ) -> Result<Vec<Arc<Self>>, BindError> {
        let bound = match wanted {
            ListenAddress::Systemd(name) => inherited::find(name).map(|sockets| {
                let sockets = sockets.into_iter();
                sockets
                    .map(|socket| Arc::new(Self::of(socket, wanted)))
                    .collect()
            }),
            ListenAddress::Unix { path, mode } => match unix_socket::bind(path, *mode, BACKLOG) {
                Ok((socket, file)) => Ok(vec![Arc::new(Self {
                    file: Some(file),
                    ..Self::of(ListeningSocket::Unix(socket), wanted)
                })]),
                Err(UnixBindError::Io(error)) => Err(error),
                Err(error) => Err(io::Error::new(io::ErrorKind::AddrInUse, error.to_string())),
            },
            _ => {
                Self::bind_ip(wanted, rivals).map(|socket| vec![Arc::new(Self::of(socket, wanted))])
            }
        };
        bound.map_err(|cause| BindError::new(wanted.clone(), cause))
    }

    fn of(socket: ListeningSocket, wanted: &ListenAddress) -> Self {
        let address = match (wanted, socket.ip()) {
            (ListenAddress::Ip(_) | ListenAddress::Systemd(_), Some(address)) => {
                ListenAddress::Ip(address)
            }
            _ => wanted.clone(),
        };
        Self {
            socket,
            wanted: wanted.clone(),
            address,
            file: None,
        }
    }

    fn bind_ip(wanted: &ListenAddress, rivals: &[Arc<Self>]) -> io::Result<ListeningSocket> {
        match try_bind(wanted, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let rivals = rivals.iter();
                let rivals: Vec<_> = rivals.filter(|rival| rival.is_rival_of(wanted)).collect();
                match rivals.is_empty() {
                    true => Err(error),
                    false => Self::bind_beside(wanted, &rivals, error),
                }
            }
            bound => bound,
        }
    }

    /// Binds an address that sockets of ours still occupy. No other user can take part, and no program
    /// that does not ask to share the port.
    fn bind_beside(
        wanted: &ListenAddress,
        rivals: &[&Arc<Self>],
        in_use: io::Error,
    ) -> io::Result<ListeningSocket> {
        let allow = |is_allowed| {
            let mut rivals = rivals.iter();
            rivals.try_for_each(|rival| SockRef::from(&rival.socket).set_reuse_port(is_allowed))
        };
        let bound = allow(true).and_then(|()| try_bind(wanted, true));
        allow(false)?;
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => error,
            _ => in_use,
        })
    }

    fn is_rival_of(&self, other: &ListenAddress) -> bool {
        self.address.ip().is_some() && self.address.collides_with(other)
    }

    pub(super) fn wanted(&self) -> &ListenAddress {
        &self.wanted
    }

    pub(super) fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Makes it what `wanted`, the same place, asks for.
    pub(super) fn adapt(&self, wanted: &ListenAddress) -> Result<(), BindError> {
        if let (ListenAddress::Unix { mode, .. }, Some(file)) = (wanted, &self.file) {
            file.set_mode(*mode)
                .map_err(|cause| BindError::new(wanted.clone(), cause))?;
        }
        Ok(())
    }
}

/// Binds an IP address; `beside` others that have the same port.
fn try_bind(wanted: &ListenAddress, beside: bool) -> io::Result<ListeningSocket> {
    let Some(address) = wanted.ip() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if beside {
        socket.set_reuse_port(true)?;
    }
    let address = match wanted {
        ListenAddress::Interface { interface, .. } => {
            socket.bind_device(Some(interface.as_bytes()))?;
            address
        }
        ListenAddress::LinkLocal { interface, address } => {
            let scope = if_nametoindex(&**interface)?;
            SocketAddrV6::new(*address.ip(), address.port(), 0, scope).into()
        }
        _ => address,
    };
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    if beside {
        socket.set_reuse_port(false)?;
    }
    // Accepted sockets inherit it. Without it a connection is slower, not broken.
    _ = socket.set_tcp_nodelay(true);
    Ok(ListeningSocket::Tcp(TcpListener::from(socket)))
}

/// A bound address that connections of one protocol can be accepted from.
#[derive(Debug)]
pub struct Listener {
    bound: Arc<Bound>,
    /// The same socket, for whoever accepts.
    socket: ListeningSocket,
    kind: ListenerKind,
}

impl Listener {
    /// Binds an IP address.
    ///
    /// # Errors
    /// If the address is in use, does not belong to this machine, or needs more privileges.
    pub fn bind(address: SocketAddr, kind: ListenerKind) -> Result<Self, BindError> {
        let wanted = ListenAddress::Ip(address);
        let socket =
            Bound::bind_ip(&wanted, &[]).map_err(|cause| BindError::new(wanted.clone(), cause))?;
        Self::of(Arc::new(Bound::of(socket, &wanted)), kind)
    }

    /// A listener on an address that is bound already.
    pub(super) fn of(bound: Arc<Bound>, kind: ListenerKind) -> Result<Self, BindError> {
        match bound.socket.try_clone() {
            Ok(socket) => Ok(Self {
                bound,
                socket,
                kind,
            }),
            Err(cause) => Err(BindError::new(bound.wanted.clone(), cause)),
        }
    }

    /// The address that was bound, with the port that the kernel chose if 0 was requested.
    pub fn address(&self) -> &ListenAddress {
        &self.bound.address
    }

    /// The address as it is configured.
    pub(super) fn wanted(&self) -> &ListenAddress {
        &self.bound.wanted
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
    pub(super) fn into_socket(self) -> ListeningSocket {
        self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_replaces_one_of_ours_and_no_other() {
        let bind = |text: &str, rivals: &[Arc<Bound>]| {
            let wanted = ListenAddress::Ip(text.parse().expect("an address"));
            let mut bound = Bound::bind(&wanted, rivals)?;
            Ok::<_, BindError>(bound.remove(0))
        };
        let first = bind("127.0.0.1:0", &[]).expect("a port");
        let port = first.address().ip().expect("an address").port();
        let any = format!("0.0.0.0:{port}");
        let refused = bind(&any, &[]).expect_err("in use");
        assert_eq!(refused.cause.kind(), io::ErrorKind::AddrInUse);

        let second = bind(&any, &[Arc::clone(&first)]).expect("it makes room");
        drop(first);
        let one = format!("127.0.0.1:{port}");
        let third = bind(&one, &[Arc::clone(&second)]).expect("it makes room");
        drop(second);
        // A second gateway is not let in.
        let other = try_bind(third.address(), false).expect_err("in use");
        assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_unknown_interface_is_named_with_those_there_are() {
        let [address, _] = ListenAddress::all_of(&"nonesuch0".into(), 0);
        let error = Bound::bind(&address, &[]).expect_err("unknown").to_string();
        let there_are = "there is no interface 'nonesuch0', this machine has ";
        assert!(error.contains(there_are) && error.contains("lo"), "{error}");
    }
}
