//! Tunnels: connections whose octets are passed on to a server, whatever they mean.
//!
//! A server is chosen and reached as for a request, which the connection counts as. What `edge` has
//! accepted, and whether TLS is terminated, makes no difference here.

mod connect;
mod pipe;
mod record;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pingora_core::protocols::tls::SslDigest;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use self::pipe::{End, Limits};
use self::record::Record;
use super::Gateway;
use super::connection_limit::ConnectionLimit;
use super::proxy_header::Addresses;
use super::refusal::Refusal;
use super::route::Site;
use crate::tls::ClientCertificate;

/// A client's side of a tunnel.
pub trait TunnelClient: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the connection end with a reset.
    fn reset_on_close(&self);

    /// How many octets the client has not acknowledged; 0 if that is not known.
    fn unacknowledged(&self) -> usize;
}

/// What is known of a client's connection.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// `None` for a program of this machine.
    pub client: Option<SocketAddr>,
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
    fn address(&self) -> Option<IpAddr> {
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
    let limit: &Arc<ConnectionLimit> = &gateway.connection_limit;
    let Some(permit) = limit.try_acquire(tunnel.upstream_connections, None) else {
        return record.refuse(Refusal::NoRoom);
    };
    // The client may wait for the end of its handshake.
    _ = client.flush().await;
    let connecting = connect::open_connection(&gateway.dialer, tunnel, opening, &permit);
    let connected = match connecting.await {
        Ok(connected) => connected,
        Err(error) => return record.fail(&error),
    };
    record.set_server(connected.judge);
    let mut server = connected.socket;
    let limits = Limits {
        idle: tunnel.idle,
        until: tunnel
            .proxy
            .total_timeout
            .and_then(|total| began.checked_add(total)),
    };
    let end = pipe::pipe(client, &mut *server, limits, &mut record).await;
    if matches!(end, End::ClientReset | End::Idle | End::Total) {
        server.reset_on_close();
    }
    // A reset discards what has not arrived.
    if matches!(end, End::ServerReset | End::Idle | End::Total) && client.unacknowledged() == 0 {
        client.reset_on_close();
    }
    record.end(end);
    // What the connection counts as ends with it.
    drop((connected.admission, permit));
}
