//! ACME CAs: how they are reached, what is requested in orders, and the account.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::secret::Secret;

/// A CA with ACME, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of its directory.
    pub directory: String,
    /// The URL of the directory of its staging environment, if it is known to have one: used first
    /// after an order has failed.
    pub staging: Option<String>,
    pub email: Option<String>,
    /// Those for which there is a listener, most preferred first. Never empty.
    pub challenges: Vec<ChallengeType>,
    /// The entry of [`Config::dns`](super::Config::dns) for certificates that name none.
    pub dns: Option<Arc<str>>,
    /// What is requested in orders besides the names.
    pub order: OrderTerms,
    pub key_type: KeyType,
    /// Whether a renewed certificate keeps the key of its predecessor.
    pub reuse_key: bool,
    /// Roots to trust for the directory instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    pub eab: Option<ExternalAccount>,
    /// The source of the key for external account binding, instead of `eab`.
    pub zerossl: Option<ZeroSsl>,
    /// A proxy to the CA, `http://HOST:PORT`.
    pub proxy: Option<Uri>,
    pub order_limit: OrderLimit,
    /// Whether CAA records are looked up before an order.
    pub check_caa: bool,
    /// The name servers for lookups; if empty, the system's.
    pub resolvers: Vec<SocketAddr>,
}

/// A method of validating a name (RFC 8555, section 8; RFC 8737; draft-ietf-acme-dns-account-label;
/// draft-ietf-acme-dns-persist).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChallengeType {
    Http01,
    TlsAlpn01,
    Dns01,
    DnsAccount01,
    DnsPersist01,
}

impl ChallengeType {
    /// Every type.
    pub const ALL: [Self; 5] = [
        Self::Http01,
        Self::TlsAlpn01,
        Self::Dns01,
        Self::DnsAccount01,
        Self::DnsPersist01,
    ];

    /// The name in ACME.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
            Self::DnsAccount01 => "dns-account-01",
            Self::DnsPersist01 => "dns-persist-01",
        }
    }

    /// Returns true if the response is a DNS record: it needs no listener, and can validate
    /// wildcards.
    pub fn is_over_dns(self) -> bool {
        match self {
            Self::Http01 | Self::TlsAlpn01 => false,
            Self::Dns01 | Self::DnsAccount01 | Self::DnsPersist01 => true,
        }
    }
}

/// The kind of the key of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    P256,
    P384,
    Rsa2048,
    Rsa4096,
    Ed25519,
}

/// External account binding (RFC 8555, section 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    pub key_id: String,
    /// The MAC key in base64url without padding.
    pub hmac_key: Secret,
}

/// How many orders may be started in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderLimit {
    pub orders: u32,
    pub per: Duration,
}

/// What is requested in an order besides its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderTerms {
    pub profile: Option<Profile>,
    /// The chain to use if the CA offers several.
    pub preferred_chain: Option<PreferredChain>,
    /// How long the certificate should be valid.
    pub lifetime: Option<Duration>,
    /// Whether the first name is also the common name.
    pub common_name: bool,
    /// Whether the certificate has the TLS feature `status_request` (RFC 7633).
    pub must_staple: bool,
}

/// A profile of a CA (draft-ietf-acme-profiles).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// Whether a CA that does not have it is not asked at all.
    pub required: bool,
}

/// Which of several chains of a certificate is used (RFC 8555, section 7.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreferredChain {
    /// One with a certificate issued by an authority of this common name.
    Issuer(String),
    /// One that leads to a root of this common name.
    Root(String),
    /// The one with the fewest certificates.
    Shortest,
}

/// ZeroSSL's own API, which provides keys for external account binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroSsl {
    /// Its URL, usually without a path.
    pub endpoint: String,
    pub login: ZeroSslLogin,
}

/// How ZeroSSL identifies the account to bind to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZeroSslLogin {
    ApiKey(Secret),
    Email(String),
}
