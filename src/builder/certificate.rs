//! A certificate that is obtained and renewed.

use super::values::texts;
use crate::config::schema;

/// A certificate to obtain and to renew, see [`EngineBuilder::certificate`].
///
/// [`EngineBuilder::certificate`]: super::EngineBuilder::certificate
#[derive(Clone, Debug)]
#[must_use]
pub struct ManagedCertificate {
    names: Vec<String>,
    issuers: Option<Vec<String>>,
    dns: Option<String>,
}

impl ManagedCertificate {
    /// One certificate with these names: host names, wildcards (`*.example.com`), IP addresses.
    pub fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Self {
        Self {
            names: texts(names),
            issuers: None,
            dns: None,
        }
    }

    /// Asks these issuers, by their names in the builder: the next one if one fails. By default the
    /// first issuer of the builder alone.
    pub fn issuers<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.issuers = Some(texts(names));
        self
    }

    /// Proves the names over the DNS, with the provider of this name in the builder.
    pub fn dns(mut self, name: &str) -> Self {
        self.dns = Some(name.to_owned());
        self
    }

    pub(super) fn into_raw(self) -> schema::Certificate {
        schema::Certificate {
            names: Some(self.names),
            issuer: self.issuers.map(schema::Names::Several),
            dns: self.dns,
            ..schema::Certificate::default()
        }
    }
}
