//! Who may have what is served.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Off};

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

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum ForwardAuth {
    Off(Off),
    On(ForwardAuthOptions),
}

/// A service that is asked about each request.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct ForwardAuthOptions {
    /// Where it is asked, by GET. A response of 2xx lets the request pass; the client gets any other
    /// response.
    pub(crate) url: String,
    /// Fields of its response that the server gets, in place of the client's own.
    pub(crate) copy_headers: Vec<String>,
    /// How long a response may take. Without one the request is refused.
    pub(crate) timeout: Duration,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
}

impl Default for ForwardAuthOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            copy_headers: Vec::new(),
            timeout: Duration::new("5s"),
            ca_file: None,
        }
    }
}
