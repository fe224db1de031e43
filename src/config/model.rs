//! The checked model of a configuration, from which the rest of Snigate works.
//!
//! A value of these types is right by construction. References between parts (an upstream's name,
//! an issuer's) have been resolved or checked, paths are absolute, durations are positive where
//! zero means nothing. Only `config::validate` makes them.

mod access;
mod acme;
mod compress;
mod dns;
mod error_page;
mod files;
mod forward_auth;
mod jwt;
mod listen;
mod log;
mod log_field;
mod media_type;
mod network;
mod network_set;
mod notify;
mod pieces;
mod rate_limit;
mod recipient;
mod retries;
mod revocation;
mod rewrite;
mod route_match;
#[cfg(test)]
mod sample;
mod secret_url;
mod site;
mod sticky;
mod template;
mod tls_policy;
mod tracing;
mod tunnel;
mod upstream;
mod validity;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::host::{Identifier, Pattern};
use crate::jwt::KeyServer;
use crate::secret::Secret;

pub use access::*;
pub use acme::*;
pub use compress::*;
pub use dns::*;
pub use error_page::*;
pub use files::*;
pub use forward_auth::ForwardAuth;
pub(crate) use forward_auth::MAX_ANSWER;
pub use jwt::*;
pub use listen::*;
pub use log::*;
pub use log_field::*;
pub(crate) use media_type::*;
pub use network::*;
pub use network_set::*;
pub use notify::*;
pub use pieces::TemplateError;
pub use rate_limit::*;
pub use recipient::*;
pub use retries::*;
pub use revocation::*;
pub use rewrite::*;
pub use route_match::*;
pub use secret_url::*;
pub use site::*;
pub use sticky::*;
pub use template::*;
pub use tls_policy::*;
pub use tracing::*;
pub use tunnel::*;
pub use upstream::*;
pub use validity::*;

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
    /// Shared by all copies, since there may be a great many.
    pub certificates: Arc<[CertificateSource]>,
    pub certificates_in_memory: InMemory,
    /// The maximum size of parsed certificates, in octets.
    pub certificate_cache: usize,
    pub renewal: Renewal,
    pub revocation: Revocation,
    pub validity: Validity,
    /// Names that get a certificate when a client first asks for one.
    pub on_demand: Option<OnDemand>,
    pub upstreams: IndexMap<Arc<str>, Arc<Upstream>>,
    pub sites: Vec<Arc<Site>>,
    /// The servers that publish verification keys.
    pub key_servers: Vec<Arc<KeyServer>>,
    /// Who is notified of what happens.
    pub events: Vec<Arc<Hook>>,
    /// Who is asked before CAs are, and may object.
    pub vetoes: Vec<Arc<Hook>>,
    pub log: Log,
    /// Where spans of requests go; `None` if there are none.
    pub tracing: Option<Tracing>,
    pub places: Places,
}

/// Places of keys whose faults only show when the configuration is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub default_certificate: Origin,
    pub on_demand: Origin,
}

/// Listeners and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub https: Vec<ListenAddress>,
    pub http: Vec<ListenAddress>,
    pub admin: Admin,
    pub admin_token: Option<Secret>,
    /// Worker threads; if the file says 0, already the number of cores.
    pub threads: usize,
    /// The user to become after binding.
    pub user: Option<String>,
    /// How long a graceful stop waits for requests in flight.
    pub grace_period: Duration,
    /// What looks up the names of upstream servers; if empty, the system's resolvers.
    pub resolvers: Vec<SocketAddr>,
    pub balancers: Balancers,
    /// The proxies that are believed about clients.
    pub trusted_proxies: NetworkSet,
    pub limits: Limits,
    /// Whether sites without any certificate are served on the HTTP listeners meanwhile.
    pub https_optional: bool,
    /// For requests without a site; sites have theirs.
    pub error_pages: Option<Arc<ErrorPages>>,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    Off,
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Limits on what one client may use.
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
    /// TLS handshakes that a client may begin in a second, 0 for no limit.
    pub max_handshakes_per_ip: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub h2_streams: u32,
    /// Simultaneous requests at upstreams; 0 for as many as there are descriptors and ports for.
    pub upstream_connections: usize,
    /// The most octets of a request's body where a route does not say, 0 for any number.
    pub max_body: u64,
}

