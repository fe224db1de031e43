//! Everything that listens, bound before anything else is done.

use std::net::SocketAddr;

use super::StartError;
use crate::admin;
use crate::config::model::Config;
use crate::edge::{Listener, ListenerKind};

pub(super) struct Sockets {
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: Option<admin::Listener>,
}

impl Sockets {
    /// Binds every listener. If this machine has no IPv6 and the same port is served over IPv4, it
    /// does without `[::]`.
    ///
    /// # Errors
    /// If another address cannot be bound.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let server = &config.server;
        let https = server.https.iter().map(|at| (*at, ListenerKind::Https));
        let http = server.http.iter().map(|at| (*at, ListenerKind::Http));
        let wanted: Vec<_> = https.chain(http).collect();
        let mut listeners = Vec::with_capacity(wanted.len());
        let mut without = Vec::new();
        for (address, kind) in &wanted {
            match Listener::bind(*address, *kind) {
                Ok(listener) => listeners.push(listener),
                Err(error) if error.lacks_ipv6() && is_over_ipv4(&wanted, *address, *kind) => {
                    without.push(address.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !without.is_empty() {
            tracing::warn!(
                "this machine has no IPv6: nothing listens on {}, only IPv4 is served; turn IPv6 on, \
                 or remove these addresses from 'server.https' and 'server.http'",
                without.join(" and ")
            );
        }
        Ok(Self {
            listeners,
            admin: admin::Listener::bind(&server.admin)?,
        })
    }
}

/// Whether there is a listener of this kind on the same port of an IPv4 address.
fn is_over_ipv4(
    wanted: &[(SocketAddr, ListenerKind)],
    address: SocketAddr,
    kind: ListenerKind,
) -> bool {
    wanted
        .iter()
        .any(|(other, spoken)| other.is_ipv4() && other.port() == address.port() && *spoken == kind)
}
