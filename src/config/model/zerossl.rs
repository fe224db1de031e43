//! What is configured for ZeroSSL beyond ACME.

use crate::secret::Secret;

/// ZeroSSL's own API, which gives keys for external account binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroSsl {
    /// The URL of it, without a path as a rule.
    pub endpoint: String,
    pub login: ZeroSslLogin,
}

/// How ZeroSSL knows whom it gives a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZeroSslLogin {
    ApiKey(Secret),
    Email(String),
}
