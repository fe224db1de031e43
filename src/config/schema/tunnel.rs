//! Connections of a site that are passed on octet by octet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Duration;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Tunnel {
    Upstream(String),
    Options(TunnelOptions),
}

/// Where the octets of connections go, and how long connections may last.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["upstream"]))]
pub(crate) struct TunnelOptions {
    /// The upstream that connections are passed to.
    pub(crate) upstream: String,
    /// For the connection to a server of the upstream.
    pub(crate) connect: Duration,
    /// How long no octet may pass in either direction before the connection is cut.
    pub(crate) idle: Duration,
    /// How long a connection may last; `0s` for no limit.
    pub(crate) total: Duration,
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self {
            upstream: String::new(),
            connect: Duration::new("5s"),
            idle: Duration::new("10m"),
            total: Duration::new("0s"),
        }
    }
}
