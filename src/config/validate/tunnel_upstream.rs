//! Servers that cannot serve what `pass_through` passes on to them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::context::Context;
use crate::config::model::{ListenAddress, Probe, Server, Site, TunnelKind, UpstreamAddress};
use crate::config::problem::{At, quote};

/// Refuses servers that are the gateway itself, where each connection would lead to the next one
/// without end, and warns of health checks that no server can pass.
pub(super) fn check_servers(
    ctx: &mut Context<'_>,
    sites: &[Arc<Site>],
    server: &Server,
    root: &At<'_>,
) {
    let sites_at = root.key("sites");
    for (index, site) in sites.iter().enumerate() {
        let Some(tunnel) = &site.tunnel else {
            continue;
        };
        if tunnel.kind != TunnelKind::PassThrough {
            continue;
        }
        let site_at = sites_at.index(index);
        let at = site_at.key(tunnel.kind.key());
        let upstream = &tunnel.proxy.upstream;
        let listeners = server.https.iter().chain(&site.listen);
        let listeners: Vec<SocketAddr> = listeners.filter_map(ListenAddress::ip).collect();
        for one in &upstream.servers {
            if let UpstreamAddress::Ip(address) = one.address
                && listeners
                    .iter()
                    .any(|listener| leads_to(address, *listener))
            {
                let message = format!(
                    "the upstream {} leads back to the gateway, which listens on {address}: each \
                     connection would lead to another one, without end",
                    quote(&upstream.name)
                );
                ctx.problems
                    .error(&at, message, "name the servers that terminate TLS");
            }
        }
        let probe = upstream.health.as_ref().map(|health| &health.probe);
        if probe.is_some_and(|probe| *probe != Probe::Tcp) {
            let message = format!(
                "the health check of the upstream {} sends requests without TLS, and its servers \
                 expect TLS",
                quote(&upstream.name)
            );
            let hint = "write 'health: { tcp: true }' there";
            ctx.problems.warn(&at, message, hint);
        }
    }
}

/// Whether a connection to `address` arrives at `listener`, as far as that can be told from the two.
fn leads_to(address: SocketAddr, listener: SocketAddr) -> bool {
    let (to, at) = (address.ip().to_canonical(), listener.ip());
    let is_own = to.is_loopback() || to.is_unspecified();
    let is_same_family = to.is_ipv4() == at.is_ipv4();
    address.port() == listener.port()
        && (to == at.to_canonical() || at.is_unspecified() && is_own && is_same_family)
}
