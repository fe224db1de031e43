//! The loop that accepts connections from one listening socket.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::raw_connect::ProxyDigest;

use super::announced::{Announcement, read_header};
use super::limits::ConnectionGuard;
use super::listener::{BACKLOG, Listener, ListenerKind};
use super::slot::Slot;
use super::socket::Socket;
use super::stream::{Acceptor, ClientStream, Peer};
use super::{Edge, tunnel, wait_last_call};
use crate::proxy::DirectResponder;
use crate::shutdown::{ShutdownWatch, requested};
use crate::tls;

/// The pause after an error that would occur again at once.
const RETRY: Duration = Duration::from_millis(100);

/// What all connections of a listener have in common.
#[derive(Clone)]
struct Entrance {
    kind: ListenerKind,
    /// Says which address they were accepted at.
    place: Arc<ProxyDigest>,
}

impl Entrance {
    fn of(listener: &Listener) -> Result<Self, String> {
        let place = tls::accepted_at(listener.wanted()).map_err(|error| error.to_string())?;
        let kind = listener.kind();
        Ok(Self { kind, place })
    }
}

/// Accepts connections until `shutdown` turns true. Those that wait to be accepted then are the last.
pub(super) async fn run<A>(edge: Arc<Edge<A>>, listener: Listener, mut shutdown: ShutdownWatch)
where
    A: DirectResponder + Send + Sync + 'static,
{
    let address = listener.address().clone();
    let at = Entrance::of(&listener);
    let accepting = Acceptor::of(listener.into_socket()).map_err(|error| error.to_string());
    let (at, listener) = match at.and_then(|at| Ok((at, accepting?))) {
        Ok(both) => both,
        Err(error) => {
            tracing::error!(%address, %error, "cannot accept on a bound socket");
            return;
        }
    };
    let connections = &edge.metrics.connections;
    let open = connections.with_label_values(&[at.kind.as_str()]);
    let accepted_total = edge.metrics.accepted.with_label_values(&[at.kind.as_str()]);
    let mut failing = false;
    loop {
        let next = async {
            let (stream, peer) = listener.accept().await?;
            let arrival = Arrival::of(&edge, peer, at.kind);
            let admitted = admit(&edge, arrival, &open).await;
            Ok(admitted.map(|guard| (stream, arrival, guard)))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = requested(&mut shutdown) => {
                serve_waiting(&edge, listener, &at, &open, &shutdown);
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
        accepted_total.inc();
        if let Some((stream, arrival, guard)) = accepted {
            serve(&edge, stream, arrival, &at, guard, &shutdown);
        }
    }
}

/// Serves the connections that wait in the queue of a socket, which is closed then. Without this they
/// would be reset.
fn serve_waiting<A>(
    edge: &Arc<Edge<A>>,
    listener: Acceptor,
    at: &Entrance,
    open: &prometheus::IntGauge,
    shutdown: &ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    // If clients connect as fast as they are accepted, this ends all the same.
    let most = usize::try_from(BACKLOG).unwrap_or_default();
    for (stream, peer) in listener.into_waiting().take(most) {
        let arrival = Arrival::of(edge, peer, at.kind);
        if edge.connections.has_room()
            && let Some(guard) = count(edge, arrival, open)
        {
            serve(edge, stream, arrival, at, guard, shutdown);
        }
    }
}

/// A connection that has just been accepted.
#[derive(Clone, Copy)]
struct Arrival {
    peer: Peer,
    /// How long a write may make no progress.
    write_stall: Duration,
    /// How long the header of the PROXY protocol may take, if one is expected from this peer.
    header_limit: Option<Duration>,
}

impl Arrival {
    fn of<A>(edge: &Edge<A>, peer: Peer, kind: ListenerKind) -> Self {
        let settings = edge.settings.load();
        let limits = &settings.limits;
        let limit = match kind {
            ListenerKind::Http => limits.header_read,
            ListenerKind::Https => limits.handshake,
        };
        let balancers = &settings.balancers;
        let is_balancer = match peer {
            Peer::Ip(address) => balancers.networks.contains(address.ip()),
            Peer::Unix => balancers.unix,
        };
        Self {
            peer,
            write_stall: limits.idle,
            header_limit: is_balancer.then_some(limit),
        }
    }
}

/// Counts a connection; `None` if its client has too many.
fn count<A>(
    edge: &Edge<A>,
    arrival: Arrival,
    open: &prometheus::IntGauge,
) -> Option<ConnectionGuard> {
    let connections = &edge.connections;
    let client = arrival.peer.ip();
    let admitted = match client.filter(|_| arrival.header_limit.is_none()) {
        Some(client) => connections.admit(client, open.clone()),
        None => Some(connections.admit_unknown(open.clone())),
    };
    if admitted.is_none() {
        edge.report.count_client_full(arrival.peer);
    }
    admitted
}

/// Counts a connection and waits until there is room for it; `None` if its client has too many.
async fn admit<A>(
    edge: &Edge<A>,
    arrival: Arrival,
    open: &prometheus::IntGauge,
) -> Option<ConnectionGuard> {
    let guard = count(edge, arrival, open)?;
    let connections = &edge.connections;
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
    stream: ClientStream,
    arrival: Arrival,
    at: &Entrance,
    guard: ConnectionGuard,
    shutdown: &ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let slot = Arc::clone(guard.slot());
    let Some(limit) = arrival.header_limit else {
        if !admit_handshake(edge, arrival.peer.ip(), at.kind) {
            return;
        }
        let socket = Socket::new(stream, arrival.peer, arrival.write_stall, guard);
        start(edge, socket, slot, at, shutdown);
        return;
    };
    let (edge, at, shutdown) = (Arc::clone(edge), at.clone(), shutdown.clone());
    // In a task of its own: the one of the connection has no room for it.
    tokio::spawn(async move {
        let reading = slot.count_in_flight();
        let arrived = (arrival, at.kind);
        let socket = read_socket(&edge, stream, arrived, guard, limit, &shutdown).await;
        drop(reading);
        if let Some(socket) = socket {
            start(&edge, socket, slot, &at, &shutdown);
        }
    });
}

/// Counts the handshake of a client that has connected, and returns whether it may begin. If not,
/// the connection is to be closed, which costs nothing of TLS.
fn admit_handshake<A>(edge: &Edge<A>, client: Option<IpAddr>, kind: ListenerKind) -> bool {
    // A program of this machine has no limit of its own, as it has none on its connections.
    let Some(client) = client.filter(|_| kind == ListenerKind::Https) else {
        return true;
    };
    let is_admitted = edge.handshake_rate.admit(client);
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
    at: &Entrance,
    shutdown: &ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let (edge, shutdown) = (Arc::clone(edge), shutdown.clone());
    let socket = socket.accepted_at(Arc::clone(&at.place));
    match at.kind {
        ListenerKind::Http => tokio::spawn(edge.serve_plain(socket, slot, shutdown)),
        ListenerKind::Https if edge.settings.load().has_pass_through => {
            tokio::spawn(tunnel::serve_unterminated(edge, socket, slot, shutdown))
        }
        ListenerKind::Https => {
            let limit = edge.settings.load().limits.handshake;
            tokio::spawn(edge.serve_tls(socket, slot, limit, shutdown))
        }
    };
}

/// Reads the header that a balancer's connection begins with; `None` if it is refused, which is
/// reported, or if the gateway stops.
async fn read_socket<A>(
    edge: &Edge<A>,
    mut stream: ClientStream,
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
    let client = addresses.map_or(arrival.peer, |addresses| Peer::Ip(addresses.source));
    if client
        .ip()
        .is_some_and(|client| !guard.count_client(client))
    {
        edge.report.count_client_full(client);
        return None;
    }
    if !admit_handshake(edge, client.ip(), kind) {
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
