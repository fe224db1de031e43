//! `on_demand`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Duration, Names, Off, SecretText};

/// Certificates issued when a client first asks for a name. One of `allow` and `ask` is needed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OnDemand {
    /// Names of issuers, tried in order. By default the first issuer.
    pub(crate) issuer: Option<Names>,
    /// Host names and wildcards for which certificates may be issued. With `ask` a name must be
    /// allowed by both.
    #[schemars(length(min = 1))]
    pub(crate) allow: Option<Vec<String>>,
    /// A URL to request with `?domain=NAME&client=ADDRESS`; a response of 2xx allows the name.
    pub(crate) ask: Option<Ask>,
    /// How many certificates are issued, and how long clients wait for them.
    pub(crate) limits: OnDemandLimits,
    /// A name that no handshake has requested for this long is dropped and not renewed.
    pub(crate) unused: Duration,
}

impl Default for OnDemand {
    fn default() -> Self {
        Self {
            issuer: None,
            allow: None,
            ask: None,
            limits: OnDemandLimits::default(),
            unused: Duration::new("30d"),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Ask {
    Url(SecretText),
    Service(AskService),
}

/// A service that says which names may have a certificate.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub(crate) struct AskService {
    /// The URL; `domain=NAME&client=ADDRESS` is added to its query.
    pub(crate) url: Option<SecretText>,
    /// How long a response may take.
    pub(crate) timeout: Duration,
    /// How long a yes without `Cache-Control` is valid.
    pub(crate) cache_allowed: Duration,
    /// How long a no without `Cache-Control` is valid.
    pub(crate) cache_refused: Duration,
    /// A PEM file with the roots to trust instead of the system's.
    pub(crate) ca_file: Option<String>,
    /// Whether the program that embeds the engine decides, instead of a service: no file can say so.
    #[serde(skip)]
    pub(crate) is_own: bool,
}

impl Default for AskService {
    fn default() -> Self {
        Self {
            url: None,
            timeout: Duration::new("5s"),
            cache_allowed: Duration::new("1h"),
            cache_refused: Duration::new("5m"),
            ca_file: None,
            is_own: false,
        }
    }
}

/// Limits on certificates issued on demand.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OnDemandLimits {
    /// How long a handshake waits for its certificate, from 1ms to 5m. The handshake may take that
    /// much longer.
    pub(crate) max_wait: Duration,
    /// How many handshakes may wait. One client network gets an eighth of them.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) max_waiting: u64,
    /// New names per minute. By default 10 with a CA, 6000 with the local CA.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) per_minute: Option<u64>,
    /// New names of one registered domain: `off`, or how many in which time. By default 50 in 1h
    /// with a CA, `off` with the local CA.
    pub(crate) per_domain: Option<NameLimit>,
    /// New names that the clients of one network (IPv4 /24, IPv6 /56) ask for: `off`, or how many
    /// in which time. By default 20 in 1h with a CA, `off` with the local CA.
    pub(crate) per_client: Option<NameLimit>,
}

impl Default for OnDemandLimits {
    fn default() -> Self {
        Self {
            max_wait: Duration::new("20s"),
            max_waiting: 1024,
            per_minute: None,
            per_domain: None,
            per_client: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum NameLimit {
    Off(Off),
    Names(NameQuota),
}

/// How many names in which time.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["names"]))]
pub(crate) struct NameQuota {
    /// The number of names.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) names: u64,
    /// The time, from 1s to 30d.
    pub(crate) per: Duration,
}

impl Default for NameQuota {
    fn default() -> Self {
        Self {
            names: 1,
            per: Duration::new("1h"),
        }
    }
}
