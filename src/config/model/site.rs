//! What is served: upstreams, sites and their routes.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::{
    Access, Balance, ClientCertificate, Compression, Conditions, Eject, ErrorPages, Files,
    HealthCheck, Hsts, KeepAlive, ListenAddress, Maintenance, Origin, PathMatch, Protocol,
    ProxyProtocolVersion, Retries, Rewriting, RouteRate, SiteLimits, Sticky, Template, TlsPolicy,
    Tunnel,
};
use crate::host::{HostName, Pattern};
use crate::printable::Printable as _;

/// A pool of servers that requests are passed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub name: Arc<str>,
    /// Never empty.
    pub servers: Vec<UpstreamServer>,
    pub protocol: Protocol,
    pub balance: Balance,
    pub sticky: Option<Sticky>,
    pub keepalive: KeepAlive,
    pub tls: UpstreamTls,
    /// Which version of the PROXY protocol connections begin with, if any.
    pub send_proxy_protocol: Option<ProxyProtocolVersion>,
    pub health: Option<HealthCheck>,
    pub eject: Option<Eject>,
    /// How long the share of a server that comes back rises.
    pub slow_start: Option<Duration>,
}

impl Upstream {
    /// An upstream of these servers, which take turns, with nothing else configured.
    pub fn new(name: impl Into<Arc<str>>, servers: Vec<UpstreamServer>) -> Self {
        Self {
            name: name.into(),
            servers,
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            sticky: None,
            keepalive: KeepAlive::default(),
            tls: UpstreamTls::Off,
            send_proxy_protocol: None,
            health: None,
            eject: None,
            slow_start: None,
        }
    }
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    pub address: UpstreamAddress,
    /// Its share of the requests compared with others, 1 to 1,000.
    pub weight: u32,
    /// Whether it is used only while no other is available.
    pub backup: bool,
    /// The maximum number of requests in flight at each of its addresses, 0 for no limit.
    pub max_connections: usize,
}

impl UpstreamServer {
    /// A server with nothing else configured.
    pub fn new(address: UpstreamAddress) -> Self {
        Self {
            address,
            weight: 1,
            backup: false,
            max_connections: 0,
        }
    }
}

impl fmt::Display for UpstreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The address of an upstream server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAddress {
    Ip(SocketAddr),
    /// A name that is resolved periodically, never on a request's path.
    Name {
        host: HostName,
        port: u16,
    },
    /// The name of SRV records, which is resolved likewise.
    Service(HostName),
    Unix(PathBuf),
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.printable()),
        }
    }
}

/// The domain of a service: `app.internal` of `_http._tcp.app.internal` (RFC 2782).
pub(crate) fn service_domain(name: &HostName) -> &str {
    let mut domain = name.as_str();
    while let Some((label, rest)) = domain.split_once('.')
        && label.starts_with('_')
    {
        domain = rest;
    }
    domain
}

/// Whether and how to use TLS to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    Off,
    On {
        /// The name for SNI and verification; `None` for the server's own.
        server_name: Option<HostName>,
        verify: bool,
        /// Roots to trust instead of the system's, in PEM.
        ca_file: Option<PathBuf>,
        /// What servers are shown if they ask for a certificate.
        client_certificate: Option<ClientCertificate>,
    },
}

/// A site: its hosts, their certificates and its routes.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Never empty.
    pub hosts: Vec<Pattern>,
    /// Where it is served; if empty, at the addresses of the server.
    pub listen: Vec<ListenAddress>,
    /// The port of these that it is served at by TLS.
    pub https_port: Option<u16>,
    pub tls: SiteTls,
    /// What it demands of connections, if anything beyond what all listeners do.
    pub tls_policy: Option<Arc<TlsPolicy>>,
    /// In the order in which they are tried: exact paths, prefixes from the longest on, expressions
    /// as they stand; of equal paths the one with more conditions, then the earlier in the file.
    /// Sites with the same routes share them.
    pub routes: Arc<[Route]>,
    /// How its connections are passed on, instead of requests.
    pub tunnel: Option<Arc<Tunnel>>,
    /// `Strict-Transport-Security` for responses over TLS.
    pub hsts: Option<Hsts>,
    /// Its own, and those of the server for what its own are not for.
    pub error_pages: Option<Arc<ErrorPages>>,
    /// For requests that no route is for.
    pub maintenance: Option<Arc<Maintenance>>,
    /// For requests that no route is for.
    pub access: Option<Arc<Access>>,
    pub limits: SiteLimits,
    pub origin: Origin,
}

/// Where a site's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteTls {
    /// A loaded certificate that covers the host, else one from these issuers in turn (the first
    /// configured issuer; none if there is no issuer).
    Auto(Vec<Arc<str>>),
    /// One from this issuer.
    Issuer(Arc<str>),
    /// The site is served on the HTTP listeners only, and not redirected to HTTPS.
    Off,
    /// The site's servers terminate TLS, with certificates of their own.
    PassThrough,
}

impl SiteTls {
    /// Whether the gateway terminates TLS for the site, with a certificate.
    pub fn is_terminated(&self) -> bool {
        matches!(self, Self::Auto(_) | Self::Issuer(_))
    }
}

/// What to do with requests for some paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub path: PathMatch,
    /// What a request must have besides; never empty.
    pub conditions: Option<Arc<Conditions>>,
    pub action: Action,
    pub rewriting: Option<Box<Rewriting>>,
    /// How responses of servers and configured ones are compressed, if they are.
    pub compression: Option<Arc<Compression>>,
    /// Its own, or that of its site.
    pub maintenance: Option<Arc<Maintenance>>,
    /// Its own, or that of its site.
    pub access: Option<Arc<Access>>,
    /// Whether it is only for clients that have presented a certificate.
    pub needs_certificate: bool,
    pub rate: RouteRate,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Proxy(Proxy),
    /// Respond with a file.
    Files(Arc<Files>),
    /// Respond with a `Location`.
    Redirect {
        /// A URL of `https` or `http`, or a path.
        to: Template,
        status: StatusCode,
    },
    /// Respond with this.
    Respond {
        status: StatusCode,
        body: bytes::Bytes,
        content_type: http::HeaderValue,
    },
}

/// How to pass a request to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub upstream: Arc<Upstream>,
    pub connect_timeout: Duration,
    /// Between two reads from the upstream, including the wait for the head.
    pub read_timeout: Duration,
    /// How long the upstream may accept nothing of what is sent to it.
    pub send_timeout: Duration,
    /// For the whole request, until the end of its response.
    pub total_timeout: Option<Duration>,
    /// The most octets of a request's body, 0 for any number; `None` for the limit of the server.
    pub max_body: Option<u64>,
    /// When and how often a request is retried at another server.
    pub retries: Retries,
}
