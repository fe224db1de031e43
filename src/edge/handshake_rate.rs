//! How many TLS handshakes the clients of one network may begin in a second.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::host::client_network;
use crate::token_bucket::{Buckets, Rate};

/// Bounds handshakes: they cost far more than requests, and a client needs few.
#[derive(Default)]
pub(super) struct HandshakeRate {
    per_second: AtomicUsize,
    buckets: Buckets,
}

impl HandshakeRate {
    /// Sets how many handshakes a client may begin in a second, 0 for any number.
    pub(super) fn set_limit(&self, per_second: usize) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// Counts a handshake of a client, and returns whether it may begin.
    pub(super) fn admit(&self, client: IpAddr) -> bool {
        self.admit_at(client, || self.buckets.now())
    }

    fn admit_at(&self, client: IpAddr, now: impl FnOnce() -> u64) -> bool {
        let per_second = self.per_second.load(Ordering::Relaxed);
        let Some(count) = u64::try_from(per_second).ok().filter(|count| *count > 0) else {
            return true;
        };
        let rate = Rate::new(count, Duration::from_secs(1), count);
        let taken = self.buckets.take_token(client_network(client), rate, now());
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_begin_some_handshakes_in_a_second() {
        let handshakes = HandshakeRate::default();
        let admit = |client: &str, second: u64| {
            let client = client.parse().expect("an address");
            handshakes.admit_at(client, || second * 1_000_000_000)
        };
        assert!((0..1000).all(|_| admit("192.0.2.1", 1)), "no limit");
        handshakes.set_limit(2);
        assert!(admit("2001:db8::1", 1) && admit("2001:db8::2", 1));
        assert!(!admit("2001:db8::3", 1));
        assert!(admit("2001:db8:0:1::1", 1), "another network");
        assert!(admit("2001:db8::3", 2));
    }
}
