//! The specification of a certificate: its names, and which issuers may issue it.

use std::sync::Arc;

use crate::certificate::Change;
use crate::certificate::sni::Precedence;
use crate::config::model::{Config, Issuer};
use crate::host::{HostName, Pattern};

/// A certificate to be obtained from an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CertSpec {
    pub(crate) names: Vec<Pattern>,
    /// Tried in order.
    pub(crate) issuers: Vec<Arc<str>>,
    /// The entry of `dns` over which to prove the names, where one is named.
    pub(crate) dns: Option<Arc<str>>,
    pub(crate) precedence: Precedence,
}

/// A change of the certificate that a specification asks for.
pub(crate) type SpecChange = (CertSpec, Change);

impl CertSpec {
    /// The first name, by which people know the certificate.
    pub(crate) fn domain(&self) -> String {
        self.names
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// The name that a client has asked for; `None` where the configuration asks for the
    /// certificate.
    pub(crate) fn on_demand_name(&self) -> Option<&HostName> {
        match (self.precedence, self.names.as_slice()) {
            (Precedence::OnDemand, [Pattern::Exact(name)]) => Some(name),
            _ => None,
        }
    }
}

/// Whether the first issuer is asked by jobs. The local CA issues at once.
pub(crate) fn is_remote(spec: &CertSpec, config: &Config) -> bool {
    let first = spec.issuers.first();
    first.is_some_and(|name| is_remote_issuer(name, config))
}

/// Whether an issuer takes its time and is asked by jobs: an ACME CA, or one of the program's own.
pub(crate) fn is_remote_issuer(issuer: &Arc<str>, config: &Config) -> bool {
    matches!(
        config.issuers.get(issuer),
        Some(Issuer::Acme(_) | Issuer::Own)
    )
}
