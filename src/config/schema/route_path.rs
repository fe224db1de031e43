//! The paths of routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RoutePath {
    Prefix(String),
    Other(RoutePathKind),
}

/// Paths that are compared in another way than by their beginning.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct RoutePathKind {
    /// This path only.
    pub(crate) exact: Option<String>,
    /// Every path in which this regular expression is found.
    pub(crate) regex: Option<String>,
}
