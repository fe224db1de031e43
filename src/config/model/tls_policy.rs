//! What a site demands of the TLS connections that its requests arrive on, beyond what is the same
//! for all sites.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use openssl::sha::Sha256;
use openssl::x509::X509;
use openssl::x509::store::X509Store;

/// The demands of a site on its connections. Sessions, connections and requests of one policy are
/// never taken for those of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// `None` if clients are not asked for a certificate.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// `None` for those of all sites, as of the rest.
    pub versions: Option<RangeInclusive<TlsVersion>>,
    pub ciphers: Option<Ciphers>,
    /// The protocols to offer by ALPN, most preferred first.
    pub protocols: Option<Box<[&'static str]>>,
    /// If connections are passed on once TLS is terminated, for which site and in which protocols.
    pub tunnel: Option<TunnelPolicy>,
    digest: [u8; 32],
}

impl TlsPolicy {
    /// A policy of these demands; `None` if there is none.
    pub fn new(
        client_auth: Option<Arc<ClientAuth>>,
        versions: Option<RangeInclusive<TlsVersion>>,
        ciphers: Option<Ciphers>,
        protocols: Option<Box<[&'static str]>>,
    ) -> Option<Self> {
        if client_auth.is_none() && versions.is_none() && ciphers.is_none() && protocols.is_none() {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(format!("{versions:?} {ciphers:?} {protocols:?}").as_bytes());
        if let Some(client_auth) = &client_auth {
            hash.update(&client_auth.digest);
        }
        Some(Self {
            client_auth,
            versions,
            ciphers,
            protocols,
            tunnel: None,
            digest: hash.finish(),
        })
    }

    /// The policy of a site whose connections are passed on, with the demands of `policy` if it has
    /// others.
    pub fn for_tunnel(policy: Option<Self>, tunnel: TunnelPolicy) -> Self {
        let mut hash = Sha256::new();
        hash.update(format!("{tunnel:?}").as_bytes());
        if let Some(policy) = &policy {
            hash.update(&policy.digest);
        }
        let policy = policy.unwrap_or(Self {
            client_auth: None,
            versions: None,
            ciphers: None,
            protocols: None,
            tunnel: None,
            digest: [0; 32],
        });
        Self {
            tunnel: Some(tunnel),
            digest: hash.finish(),
            ..policy
        }
    }

    /// What is equal only for equal demands, the content of files included.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// What belongs to connections that are passed on once TLS is terminated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPolicy {
    /// The first host of the site, which is its name.
    pub site: Arc<str>,
    /// The protocols to offer by ALPN, most preferred first; `None` to negotiate none.
    pub protocols: Option<Box<[Box<str>]>>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl TlsVersion {
    /// Every version that there is.
    pub const ALL: RangeInclusive<Self> = Self::Tls12..=Self::Tls13;

    /// The name that people use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        }
    }
}

/// Cipher suites by OpenSSL's names, most preferred first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphers {
    /// For TLS 1.2; empty if that is not spoken.
    pub tls12: Vec<&'static str>,
    /// For TLS 1.3; empty if that is not spoken.
    pub tls13: Vec<&'static str>,
}

impl Ciphers {
    /// Those of one version.
    pub fn of(&self, version: TlsVersion) -> &[&'static str] {
        match version {
            TlsVersion::Tls12 => &self.tls12,
            TlsVersion::Tls13 => &self.tls13,
        }
    }
}

/// Which certificates clients present, and how they are verified.
pub struct ClientAuth {
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
    /// The maximum number of CAs between a root and a client's certificate.
    pub depth: u16,
    /// The roots, whose names clients are told.
    pub roots: Vec<X509>,
    /// The roots and revocation lists, with all that a verification checks.
    pub store: X509Store,
    /// Of all the above and the content of the files.
    pub digest: [u8; 32],
}

impl PartialEq for ClientAuth {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ClientAuth {}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("is_required", &self.is_required)
            .field("depth", &self.depth)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}
