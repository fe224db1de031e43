//! Client certificates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Off;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum ClientAuth {
    Off(Off),
    On(ClientAuthOptions),
}

/// Which certificates clients present, and how they are verified.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientAuthOptions {
    /// `required`: the handshake fails without a valid certificate. `optional`: it fails with an
    /// invalid one, and succeeds without any. `off`: none is asked for.
    pub(crate) mode: ClientAuthMode,
    /// A PEM file with the roots that clients' certificates have to come from.
    pub(crate) ca: Option<String>,
    /// A file with the revocation lists of all these CAs and of those between them and the clients:
    /// in PEM, or one in DER. Without a list that is still valid, a client is refused.
    pub(crate) crl: Option<String>,
    /// The maximum number of CAs between a root and a client's certificate.
    #[schemars(range(max = 16))]
    pub(crate) depth: u64,
}

impl Default for ClientAuthOptions {
    fn default() -> Self {
        Self {
            mode: ClientAuthMode::Required,
            ca: None,
            crl: None,
            depth: 1,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum ClientAuthMode {
    Off,
    Optional,
    Required,
}

/// What a route says of client certificates.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum RouteClientAuth {
    Required,
}
