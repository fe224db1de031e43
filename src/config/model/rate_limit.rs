//! How many requests are served in a time, and at a time.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

/// How many requests are served in a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// From 1 on.
    pub requests: u64,
    /// The time for them, at least a nanosecond for each.
    pub per: Duration,
    /// How many are served at once after a pause, from 1 on.
    pub burst: u64,
    pub by: RateKey,
    /// Whether responses that are served say how many requests are left.
    pub headers: bool,
}

/// What has a limit of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// The network of the client's address.
    ClientIp,
    /// The value of this field; without it, the client.
    Header(HeaderName),
    /// The user that has been authenticated.
    User,
    /// All clients together.
    Site,
}

/// The limit of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteRate {
    /// Its requests are counted with the others of the site.
    #[default]
    OfSite,
    Off,
    Own(Arc<RateLimit>),
}

/// The limits of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteLimits {
    /// For requests of routes without a limit of their own, and those that no route is for.
    pub rate: Option<Arc<RateLimit>>,
    /// How many requests are in progress at a time, 0 for any number.
    pub max_requests: usize,
}
