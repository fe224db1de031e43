//! TXT records that validate names, and the providers that set them.
//!
//! A [`DnsProvider`] sets and removes records with one service or protocol; it knows nothing of
//! ACME. `challenge` determines the record. [`open_provider`] makes the provider of an entry in the
//! configuration.

mod acme_dns;
mod api;
mod cloudflare;
mod digitalocean;
mod exchange;
mod exec;
mod hetzner;
mod httpreq;
pub mod lookup;
mod rfc2136;
mod route53;
mod zone_file;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use crate::config::model::{Dns, DnsService};
use crate::host::HostName;

pub use acme_dns::AcmeDnsProvider;
pub use cloudflare::CloudflareProvider;
pub use digitalocean::DigitalOceanProvider;
pub use exec::ExecProvider;
pub use hetzner::HetznerProvider;
pub use httpreq::HttpReqProvider;
pub use rfc2136::Rfc2136Provider;
pub use route53::Route53Provider;

/// A TXT record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TxtRecord {
    /// Its fully qualified name.
    pub name: HostName,
    /// Its only string, of at most 255 octets.
    pub value: String,
}

/// Sets and removes TXT records.
///
/// A name may have several records: a record always means this value, and other values of the name
/// are left alone. Each call may be dropped midway; [`Self::remove`] then undoes what was done.
#[async_trait]
pub trait DnsProvider: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// Returns true if calls need the zone of a record. Otherwise `zone` may be any name.
    fn needs_zone(&self) -> bool {
        true
    }

    /// Sets a record in `zone`, the nearest name at or above it with an SOA record. It is not an
    /// error if the record exists.
    ///
    /// # Errors
    /// If the record cannot be set.
    async fn add(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError>;

    /// Removes a record from `zone`. It is not an error if the record does not exist.
    ///
    /// # Errors
    /// If the record may still exist.
    async fn remove(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError>;

    /// The values of the TXT records at `name` in `zone`; `None` if the provider cannot list them.
    ///
    /// # Errors
    /// If the request fails.
    async fn list(&self, zone: &HostName, name: &HostName)
    -> Result<Option<Vec<String>>, DnsError>;
}

/// Why a record was not set, removed or found.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DnsError {
    /// It is unreachable, too slow or has problems of its own: a retry may succeed.
    #[error("{0}")]
    Unreachable(String),
    /// It refuses, and will until the configuration or the account is changed.
    #[error("{0}")]
    Refused(String),
}

/// The provider of an entry of `dns`. Does not contact it yet.
///
/// # Errors
/// If its roots cannot be read or its credentials cannot be sent.
pub fn open_provider(name: &str, dns: &Dns) -> Result<Arc<dyn DnsProvider>, DnsError> {
    Ok(match &dns.provider {
        DnsService::Rfc2136(config) => Arc::new(Rfc2136Provider::new(name, config, dns.ttl)?),
        DnsService::Cloudflare(config) => Arc::new(CloudflareProvider::new(name, config, dns)?),
        DnsService::Route53(config) => Arc::new(Route53Provider::new(name, config, dns)?),
        DnsService::DigitalOcean(config) => Arc::new(DigitalOceanProvider::new(name, config, dns)?),
        DnsService::Hetzner(config) => Arc::new(HetznerProvider::new(name, config, dns)?),
        DnsService::AcmeDns(config) => Arc::new(AcmeDnsProvider::new(name, config, dns)?),
        DnsService::HttpReq(config) => Arc::new(HttpReqProvider::new(name, config, dns)?),
        DnsService::Exec(config) => Arc::new(ExecProvider::new(name, config)),
        DnsService::Own => {
            let why = format!("the program has no DNS provider {name:?}");
            return Err(DnsError::Refused(why));
        }
    })
}
