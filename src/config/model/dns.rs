//! Where DNS records are set, and how to check that they are visible.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::host::HostName;
use crate::secret::Secret;

/// An entry of `dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    pub provider: DnsService,
    /// The TTL of the records, in seconds.
    pub ttl: u32,
    /// Resolvers to use instead of the system's, if not empty.
    pub resolvers: Vec<SocketAddr>,
    /// How to check that a record is visible; `None` to skip that.
    pub propagation: Option<Propagation>,
    /// Roots to trust for the provider's HTTPS instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// A proxy for the provider's HTTPS, `http://HOST:PORT`.
    pub proxy: Option<Uri>,
}

/// How to check that a record is visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// Name servers to ask instead of those of the zone, if not empty.
    pub servers: Vec<SocketAddr>,
    pub timeout: Duration,
    pub interval: Duration,
    /// How long to wait after all servers have the record.
    pub wait: Duration,
}

/// The provider that sets the records. An `endpoint` is an HTTP URL without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsService {
    Rfc2136(Rfc2136),
    Cloudflare(Cloudflare),
    Route53(Route53),
    DigitalOcean(DigitalOcean),
    Hetzner(Hetzner),
    AcmeDns(AcmeDns),
    HttpReq(HttpReq),
    Exec(DnsExec),
    /// The provider that the program has handed over under the entry's name. No file asks for it.
    Own,
}

/// A name server with dynamic updates (RFC 2136).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rfc2136 {
    pub server: NameServer,
    /// The key that signs updates (RFC 8945); `None` for unsigned ones.
    pub tsig: Option<Tsig>,
}

/// The address of a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServer {
    Ip(SocketAddr),
    Name { host: HostName, port: u16 },
}

/// A key shared with a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tsig {
    pub name: HostName,
    pub algorithm: TsigAlgorithm,
    /// The key, in base64.
    pub secret: Secret,
}

/// The signature algorithm (RFC 8945, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TsigAlgorithm {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// Cloudflare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloudflare {
    pub endpoint: String,
    pub api_token: Secret,
}

/// Amazon Route 53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route53 {
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
    /// The hosted zone; `None` to look it up by its name.
    pub hosted_zone_id: Option<String>,
}

/// DigitalOcean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigitalOcean {
    pub endpoint: String,
    pub api_token: Secret,
}

/// Hetzner's Cloud API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hetzner {
    pub endpoint: String,
    pub api_token: Secret,
}

/// An acme-dns server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeDns {
    pub endpoint: String,
    pub accounts: AcmeDnsAccounts,
}

/// The accounts at an acme-dns server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcmeDnsAccounts {
    One {
        username: String,
        password: Secret,
        /// One label.
        subdomain: String,
    },
    /// A file with an account for each name, to which new ones are added.
    File(PathBuf),
}

/// A server with lego's `httpreq` protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReq {
    pub endpoint: String,
    /// User name and password for basic authentication.
    pub login: Option<(String, Secret)>,
}

/// A program that is called like lego's `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsExec {
    pub program: PathBuf,
    /// Arguments before the others.
    pub arguments: Vec<String>,
    pub timeout: Duration,
    pub env: Vec<(String, Secret)>,
}
