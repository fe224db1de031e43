//! What a connection that is passed on octet by octet needs of its upstream.

use std::net::IpAddr;
use std::time::Duration;

use pingora_core::Result;

use super::{Choice, Pool};
use crate::config::model::{Balance, HashKey};
use crate::proxy::dial::{Dialer, Duplex};
use crate::proxy::hash;
use crate::proxy::proxy_header::{self, Addresses};

/// The key of a client's connection for the choice of its server, if that depends on one that
/// connections have.
pub(in crate::proxy) fn balance_key(pool: &Pool, client: Option<IpAddr>) -> Option<u64> {
    match &pool.upstream.balance {
        Balance::Hash(HashKey::ClientIp) => client.map(hash::of_address),
        _ => None,
    }
}

/// What a connection to a server begins with, if anything. `addresses` are those of the client's.
pub(in crate::proxy) fn proxy_header(pool: &Pool, addresses: Option<Addresses>) -> Option<Vec<u8>> {
    let version = pool.upstream.send_proxy_protocol?;
    Some(proxy_header::encode(version, addresses))
}

/// Opens a connection to a server within `patience`. `header` is that of [`proxy_header`], and
/// `protocol` what the client speaks, if that was negotiated.
///
/// # Errors
/// If the server cannot be reached or trusted.
pub(in crate::proxy) async fn dial(
    pool: &Pool,
    choice: &Choice,
    header: Option<&[u8]>,
    dialer: &Dialer,
    patience: Duration,
    protocol: Option<&[u8]>,
) -> Result<Box<dyn Duplex>> {
    let (server, endpoint) = (pool.server(choice)?, &choice.endpoint);
    let opening = server.open_tunnel(endpoint, header, dialer, patience, protocol);
    pool.metrics.time_connecting(opening).await
}
