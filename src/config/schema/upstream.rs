//! How the servers of an upstream are chosen, watched and left out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Switch};

/// The protocol that the servers of an upstream speak.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Protocol {
    #[default]
    Http1,
    H2,
    Auto,
}

/// How a server is chosen.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Balance {
    Method(BalanceMethod),
    Hash(HashBalance),
}

impl Default for Balance {
    fn default() -> Self {
        Self::Method(BalanceMethod::RoundRobin)
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum BalanceMethod {
    RoundRobin,
    LeastRequests,
}

/// The same server for the same key, as long as it is available.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["hash"]))]
pub(crate) struct HashBalance {
    /// What the server is chosen by: `client_ip`, a header, or a cookie.
    pub(crate) hash: HashKey,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum HashKey {
    Client(HashClient),
    Field(HashField),
}

impl Default for HashKey {
    fn default() -> Self {
        Self::Client(HashClient::ClientIp)
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum HashClient {
    ClientIp,
}

/// A part of the request that a server is chosen by.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct HashField {
    /// The value of this header field.
    pub(crate) header: Option<String>,
    /// The value of this cookie.
    pub(crate) cookie: Option<String>,
}

/// How connections to servers are kept for the next request.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeepAlive {
    /// The most idle connections to each address; 0 for none.
    #[schemars(range(max = 1_000_000))]
    pub(crate) connections: u64,
    /// How long an idle connection is kept. Servers should keep theirs for longer.
    pub(crate) idle: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            connections: 1000,
            idle: Duration::new("60s"),
        }
    }
}

/// Whether servers get the client's address by the PROXY protocol, and in which version.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum SendProxyProtocol {
    Off,
    V1,
    V2,
}

/// When a server that fails requests is left out, and for how long.
///
/// A failure is a connection that cannot be opened, an error or a time-out before the response's
/// head, and a response with one of the statuses in `status`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Eject {
    /// After so many failures an address of a server is left out.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) failures: u64,
    /// The time within which the failures are counted.
    pub(crate) within: Duration,
    /// The statuses of responses that are failures: codes and ranges, such as `500-599` or
    /// `500,502-504`.
    pub(crate) status: String,
    /// How long it is left out. Then one request tries it. Each time that one fails, the time
    /// doubles, up to five minutes.
    #[serde(rename = "for")]
    pub(crate) time: Duration,
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            failures: 5,
            within: Duration::new("10s"),
            status: "502-504".to_owned(),
            time: Duration::new("10s"),
        }
    }
}

/// How servers that do not work are found before requests are sent to them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Health {
    /// The path that is requested.
    pub(crate) path: String,
    /// Whether a connection alone is enough, TLS included if the upstream has it. Excludes `path`,
    /// `status` and `host`.
    pub(crate) tcp: bool,
    /// The service whose health is asked for over gRPC (`grpc.health.v1.Health`), `""` for the
    /// whole server. Excludes `path`, `status` and `tcp`; the upstream needs `protocol: h2`, or
    /// `auto` with TLS.
    pub(crate) grpc: Option<String>,
    /// How often each address is checked.
    pub(crate) every: Duration,
    /// How long a check may take.
    pub(crate) timeout: Duration,
    /// After so many good checks in a row an address is used again.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) healthy: u64,
    /// After so many failed checks in a row an address is no longer used.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) unhealthy: u64,
    /// The statuses of a good response: codes and ranges, such as `200-399` or `200,204`.
    pub(crate) status: String,
    /// The host that is requested. By default that of the server's address.
    pub(crate) host: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            tcp: false,
            grpc: None,
            every: Duration::new("5s"),
            timeout: Duration::new("2s"),
            healthy: 2,
            unhealthy: 3,
            status: "200-399".to_owned(),
            host: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum UpstreamTls {
    Switch(Switch),
    On(UpstreamTlsOptions),
}

/// TLS to the servers of an upstream.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpstreamTlsOptions {
    /// The name that is requested and verified. By default that of the server's address.
    pub(crate) server_name: Option<String>,
    /// Whether the server's certificate is verified.
    pub(crate) verify: bool,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// A PEM file with the certificate that servers are shown if they ask for one, and its
    /// intermediates. Needs `key`.
    pub(crate) cert: Option<String>,
    /// A PEM file with the private key of `cert`.
    pub(crate) key: Option<String>,
}

impl Default for UpstreamTlsOptions {
    fn default() -> Self {
        Self {
            server_name: None,
            verify: true,
            ca_file: None,
            cert: None,
            key: None,
        }
    }
}
