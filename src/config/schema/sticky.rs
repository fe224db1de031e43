//! How clients stay at their server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Duration;

/// A cookie that keeps a client at its server, as long as that is available.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["cookie"]))]
pub(crate) struct Sticky {
    /// The name of the cookie.
    pub(crate) cookie: String,
    /// How long browsers keep the cookie. By default until they are closed.
    pub(crate) max_age: Option<Duration>,
}
