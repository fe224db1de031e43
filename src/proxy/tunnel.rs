//! Tunnels: connections whose octets are passed on to a server, whatever they mean.
//!
//! A server is chosen and reached as for a request, which the connection counts as. What `edge` has
//! accepted, and whether TLS is terminated, makes no difference here.

mod connect;
mod pipe;
mod record;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::tls::SslDigest;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep};

use self::pipe::{End, Limits};
use self::record::Record;
use super::Gateway;
use super::connection_limit::ConnectionLimit;
use super::dial::Duplex;
use super::proxy_header::Addresses;
use super::refusal::Refusal;
use super::route::Site;
use crate::config::model::ListenAddress;
use crate::tls::{ClientCertificate, TlsInfo};

/// How often it is checked whether a client that waits for its server is still there.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long one side may take to acknowledge what the other has sent before it was reset.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often it is checked whether it has.
const BETWEEN_ACKNOWLEDGMENTS: Duration = Duration::from_millis(20);

/// A client's side of a tunnel.
pub trait TunnelClient: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the connection end with a reset.
    fn reset_on_close(&self);

    /// How many octets the client has not acknowledged; 0 if that is not known.
    fn unacknowledged(&self) -> usize;

    /// Whether the client has reset the connection, whatever is left to be read of it.
    fn is_gone(&self) -> bool;

    /// Lets the connection make room for others while nothing passes.
    fn begin(&mut self);

    /// Notes that octets have passed.
    fn note_passage(&self);

    /// Ready once the connection is to make room for another.
    fn poll_let_go(&self, cx: &Context<'_>) -> Poll<()>;
}

/// What is known of a client's connection.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// `None` for a program of this machine.
    pub client: Option<SocketAddr>,
    /// The address that the connection was accepted at, if that is known.
    pub place: Option<&'a ListenAddress>,
    /// What the client connected to, if that is an address.
    pub destination: Option<SocketAddr>,
    /// The name that the client requests, empty if it requests none.
    pub name: &'a [u8],
    /// `None` if TLS is not terminated here.
    pub tls: Option<&'a SslDigest>,
    /// The protocol that was negotiated, if TLS is terminated here.
    pub protocol: Option<&'a [u8]>,
    pub client_certificate: Option<&'a ClientCertificate>,
}

impl Opening<'_> {
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.client.map(|client| client.ip().to_canonical())
    }

    fn addresses(&self) -> Option<Addresses> {
        Some(Addresses {
            source: self.client?,
            destination: self.destination?,
        })
    }
}

/// Passes the octets of a connection for `site` on, and those of its server back, until both have
/// ended or something ends the connection.
pub(super) async fn carry<C: TunnelClient>(
    gateway: &Gateway,
    site: &Arc<Site>,
    opening: Opening<'_>,
    client: &mut C,
) {
    let Some(tunnel) = &site.tunnel else {
        return;
    };
    let mut record = Record::new(gateway, &site.name, tunnel, opening);
    let began = Instant::now();
    let access = site.access(None);
    if access.is_some_and(|access| !access.admits(opening.address())) {
        return record.refuse(Refusal::Forbidden);
    }
    let limits = site.limits().filter(|limits| limits.has_most());
    let site_permit = limits.map(|limits| limits.begin_request(&site.name));
    if matches!(site_permit, Some(None)) {
        return record.refuse(Refusal::SiteFull);
    }
    let limit: &Arc<ConnectionLimit> = &gateway.connection_limit;
    let Some(permit) = limit.try_acquire_for_tunnel(tunnel.upstream_connections) else {
        return record.refuse(Refusal::NoRoom);
    };
    // The client may wait for the end of its handshake.
    _ = client.flush().await;
    let connecting = connect::open_connection(&gateway.dialer, tunnel, opening, &permit.permit);
    let connected = tokio::select! {
        connected = connecting => connected,
        () = wait_until_gone(client) => return record.end(End::ClientReset),
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(error) => return record.fail(&error),
    };
    record.set_server(connected.judge);
    let mut server = Server {
        socket: connected.socket,
        has_ended: false,
    };
    let limits = Limits {
        idle: tunnel.idle,
        until: tunnel
            .proxy
            .total_timeout
            .and_then(|total| began.checked_add(total)),
    };
    let arrival = (opening.address(), opening.place);
    let info = opening.tls.and_then(|tls| tls.extension.get::<TlsInfo>());
    let is_admitted = || {
        let router = &gateway.router;
        router.still_admits(site, opening.name, arrival, info)
    };
    let socket = &mut *server.socket;
    let end = pipe::pipe(client, socket, limits, &mut record, is_admitted).await;
    match end {
        End::ClientClosed | End::ServerClosed => server.has_ended = true,
        // A reset discards what has not arrived.
        End::ClientReset => settle(&mut server, |server| server.socket.unacknowledged()).await,
        End::ServerReset => {
            server.has_ended = true;
            settle(client, |client| client.unacknowledged()).await;
            client.reset_on_close();
        }
        End::Idle | End::Total | End::MadeRoom | End::Outdated => client.reset_on_close(),
    }
    record.end(end);
    // What the connection counts as ends with it.
    drop((server, connected.admission, permit, site_permit));
}

/// A server's side of a tunnel. Unless it has ended, it is reset when dropped, so that the server
/// takes nothing for complete that is not.
struct Server {
    socket: Box<dyn Duplex>,
    has_ended: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.has_ended {
            self.socket.reset_on_close();
        }
    }
}

/// Waits until the client has reset its connection.
async fn wait_until_gone<C: TunnelClient>(client: &mut C) {
    while !client.is_gone() {
        sleep(BETWEEN_LOOKS).await;
    }
}

/// Waits until a side has acknowledged all octets, but not for long.
async fn settle<S>(side: &mut S, unacknowledged: impl Fn(&S) -> usize) {
    let until = Instant::now() + FAREWELL;
    while unacknowledged(side) > 0 && Instant::now() < until {
        sleep(BETWEEN_ACKNOWLEDGMENTS).await;
    }
}
