//! How many requests are served in a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Off, Switch};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RateLimit {
    Off(Off),
    On(RateLimitOptions),
}

/// How many requests are served in a time; others are refused with 429.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["requests"]))]
pub(crate) struct RateLimitOptions {
    /// How many requests are served in the time `per`, on average.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) requests: u64,
    /// The time for `requests`, from `1ms` to `1d`.
    pub(crate) per: Duration,
    /// How many requests are served at once after a pause. By default as many as `requests`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) burst: Option<u64>,
    /// What has a limit of its own: each `client_ip`; each value of a header field, `{ header: NAME }`;
    /// each authenticated `user`; or the `site`, all clients together.
    pub(crate) by: RateKey,
    /// Whether responses that are served say how many requests are left, in `RateLimit`.
    pub(crate) headers: Switch,
}

impl Default for RateLimitOptions {
    fn default() -> Self {
        Self {
            requests: 0,
            per: Duration::new("1s"),
            burst: None,
            by: RateKey::default(),
            headers: Switch::Off,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RateKey {
    Word(RateKeyWord),
    Field(RateKeyField),
}

impl Default for RateKey {
    fn default() -> Self {
        Self::Word(RateKeyWord::ClientIp)
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RateKeyWord {
    ClientIp,
    User,
    Site,
}

/// A part of the request that has a limit of its own.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["header"]))]
pub(crate) struct RateKeyField {
    /// The value of this header field. Requests without it are counted by the client's address.
    pub(crate) header: String,
}
