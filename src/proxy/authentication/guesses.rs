//! Wrong passwords by client, so that none can try many.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::host::client_network;

/// How many wrong passwords a client may send within [`PERIOD`].
pub(super) const MOST: u32 = 10;

/// From the first wrong password on.
const PERIOD: Duration = Duration::from_secs(60);

/// How many clients are counted.
const MOST_CLIENTS: u64 = 64 * 1024;

/// Counts wrong passwords.
pub(super) struct Guesses(Cache<Option<IpAddr>, Arc<AtomicU32>>);

impl Default for Guesses {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(MOST_CLIENTS)
                .time_to_live(PERIOD)
                .build(),
        )
    }
}

impl Guesses {
    /// Whether a client has sent as many as it may. All clients without an address are one.
    pub(super) fn are_used_up(&self, client: Option<IpAddr>) -> bool {
        let count = self.0.get(&client.map(client_network));
        count.is_some_and(|count| count.load(Ordering::Relaxed) >= MOST)
    }

    pub(super) fn count_wrong(&self, client: Option<IpAddr>) {
        let client = client.map(client_network);
        let count = self.0.get_with(client, Arc::default);
        count.fetch_add(1, Ordering::Relaxed);
    }
}
