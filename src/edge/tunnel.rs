//! Connections that are passed on octet by octet: with their TLS, for sites whose servers terminate it,
//! or what is within TLS.
//!
//! Whether a connection is passed through is found by its ClientHello, before any handshake. That
//! takes a task of its own, which the task of another connection has no room for. `proxy` chooses the
//! server and passes the octets on.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::{GetProxyDigest as _, GetSocketDigest as _, UniqueID as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::handshake_reason::{FailedHandshake, HandshakeFailure};
use super::http1::transport::is_reset;
use super::slot::{Occupied, Slot};
use super::socket::Socket;
use super::{Edge, wait_last_call};
use crate::proxy::{DirectResponder, Opening, Site, TunnelClient, queued};
use crate::shutdown::ShutdownWatch;
use crate::tls::client_hello::{ClientHello, ClientHelloReader};
use crate::tls::{Handshake, TlsInfo, accepted_place};

/// How much is read at a time: a ClientHello with a post-quantum key share.
const PIECE: usize = 2 * 1024;

/// A client's connection with TLS or without.
trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&self) -> &Socket;
}

impl Carrier for Socket {
    fn socket(&self) -> &Socket {
        self
    }
}

impl Carrier for SslStream<Socket> {
    fn socket(&self) -> &Socket {
        self.get_ref()
    }
}

/// A client's connection in its slot.
struct SlottedClient<'a, S> {
    stream: &'a mut S,
    slot: &'a Slot,
    /// Keeps it from making room while it waits for its server.
    waits: Option<Occupied<'a>>,
}

impl<'a, S> SlottedClient<'a, S> {
    fn new(stream: &'a mut S, slot: &'a Slot) -> Self {
        Self {
            stream,
            slot,
            waits: Some(slot.occupy()),
        }
    }
}

impl<S: Carrier> TunnelClient for SlottedClient<'_, S> {
    fn reset_on_close(&self) {
        self.stream.socket().reset_on_close();
    }

    fn unacknowledged(&self) -> usize {
        queued(self.stream.socket().id())
    }

    fn is_gone(&self) -> bool {
        is_reset(self.stream.socket().id())
    }

    fn begin(&mut self) {
        self.slot.restart_idle_time();
        self.waits = None;
    }

    fn note_passage(&self) {
        self.slot.restart_idle_time();
    }

    fn poll_let_go(&self, cx: &Context<'_>) -> Poll<()> {
        self.slot.poll_close_requested(cx)
    }
}

impl<S: Carrier> AsyncRead for SlottedClient<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(cx, buf)
    }
}

impl<S: Carrier> AsyncWrite for SlottedClient<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
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
    let mut has_begun = false;
    let read = tokio::select! {
        biased;
        read = timeout_at(until, read_hello(&*edge.app, socket, &mut has_begun)) => {
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
            socket.allow_stalls();
            let (place, destination) = (socket.get_proxy_digest(), destination(&socket));
            let opening = Opening {
                client: peer.address(),
                place: accepted_place(place.as_deref()),
                destination,
                name: &name,
                tls: None,
                protocol: None,
                client_certificate: None,
            };
            let mut client = SlottedClient::new(&mut socket, &slot);
            // In a box, since few connections that begin here have one.
            Box::pin(edge.app.tunnel(&site, opening, &mut client)).await;
        }
        Err(how) => {
            edge.report.log_handshake(&FailedHandshake {
                how,
                peer,
                handshake: &Handshake::new(peer.ip(), None),
                error: None,
                has_begun,
            });
        }
    }
}

/// Reads the ClientHello that a connection begins with. Returns the connection, which begins with it
/// again, and the site that it is passed through for with the name that the client requests.
/// `has_begun` says whether anything has come, even if this is dropped.
async fn read_hello<A: DirectResponder>(
    app: &A,
    mut socket: Socket,
    has_begun: &mut bool,
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
        *has_begun = true;
        match reader.read(&octets) {
            ClientHello::Incomplete => {}
            ClientHello::Name(name) => {
                let site = app.passed_through(name, place);
                let name: Box<[u8]> = name.into();
                // A CA validates the name for the gateway.
                let is_own = reader.offers_validation_alone() && app.awaits_validation(&name);
                break site.filter(|_| !is_own).map(|site| (site, name));
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
    slot: &Slot,
) {
    let Some(digest) = tls.ssl_digest() else {
        return;
    };
    let Some(info) = digest.extension.get::<TlsInfo>() else {
        return;
    };
    let place = tls.get_ref().get_proxy_digest();
    let place = accepted_place(place.as_deref());
    let Some(site) = app.terminated_for(info, place) else {
        return;
    };
    tls.get_mut().allow_stalls();
    let protocol = tls.ssl().selected_alpn_protocol().map(<[u8]>::to_vec);
    let name = info.server_name.as_ref();
    let opening = Opening {
        client: tls.get_ref().peer().address(),
        place,
        destination: destination(tls.get_ref()),
        name: name.map_or(b"", |name| name.as_str().as_bytes()),
        tls: Some(&digest),
        protocol: protocol.as_deref(),
        client_certificate: info.client_certificate(),
    };
    let mut client = SlottedClient::new(&mut *tls, slot);
    app.tunnel(&site, opening, &mut client).await;
}

/// The address that a client has connected to.
fn destination(socket: &Socket) -> Option<SocketAddr> {
    Some(*socket.get_socket_digest()?.local_addr()?.as_inet()?)
}
