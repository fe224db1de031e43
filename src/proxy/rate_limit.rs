//! Refuses requests that are more than a site or a route serves in a time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::config::model::{RateKey, RateLimit};
use crate::host::client_network;
use crate::lock::MutexExt as _;
use crate::proxy::request::Request;
use crate::throttle::Throttle;
use crate::token_bucket::{Buckets, Empty, Left, Rate};

/// The fields of draft-ietf-httpapi-ratelimit-headers.
pub(super) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// What all limits of a process share.
#[derive(Default)]
pub(super) struct RateTable {
    buckets: Buckets,
    next_id: AtomicU64,
    refusals: Throttle,
}

/// Counts requests and refuses those that are too many.
pub(crate) struct RateLimiter {
    limit: Arc<RateLimit>,
    rate: Rate,
    table: Arc<RateTable>,
    /// Part of the keys of its buckets, which all limits share.
    id: u64,
    /// The bucket of all clients together.
    common: Mutex<u64>,
    /// `RateLimit-Policy`.
    policy: HeaderValue,
}

/// What a request is counted by.
#[derive(Hash)]
enum Key<'a> {
    Client(Option<IpAddr>),
    Value(&'a [u8]),
    User(&'a str),
}

/// In how many seconds another request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded(pub(crate) u32);

impl RateLimiter {
    pub(super) fn new(limit: &Arc<RateLimit>, table: &Arc<RateTable>) -> Self {
        let rate = Rate::new(limit.requests, limit.per, limit.burst);
        let (quota, window) = (limit.burst, whole_seconds(rate.window()));
        let policy = HeaderValue::try_from(format!("\"gateway\";q={quota};w={window}"));
        Self {
            limit: Arc::clone(limit),
            rate,
            table: Arc::clone(table),
            id: table.next_id.fetch_add(1, Ordering::Relaxed),
            common: Mutex::default(),
            policy: policy.unwrap_or_else(|_| HeaderValue::from_static("")),
        }
    }

    /// Whether it is of this limit.
    pub(super) fn has_limit(&self, limit: &RateLimit) -> bool {
        *self.limit == *limit
    }

    /// The value of [`POLICY`].
    pub(super) fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// Whether requests are counted by user.
    pub(super) fn is_by_user(&self) -> bool {
        self.limit.by == RateKey::User
    }

    /// Counts a request, and returns what its response says of the limit, if it says anything.
    ///
    /// # Errors
    /// If the request is one too many.
    pub(super) fn count_request(
        &self,
        request: &Request<'_>,
        user: Option<&str>,
    ) -> Result<Option<HeaderValue>, Exceeded> {
        match self.take_token(request, user, self.table.buckets.now()) {
            Ok(left) => Ok(self.limit.headers.then(|| state(left))),
            Err(Empty(wait)) => {
                self.log_refusal(request);
                Err(Exceeded(whole_seconds(wait)))
            }
        }
    }

    fn take_token(
        &self,
        request: &Request<'_>,
        user: Option<&str>,
        now: u64,
    ) -> Result<Left, Empty> {
        let client = || Key::Client(request.client.map(client_network));
        let key = match &self.limit.by {
            RateKey::Site => {
                return self
                    .rate
                    .take_token(&mut self.common.lock_unpoisoned(), now);
            }
            RateKey::ClientIp => client(),
            RateKey::Header(name) => match request.fields.get(name) {
                b"" => client(),
                value => Key::Value(value),
            },
            RateKey::User => user.map_or_else(client, Key::User),
        };
        self.table
            .buckets
            .take_token((self.id, key), self.rate, now)
    }

    fn log_refusal(&self, request: &Request<'_>) {
        if let Some(suppressed) = self.table.refusals.admit() {
            tracing::warn!(
                client = request.client.map(tracing::field::display),
                host = %String::from_utf8_lossy(request.authority),
                requests = self.limit.requests,
                per = ?self.limit.per,
                suppressed,
                "requests are refused with 429: there are more than rate_limit allows",
            );
        }
    }
}

/// The value of [`STATE`] for a request that is refused.
pub(super) fn exhausted(exceeded: Exceeded) -> HeaderValue {
    let text = format!("\"gateway\";r=0;t={}", exceeded.0);
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn state(left: Left) -> HeaderValue {
    let reset = whole_seconds(left.next_in);
    let text = format!("\"gateway\";r={};t={reset}", left.tokens);
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The seconds of a time, of which a part counts as one.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::request::Fields;

    fn limiter(by: RateKey) -> RateLimiter {
        let limit = RateLimit {
            requests: 1,
            per: Duration::from_secs(1),
            burst: 2,
            by,
            headers: true,
        };
        RateLimiter::new(&Arc::new(limit), &Arc::default())
    }

    /// How many of three requests are served.
    fn served(limiter: &RateLimiter, client: &str, key: &str, user: Option<&str>) -> usize {
        let fields = match key {
            "" => "GET / HTTP/1.1\r\n\r\n".to_owned(),
            key => format!("GET / HTTP/1.1\r\nx-key: {key}\r\n\r\n"),
        };
        let request = Request {
            method: "GET",
            target: b"/",
            authority: b"a",
            version: "HTTP/1.1",
            fields: Fields::Lines(fields.as_bytes()),
            client: client.parse().ok(),
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        let served = (0..3).filter(|_| limiter.take_token(&request, user, 1).is_ok());
        served.count()
    }

    #[test]
    fn requests_are_counted_by_client_network() {
        let limiter = limiter(RateKey::ClientIp);
        let served = |client| served(&limiter, client, "", None);
        assert_eq!(served("192.0.2.1"), 2);
        assert_eq!(served("192.0.2.2"), 2);
        assert_eq!(served("::ffff:192.0.2.2"), 0, "the same client");
        assert_eq!(served("2001:db8::1"), 2);
        assert_eq!(served("2001:db8::2"), 0, "the same network");
        assert_eq!(served("2001:db8:0:1::2"), 2);
    }

    #[test]
    fn requests_are_counted_by_other_keys() {
        let by_field = limiter(RateKey::Header(HeaderName::from_static("x-key")));
        assert_eq!(served(&by_field, "192.0.2.1", "a", None), 2);
        assert_eq!(served(&by_field, "192.0.2.2", "a", None), 0);
        assert_eq!(served(&by_field, "192.0.2.2", "b", None), 2);
        assert_eq!(served(&by_field, "192.0.2.2", "", None), 2);
        assert_eq!(served(&by_field, "192.0.2.2", "", None), 0);
        let by_user = limiter(RateKey::User);
        assert_eq!(served(&by_user, "192.0.2.1", "", Some("ann")), 2);
        assert_eq!(served(&by_user, "192.0.2.2", "", Some("ann")), 0);
        assert_eq!(served(&by_user, "192.0.2.2", "", Some("bob")), 2);
        let together = limiter(RateKey::Site);
        assert_eq!(served(&together, "192.0.2.1", "", None), 2);
        assert_eq!(served(&together, "192.0.2.2", "", None), 0);
    }

    #[test]
    fn limits_are_described_in_fields() {
        let limiter = limiter(RateKey::ClientIp);
        assert_eq!(limiter.policy, "\"gateway\";q=2;w=2");
        let left = Left {
            tokens: 1,
            next_in: Duration::from_millis(1001),
        };
        assert_eq!(state(left), "\"gateway\";r=1;t=2");
        assert_eq!(exhausted(Exceeded(7)), "\"gateway\";r=0;t=7");
    }
}
