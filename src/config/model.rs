//! The checked model of a configuration: what the rest of Snigate works from.
//!
//! A value of these types is right by construction. References between parts (an upstream's name,
//! an issuer's) have been resolved or proved to exist, paths are absolute, durations are positive
//! where zero means nothing. Only `config::validate` makes them.

mod dns;
mod order;
#[cfg(test)]
mod sample;
mod site;
mod zerossl;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use indexmap::IndexMap;

use crate::host::{Identifier, Pattern};
use crate::secret::Secret;

pub use dns::*;
pub use order::*;
pub use site::*;
pub use zerossl::*;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub server: Server,
    pub tls: Tls,
    pub storage: Storage,
    /// By name, in the order of the file.
    pub issuers: IndexMap<Arc<str>, Issuer>,
    /// By name, in the order of the file.
    pub dns: IndexMap<Arc<str>, Arc<Dns>>,
    /// Shared by all copies, since there may be very many.
    pub certificates: Arc<[CertificateSource]>,
    pub certificates_in_memory: InMemory,
    /// The octets that certificates may take which are kept parsed.
    pub certificate_cache: usize,
    pub renewal: Renewal,
    /// Names that get a certificate when a client first asks for one.
    pub on_demand: Option<OnDemand>,
    pub upstreams: IndexMap<Arc<str>, Arc<Upstream>>,
    pub sites: Vec<Arc<Site>>,
    pub log: Log,
    pub places: Places,
}

/// Where keys stand whose faults only show when the configuration is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub default_certificate: Origin,
    pub on_demand: Origin,
}

/// Listeners and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub https: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
    pub admin: Admin,
    pub admin_token: Option<Secret>,
    /// Worker threads; already the number of cores where the file says 0.
    pub threads: usize,
    /// The user to become after binding.
    pub user: Option<String>,
    /// How long a graceful stop waits for requests in flight.
    pub grace_period: Duration,
    pub limits: Limits,
    /// Whether sites without any certificate are served on the HTTP listeners meanwhile.
    pub https_optional: bool,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    Off,
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Limits on what one client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the whole TLS handshake.
    pub handshake: Duration,
    /// For a whole request head, from its first byte to its last.
    pub header_read: Duration,
    /// Between requests, between reads of a body, and for a blocked write.
    pub idle: Duration,
    /// For a request head, request line included.
    pub max_header_bytes: usize,
    /// Connections in total, 0 for no limit.
    pub max_connections: usize,
    /// Connections of one client address, 0 for no limit.
    pub max_connections_per_ip: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub h2_streams: u32,
    /// Requests at upstreams at a time, 0 for as many as there are descriptors and ports for.
    pub upstream_connections: usize,
}

/// TLS settings of the HTTPS listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub profile: TlsProfile,
    /// Key exchange groups by OpenSSL's names, most wanted first.
    pub groups: Vec<String>,
    /// The name or address whose certificate is served without SNI, where the address that a client
    /// comes to has none of its own, and for unknown names where [`UnknownSni::Default`] says so.
    pub default_certificate: Option<Identifier>,
    pub unknown_sni: UnknownSni,
    pub session_tickets: SessionTickets,
}

/// Mozilla's server-side TLS profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProfile {
    /// TLS 1.2 with ECDHE and AEAD, and TLS 1.3.
    Intermediate,
    /// TLS 1.3 only.
    Modern,
}

/// What a client gets that asks for a name without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownSni {
    /// The default certificate where there is one, else the alert `unrecognized_name`.
    Default,
    /// The alert `unrecognized_name` (RFC 6066, section 3).
    Reject,
}

/// Whether sessions may be resumed by ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionTickets {
    Off,
    /// On, with keys replaced at this interval.
    Rotate(Duration),
}

/// Where certificates, keys and state are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    File { path: PathBuf },
}

/// Who issues certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// A CA with ACME (RFC 8555).
    Acme(Arc<Acme>),
    /// The local CA, with the common name of its root.
    LocalCa { name: String },
    /// The issuer that the program has handed over under this name. No file asks for it.
    Own,
}

