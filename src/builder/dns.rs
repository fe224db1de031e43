//! DNS providers, as a program names them.

use std::sync::Arc;
use std::time::Duration;

use super::EngineBuilder;
use super::values::{duration, secret, texts};
use crate::config::schema;
use crate::dns::DnsProvider;

/// Where DNS records are set, and how the engine sees that they are there. A [`DnsProvider`] of the
/// program's own turns into one with the usual settings.
#[must_use]
pub struct DnsSettings {
    raw: schema::Dns,
    own: Option<Arc<dyn DnsProvider>>,
}

impl<P: DnsProvider + 'static> From<P> for DnsSettings {
    fn from(provider: P) -> Self {
        Self::own(provider)
    }
}

impl DnsSettings {
    /// The program's own provider.
    pub fn own(provider: impl DnsProvider + 'static) -> Self {
        let raw = schema::Dns {
            is_own: true,
            ..schema::Dns::default()
        };
        Self {
            raw,
            own: Some(Arc::new(provider)),
        }
    }

    /// Cloudflare, by an API token with the permissions Zone: Read and DNS: Edit.
    pub fn cloudflare(api_token: &str) -> Self {
        Self::of(schema::Dns {
            cloudflare: Some(schema::Cloudflare {
                api_token: Some(secret(api_token)),
                ..schema::Cloudflare::default()
            }),
            ..schema::Dns::default()
        })
    }

    /// Amazon Route 53, by an access key.
    pub fn route53(access_key_id: &str, secret_access_key: &str) -> Self {
        Self::of(schema::Dns {
            route53: Some(schema::Route53 {
                access_key_id: access_key_id.to_owned(),
                secret_access_key: Some(secret(secret_access_key)),
                ..schema::Route53::default()
            }),
            ..schema::Dns::default()
        })
    }

    /// DigitalOcean, by a personal access token that may read, create and delete domains.
    pub fn digitalocean(api_token: &str) -> Self {
        Self::of(schema::Dns {
            digitalocean: Some(schema::DigitalOcean {
                api_token: Some(secret(api_token)),
                ..schema::DigitalOcean::default()
            }),
            ..schema::Dns::default()
        })
    }

    /// Hetzner's cloud console, by an API token of the project that the zone is in.
    pub fn hetzner(api_token: &str) -> Self {
        Self::of(schema::Dns {
            hetzner: Some(schema::Hetzner {
                api_token: Some(secret(api_token)),
                ..schema::Hetzner::default()
            }),
            ..schema::Dns::default()
        })
    }

    /// A name server with dynamic updates (RFC 2136) at `ADDRESS:PORT` or `NAME:PORT`, with updates
    /// signed by a TSIG key (HMAC-SHA-256) of this name and value, in base64.
    pub fn rfc2136(server: &str, tsig_name: &str, tsig_secret: &str) -> Self {
        Self::of(schema::Dns {
            rfc2136: Some(schema::Rfc2136 {
                server: server.to_owned(),
                tsig_name: Some(tsig_name.to_owned()),
                tsig_secret: Some(secret(tsig_secret)),
                ..schema::Rfc2136::default()
            }),
            ..schema::Dns::default()
        })
    }

    /// Resolvers to ask instead of the system's, `ADDRESS:PORT`.
    pub fn resolvers<N: AsRef<str>>(mut self, addresses: impl IntoIterator<Item = N>) -> Self {
        self.raw.resolvers = texts(addresses);
        self
    }

    /// The time to live of the records, in seconds: 60 by default.
    pub fn ttl(mut self, seconds: u32) -> Self {
        self.raw.ttl = seconds.into();
        self
    }

    /// How long the zone's name servers may take until all of them return a record: 2 min by
    /// default. Only then the CA is asked to look.
    pub fn propagation_timeout(mut self, timeout: Duration) -> Self {
        if let schema::Propagation::Checked(check) = &mut self.raw.propagation {
            check.timeout = duration(timeout);
        }
        self
    }

    /// Asks the CA to look at once, without checking that a record can be seen.
    pub fn without_propagation_check(mut self) -> Self {
        self.raw.propagation = schema::Propagation::Off(schema::Off::Off);
        self
    }

    fn of(raw: schema::Dns) -> Self {
        Self { raw, own: None }
    }

    /// What the program's own provider calls itself.
    pub(super) fn own_name(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.name())
    }
}

impl EngineBuilder {
    /// Adds a provider to `dns`.
    pub(super) fn add_dns(&mut self, name: &str, settings: DnsSettings) {
        if let Some(own) = settings.own_name().filter(|own| *own != name) {
            self.mistakes.push(format!(
                "dns.{name}: the DNS provider calls itself {own:?}; add it by that name"
            ));
        }
        let DnsSettings { raw, own } = settings;
        self.raw.dns.insert(name.to_owned(), raw);
        self.own.dns.extend(own.map(|own| (Arc::from(name), own)));
    }
}
