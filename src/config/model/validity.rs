//! When it is reported that a certificate expires.

use std::time::Duration;

/// When it is reported that a certificate expires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Validity {
    /// How long before its end; `None` for what suits its lifetime.
    pub warn_before: Option<Duration>,
    /// The last part of its lifetime, over 0 and at most 1, before which nothing is reported.
    pub warn_fraction: f64,
}

impl Default for Validity {
    fn default() -> Self {
        Self {
            warn_before: None,
            warn_fraction: 0.33,
        }
    }
}
