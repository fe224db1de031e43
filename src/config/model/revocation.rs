//! How it is learned whether served certificates are revoked.

use http::Uri;

/// How it is learned whether served certificates are revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whether OCSP responders are asked, and their responses stapled.
    pub ocsp: bool,
    /// Whether revocation lists are searched.
    pub crl: bool,
    /// A proxy to reach both through, `http://HOST:PORT`; `None` for that of a certificate's issuer.
    pub proxy: Option<Uri>,
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
