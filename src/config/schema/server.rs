//! `server`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error_page::ErrorPage;
use super::text::{Duration, SecretText, Size};

/// Where Snigate listens, and what one client may take.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// Addresses of the TLS listeners (HTTP/2 and HTTP/1.1): `ADDRESS:PORT`, `:PORT` for all addresses,
    /// `INTERFACE:PORT`, `unix:PATH` or `systemd:NAME`; `[]` for none.
    pub(crate) https: Vec<String>,
    /// Addresses of the plain HTTP listeners: they redirect to HTTPS, answer HTTP-01 challenges
    /// and serve the sites with `tls: off`; in the same forms; `[]` for none.
    pub(crate) http: Vec<String>,
    /// Address of the admin API: `ADDRESS:PORT`, `unix:PATH`, or `off`.
    pub(crate) admin: String,
    /// The bearer token that the admin API requires. Needed unless it listens on a loopback
    /// address or a Unix socket.
    pub(crate) admin_token: Option<SecretText>,
    /// Worker threads; 0 for one per core.
    #[schemars(range(max = 1024))]
    pub(crate) threads: u64,
    /// The user to become once the listeners are bound.
    pub(crate) user: Option<String>,
    /// How long a stop waits for requests in flight.
    pub(crate) grace_period: Duration,
    /// The resolvers that look up the names of upstream servers, `ADDRESS:PORT`. By default those of
    /// the system.
    pub(crate) resolvers: Vec<String>,
    /// Load balancers in front, whose connections begin with a header of the PROXY protocol that
    /// names the client, version 1 or 2.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Proxies in front whose `X-Forwarded-For`, `X-Forwarded-Proto` and `Forwarded` are believed:
    /// networks, names of lists, or lists of your own. Nobody else's are.
    pub(crate) trusted_proxies: Vec<TrustedProxy>,
    /// What one client may take.
    pub(crate) limits: Limits,
    /// Whether sites that have no certificate yet are served on the HTTP listeners meanwhile,
    /// instead of being redirected to HTTPS.
    pub(crate) https_optional: bool,
    /// Pages for errors, by status (`404`), class (`4xx`, `5xx`) or `default`: a file, or several
    /// of different media types. Sites may have pages of their own.
    #[schemars(with = "BTreeMap<String, ErrorPage>")]
    pub(crate) error_pages: IndexMap<String, ErrorPage>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            https: vec!["0.0.0.0:443".to_owned(), "[::]:443".to_owned()],
            http: vec!["0.0.0.0:80".to_owned(), "[::]:80".to_owned()],
            admin: "127.0.0.1:9180".to_owned(),
            admin_token: None,
            threads: 0,
            user: None,
            grace_period: Duration::new("30s"),
            resolvers: Vec::new(),
            proxy_protocol: None,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
            https_optional: false,
            error_pages: IndexMap::new(),
        }
    }
}

/// Load balancers in front of Snigate.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["trusted"]))]
pub(crate) struct ProxyProtocol {
    /// Networks of the load balancers, `10.0.0.0/8`, or `unix` for whoever connects to a Unix socket. A
    /// connection from there needs the header, and one from elsewhere must not have it.
    #[schemars(length(min = 1))]
    pub(crate) trusted: Vec<String>,
}

/// A network, `10.0.0.0/8`; `cloudflare`, `fastly` or `aws-cloudfront`, whose list is the file of
/// that name in `networks`; or a list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum TrustedProxy {
    Network(String),
    List(NetworkList),
}

/// Networks from a file.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["file"]))]
pub(crate) struct NetworkList {
    /// One network a line, or JSON as Cloudflare, Fastly or AWS publishes it.
    pub(crate) file: String,
}

/// What one client may take.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Time for the whole TLS handshake.
    pub(crate) handshake: Duration,
    /// Time for a whole request head, from its first byte to its last.
    pub(crate) header_read: Duration,
    /// Time between requests, between reads of a body, and for a blocked write.
    pub(crate) idle: Duration,
    /// Size of a request head, request line included; from 1KiB to 1MiB.
    pub(crate) max_header_bytes: Size,
    /// Connections in total; 0 for no limit.
    pub(crate) max_connections: u64,
    /// Connections of one client address; 0 for no limit.
    pub(crate) max_connections_per_ip: u64,
    /// TLS handshakes that one client address begins in a second; 0 for no limit.
    pub(crate) max_handshakes_per_ip: u64,
    /// Concurrent streams of one HTTP/2 connection.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) h2_streams: u64,
    /// Requests at upstreams at a time; 0 for as many as the process has descriptors and ports for.
    pub(crate) upstream_connections: u64,
    /// The size of a request's body, unless its route says otherwise; 0 for no limit.
    pub(crate) max_body: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::new("10s"),
            header_read: Duration::new("10s"),
            idle: Duration::new("60s"),
            max_header_bytes: Size::Text("64KiB".to_owned()),
            max_connections: 0,
            max_connections_per_ip: 0,
            max_handshakes_per_ip: 0,
            h2_streams: 100,
            upstream_connections: 0,
            max_body: Size::Bytes(0),
        }
    }
}
