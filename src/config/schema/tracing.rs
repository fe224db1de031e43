//! `tracing`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::SecretText;

/// Where spans of requests go: to a collector of OpenTelemetry, over OTLP in HTTP.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoint"]))]
pub(crate) struct Tracing {
    /// The URL of the collector, such as `http://127.0.0.1:4318`. Without a path, spans are sent to
    /// `/v1/traces`.
    pub(crate) endpoint: Option<String>,
    /// More fields of the request, such as `Authorization`.
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub(crate) headers: IndexMap<String, SecretText>,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// The name of this gateway among other services.
    pub(crate) service: String,
    /// The share of requests that are recorded, from 0 to 1. Requests of `server.trusted_proxies`
    /// with a `traceparent` are recorded if that says so.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sample: f64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: IndexMap::new(),
            ca_file: None,
            service: "snigate".to_owned(),
            sample: 0.01,
        }
    }
}
