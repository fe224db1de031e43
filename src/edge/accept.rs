//! Listening sockets and the loop that accepts from them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use super::Edge;
use super::limits::ConnectionGuard;
use super::socket::Socket;
use crate::proxy::DirectResponder;
use crate::shutdown::{ShutdownWatch, requested};

/// How many connections the kernel queues until they are accepted.
const BACKLOG: i32 = 4096;

/// The pause after an error that would occur again at once.
const RETRY: Duration = Duration::from_millis(100);

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    Http,
    Https,
}

impl ListenerKind {
    /// The value of the metrics' `listener` label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A bound listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    kind: ListenerKind,
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
    pub fn lacks_ipv6(&self) -> bool {
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

impl Listener {
    /// Binds `address`. An IPv6 address accepts IPv6 only, so that `0.0.0.0` and `[::]` can be
    /// bound side by side.
    ///
    /// # Errors
    /// If the address is in use, does not belong to this machine, or needs more privileges.
    pub fn bind(address: SocketAddr, kind: ListenerKind) -> Result<Self, BindError> {
        let bind = || {
            let socket = RawSocket::new(
                Domain::for_address(address),
                Type::STREAM.nonblocking().cloexec(),
                Some(Protocol::TCP),
            )?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let socket = std::net::TcpListener::from(socket);
            let address = socket.local_addr()?;
            Ok(Self {
                socket,
                address,
                kind,
            })
        };
        bind().map_err(|cause| BindError { address, cause })
    }

    /// The address that was bound, with the port that the kernel chose if 0 was requested.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The protocol of this listener.
    pub fn kind(&self) -> ListenerKind {
        self.kind
    }
}

/// Accepts connections until `shutdown` turns true.
pub(super) async fn run<A>(edge: Arc<Edge<A>>, listener: Listener, mut shutdown: ShutdownWatch)
where
    A: DirectResponder + Send + Sync + 'static,
{
    let Listener {
        socket,
        address,
        kind,
    } = listener;
    // Accepted sockets inherit it. Without it a connection is slower, not broken.
    _ = SockRef::from(&socket).set_tcp_nodelay(true);
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%address, %error, "cannot accept on a bound socket");
            return;
        }
    };
    let open = edge.metrics.connections.with_label_values(&[kind.as_str()]);
    let mut failing = false;
    loop {
        let next = async {
            let (stream, peer) = listener.accept().await?;
            let admitted = admit(&edge, peer, &open).await;
            Ok(admitted.map(|guard| (stream, peer, guard)))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = requested(&mut shutdown) => {
                // The application tells clients with a request in flight that it is the last one.
                edge.app.http_cleanup().await;
                return;
            }
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Most likely out of descriptors or memory. Log it once, not ten times a second.
                if !failing {
                    tracing::error!(
                        %address,
                        %error,
                        "cannot accept connections, will keep trying"
                    );
                }
                failing = true;
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if failing {
            tracing::info!(%address, "accepting connections again");
            failing = false;
        }
        if let Some((stream, peer, guard)) = accepted {
            serve(&edge, stream, peer, kind, guard, &shutdown);
        }
    }
}

/// Counts a connection and waits until there is room for it; `None` if its client has too many.
async fn admit<A>(
    edge: &Edge<A>,
    peer: SocketAddr,
    open: &prometheus::IntGauge,
) -> Option<ConnectionGuard>
where
    A: DirectResponder + Send + Sync + 'static,
{
    let connections = &edge.connections;
    let Some(guard) = connections.admit(peer.ip(), open.clone()) else {
        edge.report.count_client_full();
        return None;
    };
    if !connections.has_room() {
        edge.report.log_full(connections.max());
        // A connection that waits for room is not closed to make room.
        let _waiting = guard.slot().count_in_flight();
        connections.wait_for_room().await;
    }
    Some(guard)
}

/// Starts the task of one connection.
fn serve<A>(
    edge: &Arc<Edge<A>>,
    stream: TcpStream,
    peer: SocketAddr,
    kind: ListenerKind,
    guard: ConnectionGuard,
    shutdown: &ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let write_stall = edge.settings.load().limits.idle;
    let slot = Arc::clone(guard.slot());
    let socket = Socket::new(stream, peer, write_stall, guard);
    let edge = Arc::clone(edge);
    let shutdown = shutdown.clone();
    match kind {
        ListenerKind::Http => tokio::spawn(edge.serve_plain(socket, slot, shutdown)),
        ListenerKind::Https => tokio::spawn(edge.serve_tls(socket, slot, shutdown)),
    };
}

/// Whether an error of `accept` concerns only the connection that was to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
