//! Connections that are passed on octet by octet: with their TLS, for sites whose servers terminate it,
//! or what is within TLS.
//!
//! Whether a connection is passed through is found by its ClientHello, before any handshake. That
//! takes a task of its own, which the task of another connection has no room for. `proxy` chooses the
//! server and passes the octets on.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::{GetProxyDigest as _, GetSocketDigest as _, UniqueID as _};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use super::report::HandshakeFailure;
use super::slot::Slot;
use super::socket::Socket;
use super::{Edge, wait_last_call};
use crate::proxy::{DirectResponder, Opening, Site, TunnelClient, queued};
use crate::shutdown::ShutdownWatch;
use crate::tls::client_hello::{ClientHello, ClientHelloReader};
use crate::tls::{Handshake, TlsInfo, accepted_place};

/// How much is read at a time: a ClientHello with a post-quantum key share.
const PIECE: usize = 2 * 1024;

impl TunnelClient for Socket {
    fn reset_on_close(&self) {
        Self::reset_on_close(self);
    }

    fn unacknowledged(&self) -> usize {
        queued(self.id())
    }
}

impl TunnelClient for SslStream<Socket> {
    fn reset_on_close(&self) {
        self.get_ref().reset_on_close();
    }

    fn unacknowledged(&self) -> usize {
        queued(self.get_ref().id())
    }
}

/// Reads the ClientHello of a connection, and passes the connection through if that names a site for
/// it. All others are served as if nothing had been read.
pub(super) async fn serve_unterminated<A>(
    edge: Arc<Edge<A>>,
    socket: Socket,
    slot: Arc<Slot>,
    shutdown: ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let until = Instant::now() + edge.settings.load().limits.handshake;
    let peer = socket.peer();
    let mut stopping = shutdown.clone();
    let read = tokio::select! {
        biased;
        read = timeout_at(until, read_hello(&*edge.app, socket)) => {
            read.map_err(|_| HandshakeFailure::TimedOut)
        }
        // A client that has not said what it wants makes room for others.
        () = poll_fn(|cx| slot.poll_close_requested(cx)) => Err(HandshakeFailure::LetGo),
        () = wait_last_call(&mut stopping) => Err(HandshakeFailure::Stopped),
    };
    match read {
        Ok((socket, None)) => {
            let left = until.saturating_duration_since(Instant::now());
            tokio::spawn(edge.serve_tls(socket, slot, left, shutdown));
        }
        Ok((mut socket, Some((site, name)))) => {
            let _in_flight = slot.count_in_flight();
            socket.allow_stalls();
            let destination = destination(&socket);
            let opening = Opening {
                client: peer.address(),
                destination,
                name: &name,
                tls: None,
                protocol: None,
                client_certificate: None,
            };
            // In a box, since few connections that begin here have one.
            Box::pin(edge.app.tunnel(&site, opening, &mut socket)).await;
        }
        Err(how) => {
            let handshake = Handshake::new(peer.ip(), None);
            edge.report.log_handshake(how, peer, &handshake, None);
        }
    }
}

/// Reads the ClientHello that a connection begins with. Returns the connection, which begins with it
/// again, and the site that it is passed through for with the name that the client requests.
async fn read_hello<A: DirectResponder>(
    app: &A,
    mut socket: Socket,
) -> (Socket, Option<(Arc<Site>, Box<[u8]>)>) {
    let place = socket.get_proxy_digest();
    let place = accepted_place(place.as_deref());
    let mut octets = BytesMut::new();
    let mut reader = ClientHelloReader::default();
    let site = loop {
        octets.reserve(PIECE);
        if !matches!(socket.read_buf(&mut octets).await, Ok(1..)) {
            // Whoever reads next finds that out as well.
            break None;
        }
        match reader.read(&octets) {
            ClientHello::Incomplete => {}
            ClientHello::Name(name) => {
                break app
                    .passed_through(name, place)
                    .map(|site| (site, name.into()));
            }
            ClientHello::Nameless | ClientHello::Malformed => break None,
        }
    };
    (socket.with_received(octets), site)
}

/// Whether a connection was made for a site that gets what is within TLS.
pub(super) fn is_for_octets(tls: &SslStream<Socket>) -> bool {
    let digest = tls.ssl_digest();
    let info = digest
        .as_ref()
        .and_then(|digest| digest.extension.get::<TlsInfo>());
    info.and_then(TlsInfo::policy)
        .is_some_and(|policy| policy.tunnel.is_some())
}

/// Passes on what is within TLS.
pub(super) async fn serve_terminated<A: DirectResponder>(
    app: &A,
    mut tls: Box<SslStream<Socket>>,
    slot: &Arc<Slot>,
) {
    let _in_flight = slot.count_in_flight();
    let Some(digest) = tls.ssl_digest() else {
        return;
    };
    let Some(info) = digest.extension.get::<TlsInfo>() else {
        return;
    };
    let place = tls.get_ref().get_proxy_digest();
    let Some(site) = app.terminated_for(info, accepted_place(place.as_deref())) else {
        return;
    };
    tls.get_mut().allow_stalls();
    let protocol = tls.ssl().selected_alpn_protocol().map(<[u8]>::to_vec);
    let name = info.server_name.as_ref();
    let opening = Opening {
        client: tls.get_ref().peer().address(),
        destination: destination(tls.get_ref()),
        name: name.map_or(b"", |name| name.as_str().as_bytes()),
        tls: Some(&digest),
        protocol: protocol.as_deref(),
        client_certificate: info.client_certificate(),
    };
    app.tunnel(&site, opening, &mut *tls).await;
}

/// The address that a client has connected to.
fn destination(socket: &Socket) -> Option<SocketAddr> {
    Some(*socket.get_socket_digest()?.local_addr()?.as_inet()?)
}
