//! Listening sockets: how an address is bound, and why it cannot be.
//!
//! Who accepts from them is decided in `listeners`.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, TcpListener};
use std::os::unix::fs::fchown;
use std::sync::{Arc, Mutex};

use nix::net::if_::{if_nameindex, if_nametoindex};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use super::inherited;
use super::stream::ListeningSocket;
use crate::config::model::ListenAddress;
use crate::lock::MutexExt as _;
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
        (ListenAddress::Unix { .. }, _) if cause.kind() == io::ErrorKind::PermissionDenied => {
            "; the gateway's user needs the right to write in the directory, and what is there must \
             not be another user's"
        }
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
    /// The interface that it is bound to, by the kernel's number.
    interface: Option<u32>,
    /// Our own sockets that occupy its address: it does not listen before it replaces them.
    rivals: Mutex<Vec<Arc<Self>>>,
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
            _ => Self::bind_ip(wanted, rivals).map(|bound| vec![Arc::new(bound)]),
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
            interface: None,
            rivals: Mutex::default(),
        }
    }

    fn bind_ip(wanted: &ListenAddress, rivals: &[Arc<Self>]) -> io::Result<Self> {
        let interface = wanted.interface().and_then(|name| index_of(name));
        let bound = |socket, rivals| Self {
            interface,
            rivals: Mutex::new(rivals),
            ..Self::of(socket, wanted)
        };
        match try_bind(wanted, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let rivals = rivals.iter().filter(|rival| rival.is_rival_of(wanted));
                let rivals: Vec<_> = rivals.map(Arc::clone).collect();
                if rivals.is_empty() {
                    return Err(error);
                }
                let socket = Self::bind_beside(wanted, &rivals, error)?;
                Ok(bound(socket, rivals))
            }
            socket => Ok(bound(socket?, Vec::new())),
        }
    }

    /// Binds an address that sockets of ours still occupy, without listening. No other user can take
    /// part, and no program that does not ask to share the port.
    fn bind_beside(
        wanted: &ListenAddress,
        rivals: &[Arc<Self>],
        in_use: io::Error,
    ) -> io::Result<ListeningSocket> {
        let bound = share_ports(rivals, || try_bind(wanted, true));
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => error,
            _ => in_use,
        })
    }

    /// Listens in place of the sockets that occupy the address, if there are any. From now on the
    /// kernel hands it connections that would have been theirs.
    pub(super) fn replace_rivals(&self) -> io::Result<()> {
        let rivals = std::mem::take(&mut *self.rivals.lock_unpoisoned());
        if rivals.is_empty() {
            return Ok(());
        }
        let socket = SockRef::from(&self.socket);
        share_ports(&rivals, || {
            socket.set_reuse_port(true)?;
            let listening = socket.listen(BACKLOG);
            socket.set_reuse_port(false)?;
            listening
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

    /// Whether clients still reach it: nobody has removed its file, or removed and added its interface.
    pub(super) fn is_in_place(&self) -> bool {
        let interface = self.wanted.interface().and_then(|name| index_of(name));
        let is_same = interface.is_none() || interface == self.interface;
        is_same && self.file.as_ref().is_none_or(SocketFile::is_in_place)
    }

    /// Checks that [`Self::adapt`] can make it what `wanted`, the same place, asks for.
    pub(super) fn check_adaptable(&self, wanted: &ListenAddress) -> Result<(), BindError> {
        if let (ListenAddress::Unix { mode, .. }, Some(file)) = (wanted, &self.file) {
            file.check_mode(*mode)
                .map_err(|cause| BindError::new(wanted.clone(), cause))?;
        }
        Ok(())
    }

    /// Makes it what `wanted`, the same place, asks for.
    pub(super) fn adapt(&self, wanted: &ListenAddress) -> io::Result<()> {
        match (wanted, &self.file) {
            (ListenAddress::Unix { mode, .. }, Some(file)) => file.set_mode(*mode),
            _ => Ok(()),
        }
    }

    /// Gives the file of a Unix socket to a user and its group.
    pub(super) fn set_owner(&self, user: u32, group: u32) -> io::Result<()> {
        // Sockets share a port only if they are of one user. If this fails, an address cannot be
        // replaced by one that overlaps it, which a reload then reports.
        _ = fchown(&self.socket, Some(user), Some(group));
        match &self.file {
            Some(file) => file.set_owner(user, group),
            None => Ok(()),
        }
    }
}

/// The kernel's number of an interface, if there is one of this name.
fn index_of(interface: &str) -> Option<u32> {
    if_nametoindex(interface).ok()
}

/// Lets another socket of ours have the ports of `rivals` while `act` runs.
fn share_ports<T>(rivals: &[Arc<Bound>], act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let allow = |is_allowed| {
        let mut rivals = rivals.iter();
        rivals.try_for_each(|rival| SockRef::from(&rival.socket).set_reuse_port(is_allowed))
    };
    let done = allow(true).and_then(|()| act());
    allow(false)?;
    done
}

/// Listens on an IP address; `beside` others that have the same port it is only bound.
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
    if beside {
        socket.set_reuse_port(false)?;
    } else {
        socket.listen(BACKLOG)?;
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
        let bound =
            Bound::bind_ip(&wanted, &[]).map_err(|cause| BindError::new(wanted.clone(), cause))?;
        Self::of(Arc::new(bound), kind)
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
    use std::net::TcpStream;

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
        second.replace_rivals().expect("it listens");
        drop(first);
        let one = format!("127.0.0.1:{port}");
        let third = bind(&one, &[Arc::clone(&second)]).expect("it makes room");
        let client = || TcpStream::connect(&one);
        drop(client().expect("the one before listens"));
        third.replace_rivals().expect("it listens");
        drop(second);
        drop(client().expect("it listens"));
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
