//! Who may have what is served.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Off;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum BasicAuth {
    Off(Off),
    On(BasicAuthOptions),
}

/// A user name and a password for each client (RFC 7617).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["users_file"]))]
pub(crate) struct BasicAuthOptions {
    /// A file with a line `NAME:HASH` for each user, as `htpasswd -B` writes it. A hash is one of
    /// bcrypt or of SHA-crypt.
    pub(crate) users_file: String,
    /// What browsers show to their users.
    pub(crate) realm: String,
}

impl Default for BasicAuthOptions {
    fn default() -> Self {
        Self {
            users_file: String::new(),
            realm: "Restricted".to_owned(),
        }
    }
}
