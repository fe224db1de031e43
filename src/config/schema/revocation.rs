//! `revocation`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How it is learned whether served certificates are revoked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Revocation {
    /// Whether the OCSP responders that certificates name are asked, and their responses are stapled
    /// to handshakes.
    pub(crate) ocsp: bool,
    /// Whether the revocation lists that certificates name are searched for them.
    pub(crate) crl: bool,
    /// A proxy to reach both through, `http://HOST:PORT`. By default that of the issuer, for a
    /// certificate that has one.
    pub(crate) proxy: Option<String>,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            ocsp: true,
            crl: true,
            proxy: None,
        }
    }
}
