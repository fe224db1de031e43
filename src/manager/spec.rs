//! The specification of a certificate: its names, and which issuers may issue it.

use std::sync::Arc;

use crate::certificate::sni::Precedence;
use crate::config::model::{Config, Issuer};
use crate::host::Pattern;

/// A certificate that an issuer is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CertSpec {
    pub(super) names: Vec<Pattern>,
    /// Tried in order.
    pub(super) issuers: Vec<Arc<str>>,
    /// The entry of `dns` over which to prove the names, where one is named.
    pub(super) dns: Option<Arc<str>>,
    pub(super) precedence: Precedence,
}

impl CertSpec {
    /// The first name, by which people know the certificate.
    pub(super) fn domain(&self) -> String {
        self.names
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}

/// Whether the first issuer is over the network. What the local CA makes is made at once.
pub(super) fn is_remote(spec: &CertSpec, config: &Config) -> bool {
    let first = spec.issuers.first();
    first.is_some_and(|name| is_acme(name, config))
}

/// Whether an issuer is a CA with ACME.
pub(super) fn is_acme(issuer: &Arc<str>, config: &Config) -> bool {
    matches!(config.issuers.get(issuer), Some(Issuer::Acme(_)))
}