/// A CA with ACME, and how it is dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of its directory.
    pub directory: String,
    /// The URL of the directory of its staging environment, where it is known to have one: asked
    /// first once an order has failed.
    pub staging: Option<String>,
    pub email: Option<String>,
    /// Those for which there is a listener, most wanted first. Never empty.
    pub challenges: Vec<ChallengeType>,
    /// The entry of [`Config::dns`] that is used where a certificate names none.
    pub dns: Option<Arc<str>>,
    /// What is asked of it beside the names.
    pub order: OrderTerms,
    pub key_type: KeyType,
    /// Whether a renewed certificate has the key of the one before.
    pub reuse_key: bool,
    /// Roots to trust for the directory instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    pub eab: Option<ExternalAccount>,
    /// Who gives the key for external account binding, instead of `eab`.
    pub zerossl: Option<ZeroSsl>,
    /// A proxy that the CA is reached through, `http://HOST:PORT`.
    pub proxy: Option<Uri>,
    pub order_limit: OrderLimit,
    /// Whether CAA records are looked up before an order.
    pub check_caa: bool,
    /// The name servers that are asked about names; the system's where empty.
    pub resolvers: Vec<SocketAddr>,
}

/// A way to prove control of a name (RFC 8555, section 8; RFC 8737;
/// draft-ietf-acme-dns-account-label; draft-ietf-acme-dns-persist).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChallengeType {
    Http01,
    TlsAlpn01,
    Dns01,
    DnsAccount01,
    DnsPersist01,
}

impl ChallengeType {
    /// Every type there is.
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

    /// Whether the proof is a record in the DNS: no listener is needed, and wildcards can be proved.
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

/// How many orders may be begun in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderLimit {
    pub orders: u32,
    pub per: Duration,
}

/// Certificates to serve, beside those that sites ask issuers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Every `NAME.pem` with `NAME.key`, or with the key inside.
    Directory { path: PathBuf, origin: Origin },
    /// A chain and its key. Both paths are the same where one file holds both.
    Files {
        cert: PathBuf,
        key: PathBuf,
        origin: Origin,
    },
    /// Names for which an issuer is asked.
    Managed {
        names: Vec<Pattern>,
        /// Names of issuers, tried in order. Never empty.
        issuers: Vec<Arc<str>>,
        /// The entry of [`Config::dns`] to prove by, before that of the issuer.
        dns: Option<Arc<str>>,
        origin: Origin,
    },
}

/// Which certificates and keys are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InMemory {
    All,
    /// Those that are asked for; the others are read where they are kept.
    Cache,
}

/// The place in the configuration that an entry comes from, for messages: `FILE:LINE:COLUMN` and
/// the key's path, `certificates[3]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub file: Arc<PathBuf>,
    pub line: usize,
    pub column: usize,
    pub path: String,
}

/// When issued certificates are renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renewal {
    /// The part of the lifetime, over 0 and under 1, at whose beginning a renewal is due.
    pub window: f64,
    pub check_every: Duration,
    /// Whether CAs are asked when they advise to renew (RFC 9773).
    pub ari: bool,
    /// Whether a start fails that cannot obtain what is missing.
    pub required_at_start: bool,
}

/// Certificates made when first asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemand {
    /// Names of issuers, tried in order. Never empty.
    pub issuers: Vec<Arc<str>>,
    /// Whether one of them is a public CA, which certifies names of the public DNS alone.
    pub public: bool,
    /// What names must be covered by; empty only where `ask` decides alone.
    pub allow: Vec<Pattern>,
    /// Who is asked about a name that `allow` covers.
    pub ask: Option<Ask>,
    pub limits: OnDemandLimits,
    /// A name that was not asked for in this time is dropped.
    pub unused: Duration,
}

/// A service that says which names may have a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Checked to be a URL of HTTP. May have a secret in its path or query.
    pub url: Secret,
    pub timeout: Duration,
    /// How long a yes is good for, where it does not say so itself.
    pub cache_allowed: Duration,
    /// How long a no is good for, where it does not say so itself.
    pub cache_refused: Duration,
    /// The roots to trust; the system's where `None`.
    pub ca_file: Option<PathBuf>,
}

/// Limits on certificates issued on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDemandLimits {
    /// How long a handshake waits.
    pub max_wait: Duration,
    /// How many handshakes wait at most.
    pub max_waiting: u32,
    /// New names a minute.
    pub per_minute: u32,
    /// New names of one registered domain.
    pub per_domain: Option<NameQuota>,
    /// New names that the clients of one network ask for.
    pub per_client: Option<NameQuota>,
}

/// So many names in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameQuota {
    pub names: u32,
    pub per: Duration,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// In the syntax of tracing's `EnvFilter`.
    pub level: String,
    pub format: LogFormat,
    pub access: AccessLog,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    File(PathBuf),
    Off,
    Stdout,
}
