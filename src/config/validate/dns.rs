//! `dns`: where records are set. No provider is contacted.

mod service;

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::client::{dns_servers, http_proxy, roots};
use super::context::Context;
use crate::config::model::{Dns, DnsService, Propagation};
use crate::config::problem::At;
use crate::config::schema;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The keys of an entry that are a provider.
const PROVIDERS: &str =
    "rfc2136, cloudflare, route53, digitalocean, hetzner, acme_dns, httpreq, exec";

pub(super) fn dns(ctx: &mut Context<'_>, root: &At<'_>) -> IndexMap<Arc<str>, Arc<Dns>> {
    let raw = ctx.raw;
    let section = root.key("dns");
    let mut entries = IndexMap::with_capacity(raw.dns.len());
    for (name, raw_entry) in &raw.dns {
        let at = section.key(name);
        ctx.check_name(&at, name);
        if let Some(dns) = entry(ctx, raw_entry, &at) {
            entries.insert(Arc::from(name.as_str()), Arc::new(dns));
        }
    }
    entries
}

fn entry(ctx: &mut Context<'_>, raw: &schema::Dns, at: &At<'_>) -> Option<Dns> {
    let services = [
        raw.rfc2136
            .as_ref()
            .map(|raw| service::rfc2136(ctx, raw, &at.key("rfc2136"))),
        raw.cloudflare
            .as_ref()
            .map(|raw| service::cloudflare(ctx, raw, &at.key("cloudflare"))),
        raw.route53
            .as_ref()
            .map(|raw| service::route53(ctx, raw, &at.key("route53"))),
        raw.digitalocean
            .as_ref()
            .map(|raw| service::digitalocean(ctx, raw, &at.key("digitalocean"))),
        raw.hetzner
            .as_ref()
            .map(|raw| service::hetzner(ctx, raw, &at.key("hetzner"))),
        raw.acme_dns
            .as_ref()
            .map(|raw| service::acme_dns(ctx, raw, &at.key("acme_dns"))),
        raw.httpreq
            .as_ref()
            .map(|raw| service::httpreq(ctx, raw, &at.key("httpreq"))),
        raw.exec
            .as_ref()
            .map(|raw| service::exec(ctx, raw, &at.key("exec"))),
        raw.is_own.then_some(Some(DnsService::Own)),
    ];
    let without_https = raw.rfc2136.is_some() || raw.exec.is_some();
    for (key, given) in [
        ("ca_file", raw.ca_file.is_some()),
        ("proxy", raw.proxy.is_some()),
    ] {
        if given && without_https {
            let message = format!("'{key}' has no meaning here: this provider does not use HTTPS");
            ctx.problems
                .error(&at.key(key).at_key(), message, "remove it");
        }
    }
    let propagation = match &raw.propagation {
        schema::Propagation::Off(_) => None,
        schema::Propagation::Checked(raw) => Some(propagation(ctx, raw, &at.key("propagation"))),
    };
    let resolvers = dns_servers(ctx, &at.key("resolvers"), &raw.resolvers);
    let ca_file = raw
        .ca_file
        .as_deref()
        .filter(|_| !without_https)
        .map(|path| roots(ctx, &at.key("ca_file"), path));
    let proxy = raw
        .proxy
        .as_deref()
        .and_then(|proxy| http_proxy(ctx, &at.key("proxy"), proxy));
    let mut services = services.into_iter().flatten();
    let provider = services.next();
    if provider.is_none() {
        let hint = format!("give exactly one of {PROVIDERS}");
        ctx.problems.error(at, "the entry names no provider", hint);
    } else if services.next().is_some() {
        let message = "the entry names more than one provider";
        ctx.problems
            .error(at, message, "make a separate entry for each");
    }
    Some(Dns {
        provider: provider.flatten()?,
        ttl: u32::try_from(raw.ttl).unwrap_or(u32::MAX),
        resolvers,
        propagation,
        ca_file,
        proxy,
    })
}

fn propagation(ctx: &mut Context<'_>, raw: &schema::PropagationCheck, at: &At<'_>) -> Propagation {
    const TENTH: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(600);
    Propagation {
        servers: dns_servers(ctx, &at.key("servers"), &raw.servers),
        timeout: ctx.duration(&at.key("timeout"), &raw.timeout, SECOND, HOUR),
        interval: ctx.duration(&at.key("interval"), &raw.interval, TENTH, LONGEST),
        wait: ctx.duration(&at.key("wait"), &raw.wait, Duration::ZERO, HOUR),
    }
}
