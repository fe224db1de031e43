//! Listening sockets and the loop that accepts from them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use super::announced::{Announcement, read_header};
use super::limits::ConnectionGuard;
use super::slot::Slot;
use super::socket::Socket;
use super::{Edge, wait_last_call};
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
            let arrival = Arrival::of(&edge, peer, kind);
            let admitted = admit(&edge, arrival, &open).await;
            Ok(admitted.map(|guard| (stream, arrival, guard)))
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
        if let Some((stream, arrival, guard)) = accepted {
            serve(&edge, stream, arrival, kind, guard, &shutdown);
        }
    }
}

/// A connection that has just been accepted.
#[derive(Clone, Copy)]
struct Arrival {
    peer: SocketAddr,
    /// How long a write may make no progress.
    write_stall: Duration,
    /// How long the header of the PROXY protocol may take, if one is expected from this peer.
    header_limit: Option<Duration>,
}

impl Arrival {
    fn of<A>(edge: &Edge<A>, peer: SocketAddr, kind: ListenerKind) -> Self {
        let settings = edge.settings.load();
        let limits = &settings.limits;
        let limit = match kind {
            ListenerKind::Http => limits.header_read,
            ListenerKind::Https => limits.handshake,
        };
        Self {
            peer,
            write_stall: limits.idle,
            header_limit: settings.balancers.contains(peer.ip()).then_some(limit),
        }
    }
}

/// Counts a connection and waits until there is room for it; `None` if its client has too many.
async fn admit<A>(
    edge: &Edge<A>,
    arrival: Arrival,
    open: &prometheus::IntGauge,
) -> Option<ConnectionGuard>
where
    A: DirectResponder + Send + Sync + 'static,
{
    let connections = &edge.connections;
    let admitted = match arrival.header_limit {
        Some(_) => Some(connections.admit_unknown(open.clone())),
        None => connections.admit(arrival.peer.ip(), open.clone()),
    };
    let Some(guard) = admitted else {
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
    arrival: Arrival,
    kind: ListenerKind,
    guard: ConnectionGuard,
    shutdown: &ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let slot = Arc::clone(guard.slot());
    let Some(limit) = arrival.header_limit else {
        if !admit_handshake(edge, arrival.peer, kind) {
            return;
        }
        let socket = Socket::new(stream, arrival.peer, arrival.write_stall, guard);
        start(edge, socket, slot, kind, shutdown);
        return;
    };
    let (edge, shutdown) = (Arc::clone(edge), shutdown.clone());
    // In a task of its own: the one of the connection has no room for it.
    tokio::spawn(async move {
        let reading = slot.count_in_flight();
        let arrived = (arrival, kind);
        let socket = read_socket(&edge, stream, arrived, guard, limit, &shutdown).await;
        drop(reading);
        if let Some(socket) = socket {
            start(&edge, socket, slot, kind, &shutdown);
        }
    });
}

/// Counts the handshake of a client that has connected, and returns whether it may begin. If not,
/// the connection is to be closed, which costs nothing of TLS.
fn admit_handshake<A>(edge: &Edge<A>, client: SocketAddr, kind: ListenerKind) -> bool {
    let is_admitted = kind == ListenerKind::Http || edge.handshake_rate.admit(client.ip());
    if !is_admitted {
        edge.report.log_handshake_refused(client);
    }
    is_admitted
}

/// Starts the task of a connection whose client is known.
fn start<A>(
    edge: &Arc<Edge<A>>,
    socket: Socket,
    slot: Arc<Slot>,
    kind: ListenerKind,
    shutdown: &ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let (edge, shutdown) = (Arc::clone(edge), shutdown.clone());
    match kind {
        ListenerKind::Http => tokio::spawn(edge.serve_plain(socket, slot, shutdown)),
        ListenerKind::Https => tokio::spawn(edge.serve_tls(socket, slot, shutdown)),
    };
}

/// Reads the header that a balancer's connection begins with; `None` if it is refused, which is
/// reported, or if the gateway stops.
async fn read_socket<A>(
    edge: &Edge<A>,
    mut stream: TcpStream,
    (arrival, kind): (Arrival, ListenerKind),
    mut guard: ConnectionGuard,
    limit: Duration,
    shutdown: &ShutdownWatch,
) -> Option<Socket> {
    let mut stopping = shutdown.clone();
    let read = tokio::select! {
        biased;
        read = read_header(&mut stream, limit) => read,
        () = wait_last_call(&mut stopping) => return None,
    };
    let Announcement { addresses, rest } = read
        .inspect_err(|&why| edge.report.log_unannounced(arrival.peer, why))
        .ok()?;
    let client = addresses.map_or(arrival.peer, |addresses| addresses.source);
    if !guard.count_client(client.ip()) {
        edge.report.count_client_full();
        return None;
    }
    if !admit_handshake(edge, client, kind) {
        return None;
    }
    let socket = Socket::new(stream, client, arrival.write_stall, guard).with_received(rest);
    Some(match addresses {
        Some(addresses) => socket.with_destination(addresses.destination),
        None => socket,
    })
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
