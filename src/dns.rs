//! TXT records that validate names, and the providers that set them.
//!
//! A [`DnsProvider`] sets and removes TXT records with one service or protocol. It knows nothing of
//! ACME: `challenge` says which record proves what. Programs implement it for services of their own.
//! [`stub`] looks up the addresses of servers.

mod acme_dns;
mod api;
mod cloudflare;
mod digitalocean;
mod exchange;
mod exec;
mod hetzner;
mod httpreq;
#[doc(hidden)]
pub mod lookup;
mod rfc2136;
mod route53;
pub(crate) mod stub;
mod zone_file;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use crate::config::model::{Dns, DnsService};
use crate::host::HostName;

#[doc(hidden)]
pub use acme_dns::AcmeDnsProvider;
#[doc(hidden)]
pub use cloudflare::CloudflareProvider;
#[doc(hidden)]
pub use digitalocean::DigitalOceanProvider;
#[doc(hidden)]
pub use exec::ExecProvider;
#[doc(hidden)]
pub use hetzner::HetznerProvider;
#[doc(hidden)]
pub use httpreq::HttpReqProvider;
#[doc(hidden)]
pub use rfc2136::Rfc2136Provider;
#[doc(hidden)]
pub use route53::Route53Provider;

/// A TXT record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TxtRecord {
    /// Its full name, `_acme-challenge.www.example.com`.
    pub name: HostName,
    /// Its only string, of at most 255 octets.
    pub value: String,
}

/// Sets and removes TXT records with one service or protocol.
///
/// Several records may share a name, since a name can be validated twice at a time: each call means
/// the record with exactly this value, and leaves the others of the name alone. A call may be dropped
/// before its end, or the process killed; [`Self::remove`] then undoes what [`Self::add`] had done by
/// that time, possibly in another process. Nothing needs to be remembered between the calls.
///
/// The calls need not wait until name servers return the record: whoever asks for it checks that.
#[async_trait]
pub trait DnsProvider: Send + Sync {
    /// Its name in messages and in the storage: the same in every process that shares the storage,
    /// and after a restart, so that records of a killed process can be removed.
    fn name(&self) -> &str;

    /// Whether it needs to know the zone of a record. If not, no zone is looked up and `zone` may be
    /// any name.
    fn needs_zone(&self) -> bool {
        true
    }

    /// Adds a record to `zone`, the nearest name at or above it with an SOA record. It is no error if
    /// the record exists.
    ///
    /// # Errors
    /// If the record cannot be added.
    async fn add(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError>;

    /// Removes a record from `zone`. It is no error if the record does not exist.
    ///
    /// # Errors
    /// If the record may still exist. The removal is tried again later.
    async fn remove(&self, zone: &HostName, record: &TxtRecord) -> Result<(), DnsError>;

    /// The values of the TXT records of `name` in `zone`; `None` where the provider cannot list
    /// them, which is the default.
    ///
    /// # Errors
    /// If it can list them, but failed.
    async fn list(
        &self,
        _zone: &HostName,
        _name: &HostName,
    ) -> Result<Option<Vec<String>>, DnsError> {
        Ok(None)
    }
}

/// Why a record was not added, removed or listed, for people: what is wrong, and what to do.
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
#[doc(hidden)]
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
