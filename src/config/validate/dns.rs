//! `dns`: where records are set. No provider is asked here.

mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::Validator;
use crate::config::model::{Config, Dns, Propagation};
use crate::config::problem::{At, quote};
use crate::config::schema;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The keys of an entry that are a provider.
const PROVIDERS: &str =
    "rfc2136, cloudflare, route53, digitalocean, hetzner, acme_dns, httpreq, exec";

impl Validator<'_> {
    pub(super) fn dns(
        &mut self,
        raw: &schema::Root,
        root: &At<'_>,
    ) -> IndexMap<Arc<str>, Arc<Dns>> {
        let section = root.key("dns");
        let mut entries = IndexMap::with_capacity(raw.dns.len());
        for (name, entry) in &raw.dns {
            let at = section.key(name);
            self.name(&at, name);
            if let Some(dns) = self.dns_entry(entry, &at) {
                entries.insert(Arc::from(name.as_str()), Arc::new(dns));
            }
        }
        entries
    }

    /// An entry of `dns` that something names.
    pub(super) fn dns_name(
        &mut self,
        at: &At<'_>,
        name: &str,
        raw: &schema::Root,
    ) -> Option<Arc<str>> {
        if raw.dns.contains_key(name) {
            let name: Arc<str> = Arc::from(name);
            self.used_dns.insert(Arc::clone(&name));
            return Some(name);
        }
        let known = raw.dns.keys().map(String::as_str);
        self.report_dangling(at, "entry in 'dns'", "dns", known, name);
        None
    }

    /// Warns of entries that nothing names. A single one need not be named.
    pub(super) fn odd_dns(&mut self, config: &Config, root: &At<'_>) {
        let section = root.key("dns");
        for name in config.dns.keys() {
            if config.dns.len() > 1 && !self.used_dns.contains(name) {
                let message = format!("nothing uses the entry {}", quote(name));
                let hint = "remove it, or name it in the 'dns' of an issuer or a certificate";
                self.problems
                    .warn(&section.key(name).at_key(), message, hint);
            }
        }
    }

    fn dns_entry(&mut self, raw: &schema::Dns, at: &At<'_>) -> Option<Dns> {
        let services = [
            raw.rfc2136
                .as_ref()
                .map(|raw| self.rfc2136(raw, &at.key("rfc2136"))),
            raw.cloudflare
                .as_ref()
                .map(|raw| self.cloudflare(raw, &at.key("cloudflare"))),
            raw.route53
                .as_ref()
                .map(|raw| self.route53(raw, &at.key("route53"))),
            raw.digitalocean
                .as_ref()
                .map(|raw| self.digitalocean(raw, &at.key("digitalocean"))),
            raw.hetzner
                .as_ref()
                .map(|raw| self.hetzner(raw, &at.key("hetzner"))),
            raw.acme_dns
                .as_ref()
                .map(|raw| self.acme_dns(raw, &at.key("acme_dns"))),
            raw.httpreq
                .as_ref()
                .map(|raw| self.httpreq(raw, &at.key("httpreq"))),
            raw.exec
                .as_ref()
                .map(|raw| self.dns_exec(raw, &at.key("exec"))),
        ];
        let without_https = raw.rfc2136.is_some() || raw.exec.is_some();
        for (key, given) in [
            ("ca_file", raw.ca_file.is_some()),
            ("proxy", raw.proxy.is_some()),
        ] {
            if given && without_https {
                let message =
                    format!("'{key}' has no meaning here: this provider does not use HTTPS");
                self.problems
                    .error(&at.key(key).at_key(), message, "remove it");
            }
        }
        let propagation = match &raw.propagation {
            schema::Propagation::Off(_) => None,
            schema::Propagation::Checked(raw) => {
                Some(self.propagation(raw, &at.key("propagation")))
            }
        };
        let resolvers = self.dns_addresses(&raw.resolvers, &at.key("resolvers"));
        let ca_file = raw
            .ca_file
            .as_deref()
            .filter(|_| !without_https)
            .map(|path| self.roots(&at.key("ca_file"), path));
        let proxy = raw
            .proxy
            .as_deref()
            .and_then(|proxy| self.http_proxy(&at.key("proxy"), proxy));
        let mut services = services.into_iter().flatten();
        let provider = services.next();
        if provider.is_none() {
            let hint = format!("give exactly one of {PROVIDERS}");
            self.problems.error(at, "the entry names no provider", hint);
        } else if services.next().is_some() {
            let message = "the entry names more than one provider";
            self.problems
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

    fn propagation(&mut self, raw: &schema::PropagationCheck, at: &At<'_>) -> Propagation {
        const TENTH: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(600);
        Propagation {
            servers: self.dns_addresses(&raw.servers, &at.key("servers")),
            timeout: self.duration(&at.key("timeout"), &raw.timeout, SECOND, HOUR),
            interval: self.duration(&at.key("interval"), &raw.interval, TENTH, LONGEST),
            wait: self.duration(&at.key("wait"), &raw.wait, Duration::ZERO, HOUR),
        }
    }

    /// Addresses of servers that are asked by the protocol of the DNS.
    pub(super) fn dns_addresses(&mut self, raw: &[String], at: &At<'_>) -> Vec<SocketAddr> {
        let mut addresses = Vec::with_capacity(raw.len());
        for (index, text) in raw.iter().enumerate() {
            let at = at.index(index);
            let address = text.parse::<SocketAddr>();
            match address.ok().filter(|address| address.port() != 0) {
                Some(address) => addresses.push(address),
                None => {
                    let message = format!("{} is not an address with a port", at.quoted());
                    let hint = "write ADDRESS:PORT, such as 10.0.0.53:53 or [2001:db8::53]:53";
                    self.problems.error(&at, message, hint);
                }
            }
        }
        addresses
    }
}
