//! Which certificate answers which server name.

use std::net::IpAddr;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::SslRef;

use crate::certificate::TlsCertificate;

/// The certificates of one name, at most one of each kind of key.
pub struct CertificateSet {
    pub by_kind: Vec<Arc<TlsCertificate>>,
}

impl CertificateSet {
    /// Whether each certificate of this set is valid for `host`, a name in normal form.
    pub fn covers(&self, host: &str) -> bool {
        self.by_kind.iter().all(|certificate| certificate.covers(host))
    }

    /// Whether each certificate of this set is valid for `address`.
    pub fn covers_ip(&self, address: IpAddr) -> bool {
        self.by_kind
            .iter()
            .all(|certificate| certificate.addresses().contains(&address))
    }

    /// Hands every certificate to one handshake; OpenSSL takes the one that the client can use.
    pub fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        self.by_kind.iter().try_for_each(|certificate| certificate.apply(ssl))
    }
}

/// Makes certificates for names that no certificate at hand covers.
pub trait OnDemand: Send + Sync {
    /// The certificate for `host`, a name in normal form; `None` where the policy or the issuer
    /// refuses. Called in a handshake: must not block on I/O.
    fn certificate(&self, host: &str) -> Option<Arc<CertificateSet>>;
}

/// An immutable map from server names to certificates.
#[derive(Default)]
pub struct SniMap {}

impl SniMap {
    /// The certificates for `host`, a name in normal form: of that very name, else of the
    /// wildcard over its first label.
    pub fn lookup(&self, _host: &str) -> Option<&Arc<CertificateSet>> {
        None
    }

    /// The certificates for clients that name no host, or one that is unknown.
    pub fn default_set(&self) -> Option<&Arc<CertificateSet>> {
        None
    }

    /// Who makes certificates for names that are not in the map.
    pub fn on_demand(&self) -> Option<&Arc<dyn OnDemand>> {
        None
    }
}
