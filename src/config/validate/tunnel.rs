//! `pass_through` and `tcp` of sites: connections that are passed on octet by octet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::references::{self, Upstreams};
use super::retries::retries;
use super::value::{FOREVER, MOMENT};
use crate::config::model::{Action, Proxy, Site, SiteTls, Tls, Tunnel, TunnelKind, UpstreamTls};
use crate::config::problem::{At, quote};
use crate::config::schema;
use crate::host::Pattern;

/// The keys of a site that are for requests.
const OF_REQUESTS: [&str; 10] = [
    "routes",
    "upstream",
    "hsts",
    "compress",
    "error_pages",
    "maintenance",
    "basic_auth",
    "forward_auth",
    "jwt",
    "rate_limit",
];

/// The keys that are for a TLS connection of the gateway's own.
const OF_TLS: [&str; 2] = ["tls", "client_auth"];

/// How connections of a site are passed on, if they are. `general` is what all sites have of TLS.
pub(super) fn tunnel(
    ctx: &mut Context<'_>,
    site: &schema::Site,
    tls: &SiteTls,
    general: &Tls,
    upstreams: &Upstreams,
    at: &At<'_>,
) -> Option<Arc<Tunnel>> {
    let (kind, raw) = match (&site.pass_through, &site.tcp) {
        (None, None) => return None,
        (Some(raw), None) => (TunnelKind::PassThrough, raw),
        (None, Some(raw)) => (TunnelKind::Tcp, raw),
        (Some(_), Some(_)) => {
            let message = "'pass_through' and 'tcp' exclude each other";
            let hint = "keep 'tcp' if the gateway is to terminate TLS";
            ctx.problems.error(&at.key("tcp").at_key(), message, hint);
            return None;
        }
    };
    refuse_keys(ctx, kind, at);
    match kind {
        TunnelKind::PassThrough => check_names(ctx, site, general, at),
        TunnelKind::Tcp if *tls == SiteTls::Off => {
            let message = "'tcp' needs TLS, in which clients say which site they want";
            let hint = "remove 'tls: off'";
            ctx.problems.error(&at.key("tls"), message, hint);
        }
        TunnelKind::Tcp => {}
    }
    let own_at = at.key(kind.key());
    let default = schema::TunnelOptions::default();
    let (name, options, upstream_at) = match raw {
        schema::Tunnel::Upstream(name) => (name.as_str(), &default, at.key(kind.key())),
        schema::Tunnel::Options(options) => (&*options.upstream, options, own_at.key("upstream")),
    };
    let connect_at = own_at.key("connect");
    let connect = ctx.duration(&connect_at, &options.connect, MOMENT, FOREVER);
    let idle = ctx.duration(&own_at.key("idle"), &options.idle, MOMENT, FOREVER);
    let total_at = own_at.key("total");
    let total = ctx.duration(&total_at, &options.total, Duration::ZERO, FOREVER);
    let upstream = references::upstream(ctx, &upstream_at, name, upstreams)?;
    if kind == TunnelKind::PassThrough && upstream.tls != UpstreamTls::Off {
        let message = format!(
            "the upstream {} has 'tls', and would get TLS within TLS",
            upstream_at.quoted()
        );
        let hint = "use an upstream without 'tls': what clients send is TLS already";
        ctx.problems.error(&upstream_at, message, hint);
    }
    Some(Arc::new(Tunnel {
        kind,
        proxy: Proxy {
            upstream,
            connect_timeout: connect,
            read_timeout: idle,
            send_timeout: idle,
            total_timeout: Some(total).filter(|total| !total.is_zero()),
            max_body: None,
            retries: retries(ctx, None, &own_at),
        },
        idle,
    }))
}

/// Warns of servers that some clients reach past the rules of the sites in front of them, and of
/// certificates that are asked for and decide nothing.
pub(super) fn warn_unguarded(ctx: &mut Context<'_>, sites: &[Arc<Site>], root: &At<'_>) {
    if sites.iter().all(|site| site.tunnel.is_none()) {
        return;
    }
    let mut guarded: HashMap<&str, usize> = HashMap::new();
    for (index, site) in sites.iter().enumerate() {
        let policy = site.tls_policy.as_ref();
        let asks = policy.is_some_and(|policy| policy.client_auth.is_some());
        for route in site.routes.iter() {
            let has_rules = asks || route.access.is_some() || route.needs_certificate;
            if let (true, Action::Proxy(proxy)) = (has_rules, &route.action) {
                guarded.entry(&proxy.upstream.name).or_insert(index);
            }
        }
    }
    let sites_at = root.key("sites");
    for (index, site) in sites.iter().enumerate() {
        let Some(tunnel) = &site.tunnel else {
            continue;
        };
        let site_at = sites_at.index(index);
        let at = site_at.key(tunnel.kind.key());
        let policy = site.tls_policy.as_ref();
        let asks = policy.and_then(|policy| policy.client_auth.as_ref());
        if asks.is_some_and(|asks| !asks.is_required) {
            let message = "'client_auth' with 'mode: optional' protects nothing with 'tcp': clients \
                           without a certificate are passed on, and servers do not learn who has one";
            let hint = "write 'mode: required', or 'client_auth: off'";
            ctx.problems.warn(&at, message, hint);
        }
        let name = &*tunnel.proxy.upstream.name;
        if let Some(other) = guarded.get(name) {
            let message = format!(
                "clients reach the upstream {} here past the access rules of sites[{other}]: they \
                 may name its host, and send what they like as fields of a proxy",
                quote(name)
            );
            let hint = "use an upstream of its own, whose servers trust nothing that the gateway \
                        passes on";
            ctx.problems.warn(&at, message, hint);
        }
    }
}

/// Refuses the keys of a site that have no meaning for its connections.
fn refuse_keys(ctx: &mut Context<'_>, kind: TunnelKind, at: &At<'_>) {
    let own = kind.key();
    for key in OF_REQUESTS {
        let at = at.key(key);
        if at.is_written() {
            let message = format!("'{key}' is about requests, and a site with '{own}' has none");
            let hint = format!("remove it, or '{own}'");
            ctx.problems.error(&at.at_key(), message, hint);
        }
    }
    for key in OF_TLS {
        let at = at.key(key);
        if kind == TunnelKind::PassThrough && at.is_written() {
            let message =
                format!("'{key}' has no meaning with 'pass_through': the servers terminate TLS");
            let hint = "remove it, or write 'tcp' for the gateway to terminate TLS";
            ctx.problems.error(&at.at_key(), message, hint);
        }
    }
}

/// Checks that clients can request the hosts, and that nobody relies on what they do not get.
fn check_names(ctx: &mut Context<'_>, site: &schema::Site, general: &Tls, at: &At<'_>) {
    let hosts_at = at.key("hosts");
    for (index, host) in site.hosts.iter().enumerate() {
        if let Ok(Pattern::Ip(_)) = host.parse() {
            let at = hosts_at.index(index);
            let message = format!(
                "connections cannot be passed through for {}: clients name no address",
                at.quoted()
            );
            ctx.problems.error(&at, message, "give a host name");
        }
    }
    let asks = general.policy.as_ref();
    if asks.is_some_and(|policy| policy.client_auth.is_some()) {
        let message = "'tls.client_auth' does not protect this site: its servers terminate TLS";
        let hint = "have the servers ask for certificates, or write 'tcp'";
        ctx.problems.warn(&at.key("pass_through"), message, hint);
    }
}
