//! When a request is sent to another server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Retries {
    Attempts(#[schemars(range(max = 10))] u64),
    Rules(RetryRules),
}

/// When a request is retried at another server, and how often.
///
/// A request that may have reached a server is only retried if its method is idempotent, no more
/// than 64 KiB of its body have been sent, and nothing of the response has reached the client.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryRules {
    /// How often a request is retried.
    #[schemars(range(max = 10))]
    pub(crate) attempts: u64,
    /// What a request is retried after: `connect`, no connection could be opened; `reset`, the
    /// connection ended before the response; `timeout`, the response did not begin in time; or a
    /// response with this status.
    #[schemars(length(min = 1))]
    pub(crate) on: Vec<RetryCondition>,
    /// The share of an upstream's requests in the last ten seconds that may be retries, from `1%`
    /// to `100%`; at least three a second. Retries after `connect` do not count.
    pub(crate) budget: String,
}

impl Default for RetryRules {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: vec![
                RetryCondition::Failure(RetryFailure::Connect),
                RetryCondition::Failure(RetryFailure::Reset),
            ],
            budget: "20%".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RetryCondition {
    Failure(RetryFailure),
    Status(#[schemars(range(min = 502, max = 504))] u64),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RetryFailure {
    Connect,
    Reset,
    Timeout,
}
