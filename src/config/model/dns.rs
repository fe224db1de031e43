//! Where DNS records are set, and how it is seen that they are there.

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
    /// The time to live of the records, in seconds.
    pub ttl: u32,
    /// Resolvers to ask instead of the system's where not empty.
    pub resolvers: Vec<SocketAddr>,
    /// How it is found out that a record can be seen; not at all where `None`.
    pub propagation: Option<Propagation>,
    /// Roots to trust for the provider's HTTPS instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// A proxy that the provider's HTTPS is reached through, `http://HOST:PORT`.
    pub proxy: Option<Uri>,
}

/// How to check that a record can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// Name servers to ask instead of those of the zone where not empty.
    pub servers: Vec<SocketAddr>,
    pub timeout: Duration,
    pub interval: Duration,
    /// What is waited once all servers have the record.
    pub wait: Duration,
}

/// Who sets the records. An `endpoint` is a URL of HTTP without a slash at its end.
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
    /// The key that updates are signed with (RFC 8945); not signed where `None`.
    pub tsig: Option<Tsig>,
}

/// Where a name server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServer {
    Ip(SocketAddr),
    Name { host: HostName, port: u16 },
}

/// A key that a name server shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tsig {
    pub name: HostName,
    pub algorithm: TsigAlgorithm,
    /// The key, in base64.
    pub secret: Secret,
}

/// How the key signs (RFC 8945, section 6).
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
    /// The hosted zone; looked up by its name where `None`.
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

/// A server of acme-dns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeDns {
    pub endpoint: String,
    pub accounts: AcmeDnsAccounts,
}

/// With which accounts a server of acme-dns is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcmeDnsAccounts {
    One {
        username: String,
        password: Secret,
        /// One label.
        subdomain: String,
    },
    /// A file with an account for each name, which new ones are added to.
    File(PathBuf),
}

/// A server that speaks lego's protocol `httpreq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReq {
    pub endpoint: String,
    /// User name and password for basic authentication.
    pub login: Option<(String, Secret)>,
}

/// A program that is called as by lego's `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsExec {
    pub program: PathBuf,
    /// What stands before the other arguments.
    pub arguments: Vec<String>,
    pub timeout: Duration,
    pub env: Vec<(String, Secret)>,
}
