//! `validity`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// When it is reported that a certificate expires.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Validity {
    /// How long before its end a certificate counts as expiring. By default, a tenth of its
    /// lifetime, between 14 and 30 days, if somebody else renews it; if Snigate renews it, when a
    /// quarter of the time for the renewal has passed, or an attempt at it has failed.
    pub(crate) warn_before: Option<Duration>,
    /// But not before this last part of its lifetime: 0.33 for the last third. It counts for
    /// certificates with short lifetimes.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) warn_fraction: f64,
}

impl Default for Validity {
    fn default() -> Self {
        Self {
            warn_before: None,
            warn_fraction: 0.33,
        }
    }
}