/// TLS settings of the HTTPS listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub versions: RangeInclusive<TlsVersion>,
    /// `None` for all that are secure.
    pub ciphers: Option<Ciphers>,
    /// The protocols to offer by ALPN, most preferred first; `None` for HTTP/2, then HTTP/1.1.
    pub protocols: Option<Box<[&'static str]>>,
    /// Key exchange groups by OpenSSL's names, most preferred first.
    pub groups: Vec<String>,
    /// The name or address whose certificate is served without SNI, unless the address that a
    /// client connects to has its own, and for unknown names if [`UnknownSni::Default`] says so.
    pub default_certificate: Option<Identifier>,
    pub unknown_sni: UnknownSni,
    pub session_tickets: SessionTickets,
    /// For clients of no site, and for sites that say nothing about it.
    pub policy: Option<Arc<TlsPolicy>>,
    /// What the secrets of all connections are written to.
    pub key_log: Option<PathBuf>,
}

/// What a client gets that asks for a name without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownSni {
    /// The default certificate if there is one, else the alert `unrecognized_name`.
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

/// A source of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// A CA with ACME (RFC 8555).
    Acme(Arc<Acme>),
    /// The local CA, with the common name of its root.
    LocalCa { name: String },
    /// The issuer that the program has handed over under this name. No file asks for it.
    Own,
}

/// Certificates to serve, in addition to those that sites request from issuers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Every `NAME.pem` with `NAME.key`, or with the key inside.
    Directory { path: PathBuf, origin: Origin },
    /// A chain and its key. Both paths are the same if one file contains both.
    Files {
        cert: PathBuf,
        key: PathBuf,
        origin: Origin,
    },
    /// Names for which issuers are asked.
    Managed {
        names: Vec<Pattern>,
        /// Names of issuers, tried in order. Never empty.
        issuers: Vec<Arc<str>>,
        /// The entry of [`Config::dns`] for validations, in preference to that of the issuer.
        dns: Option<Arc<str>>,
        origin: Origin,
    },
}

/// Which certificates and keys are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InMemory {
    All,
    /// Those in use; the others are read from where they are kept.
    Cache,
}

/// Where an entry is in the configuration, for messages: `FILE:LINE:COLUMN` and the key's path,
/// `certificates[3]`.
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
    /// The last part of the lifetime, over 0 and under 1, in which a renewal is due.
    pub window: f64,
    pub check_every: Duration,
    /// Whether CAs are asked when they suggest to renew (RFC 9773).
    pub ari: bool,
    /// Whether a start fails if it cannot obtain missing certificates.
    pub required_at_start: bool,
}

/// Certificates issued when a client first asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemand {
    /// Names of issuers, tried in order. Never empty.
    pub issuers: Vec<Arc<str>>,
    /// Whether one of them is a public CA, which certifies only names in the public DNS.
    pub public: bool,
    /// Patterns that must cover a name; empty only if `ask` decides alone.
    pub allow: Vec<Pattern>,
    /// The service to ask about a name that `allow` covers.
    pub ask: Option<Ask>,
    pub limits: OnDemandLimits,
    /// A name that nobody asked for in this time is dropped.
    pub unused: Duration,
}

/// Who says which names may have a certificate, and how that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// A service, checked to be an HTTP URL. May contain a secret in its path or query. `None` if the
    /// program that embeds the engine decides itself.
    pub url: Option<Secret>,
    pub timeout: Duration,
    /// How long a yes is valid, unless it says so itself.
    pub cache_allowed: Duration,
    /// How long a no is valid, unless it says so itself.
    pub cache_refused: Duration,
    /// The roots to trust; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

/// Limits on certificates issued on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDemandLimits {
    /// How long a handshake waits.
    pub max_wait: Duration,
    /// The maximum number of waiting handshakes.
    pub max_waiting: u32,
    /// New names per minute.
    pub per_minute: u32,
    /// New names of one registered domain.
    pub per_domain: Option<NameQuota>,
    /// New names requested by the clients of one network.
    pub per_client: Option<NameQuota>,
}

/// So many names in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameQuota {
    pub names: u32,
    pub per: Duration,
}
