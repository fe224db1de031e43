//! How many connections there may be, in total and of one client.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::sync::Notify;

/// Counts open connections and says when there are enough.
///
/// In total: no more are accepted, they wait in the kernel's queue until one ends, which is how a
/// short peak costs nobody an error. Of one client: those over the limit are closed, so that one
/// client cannot fill the queue that all share.
#[derive(Default)]
pub(super) struct Connections {
    open: AtomicUsize,
    max: AtomicUsize,
    max_per_client: AtomicUsize,
    ended: Notify,
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

impl Connections {
    /// Sets the limits, 0 for none. Connections that are open stay.
    pub(super) fn set_limits(&self, max: usize, max_per_client: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.max_per_client.store(max_per_client, Ordering::Relaxed);
        self.ended.notify_waiters();
    }

    /// Waits until one more connection may be accepted.
    pub(super) async fn room(&self) {
        loop {
            let ended = self.ended.notified();
            if self.has_room() {
                return;
            }
            ended.await;
        }
    }

    fn has_room(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        max == 0 || self.open.load(Ordering::Relaxed) < max
    }

    /// Counts a connection of `client` for as long as the guard lives; `None` where the client has
    /// as many as it may.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        gauge: IntGauge,
    ) -> Option<ConnectionGuard> {
        let max = self.max_per_client.load(Ordering::Relaxed);
        let client = network(client);
        let counted = max > 0;
        if counted {
            let mut clients = self.clients();
            let open = clients.entry(client).or_insert(0);
            if *open >= max {
                return None;
            }
            *open += 1;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        Some(ConnectionGuard {
            connections: Arc::clone(self),
            client: counted.then_some(client),
            gauge,
        })
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open.
    pub(super) async fn none_open(&self) {
        loop {
            let ended = self.ended.notified();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection.
pub(super) struct ConnectionGuard {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
    gauge: IntGauge,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let Some(client) = self.client
            && let Entry::Occupied(mut open) = self.connections.clients().entry(client)
        {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        self.gauge.dec();
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.ended.notify_waiters();
    }
}

/// What counts as one client: an IPv4 address, or the /64 that one IPv6 subscriber gets.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge() -> IntGauge {
        IntGauge::new("open", "open").expect("a valid name")
    }

    #[test]
    fn one_client_gets_no_more_than_its_share() {
        let connections = Arc::new(Connections::default());
        connections.set_limits(0, 2);
        let client = "2001:db8::1".parse().expect("an address");
        let neighbour = "2001:db8::2".parse().expect("an address");
        let other = "2001:db8:0:1::1".parse().expect("an address");
        let first = connections.admit(client, gauge()).expect("room");
        let _second = connections.admit(neighbour, gauge()).expect("room");
        assert!(connections.admit(client, gauge()).is_none());
        assert!(connections.admit(other, gauge()).is_some());
        drop(first);
        assert!(connections.admit(client, gauge()).is_some());
        assert_eq!(connections.open(), 1);
    }

    #[tokio::test]
    async fn the_total_is_waited_for() {
        let connections = Arc::new(Connections::default());
        connections.set_limits(1, 0);
        connections.room().await;
        let guard = connections.admit(IpAddr::from([127, 0, 0, 1]), gauge());
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guard);
        waiting.await.expect("room again");
        connections.none_open().await;
    }
}
