//! How many connections may be open, in total and per client.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::slot::Slot;
use crate::host::client_network;
use crate::lock::MutexExt as _;

/// How long a connection has to be idle before it may be closed for another: the next request often
/// follows at once.
const IDLE: Duration = Duration::from_secs(1);

/// How often idle connections are searched for while there is no room.
const LOOK: Duration = Duration::from_millis(100);

/// The fraction of all connections that is closed at once if there are many: finding those that
/// have been idle longest means checking all of them.
const PART: usize = 64;

/// Counts open connections and limits them.
///
/// In total: to make room for one more, the connection that has been idle longest is closed. If
/// none is idle, no more are accepted. They wait in the kernel's queue until one ends, so a short
/// peak causes no errors. Per client: connections over the limit are closed, so that one client
/// cannot fill the queue that all share.
#[derive(Default)]
pub(super) struct Connections {
    open: AtomicUsize,
    max: AtomicUsize,
    max_per_client: AtomicUsize,
    ended: Notify,
    by_client: Mutex<HashMap<IpAddr, usize>>,
    slots: Mutex<Slots>,
}

/// The slots of all open connections.
#[derive(Default)]
struct Slots {
    /// By their address in memory.
    all: HashMap<usize, Arc<Slot>>,
    /// When idle connections were last searched for, and whether there were enough.
    looked: Option<(Instant, bool)>,
}

impl Slots {
    /// Asks the `count` connections that have been idle longest to close. Connections that were
    /// asked before and are still open count, so that they have time to close.
    fn request_closes(&mut self, count: usize) {
        let now = Instant::now();
        let on_their_way = || {
            self.all
                .values()
                .filter(|slot| slot.is_close_requested())
                .count()
        };
        let wanted = match self.looked {
            Some((at, enough)) if now - at < LOOK => {
                if enough {
                    count.saturating_sub(on_their_way())
                } else {
                    0
                }
            }
            _ => count,
        };
        if wanted == 0 {
            return;
        }
        let mut idle: Vec<_> = self
            .all
            .values()
            .filter(|slot| !slot.is_close_requested())
            .filter_map(|slot| Some((slot.idle_since()?, slot)))
            .filter(|&(since, _)| now.saturating_duration_since(since) >= IDLE)
            .collect();
        self.looked = Some((now, idle.len() >= wanted));
        if wanted < idle.len() {
            idle.select_nth_unstable_by_key(wanted, |&(since, _)| since);
        }
        for (_, slot) in idle.into_iter().take(wanted) {
            slot.request_close();
        }
    }
}

impl Connections {
    /// Sets the limits, 0 for none. Open connections stay open.
    pub(super) fn set_limits(&self, max: usize, max_per_client: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.max_per_client.store(max_per_client, Ordering::Relaxed);
        self.ended.notify_waiters();
    }

    /// Waits until there is room for all that have been admitted. Makes room by closing idle
    /// connections.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let ended = self.ended.notified();
            if self.has_room() {
                return;
            }
            let (open, max) = (self.open(), self.max());
            let too_many = open.saturating_sub(max);
            self.slots().request_closes(too_many.max(open / PART));
            // Connections that are busy or young now are checked again later.
            _ = tokio::time::timeout(LOOK, ended).await;
        }
    }

    /// Whether no more connections are open than allowed.
    pub(super) fn has_room(&self) -> bool {
        let max = self.max();
        max == 0 || self.open() <= max
    }

    /// How many connections may be open, 0 for no limit.
    pub(super) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Counts a connection of `client` for as long as the guard lives; `None` if the client has as
    /// many as allowed.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        gauge: IntGauge,
    ) -> Option<ConnectionGuard> {
        let counted = self.count_client(client)?;
        Some(self.admit_counted(counted, gauge))
    }

    /// Counts a connection whose client is not known yet, see [`ConnectionGuard::count_client`].
    pub(super) fn admit_unknown(self: &Arc<Self>, gauge: IntGauge) -> ConnectionGuard {
        self.admit_counted(None, gauge)
    }

    /// Counts a connection for its client, and returns what it counts for, if clients are limited;
    /// `None` if the client has as many as allowed.
    #[expect(
        clippy::option_option,
        reason = "refused, or admitted with or without a count"
    )]
    fn count_client(&self, client: IpAddr) -> Option<Option<IpAddr>> {
        let max = self.max_per_client.load(Ordering::Relaxed);
        if max == 0 {
            return Some(None);
        }
        let client = client_network(client);
        let mut clients = self.clients();
        let open = clients.entry(client).or_insert(0);
        if *open >= max {
            return None;
        }
        *open += 1;
        Some(Some(client))
    }

    fn admit_counted(self: &Arc<Self>, client: Option<IpAddr>, gauge: IntGauge) -> ConnectionGuard {
        self.open.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        let slot = Arc::new(Slot::default());
        self.slots().all.insert(key(&slot), Arc::clone(&slot));
        ConnectionGuard {
            connections: Arc::clone(self),
            client,
            gauge,
            slot,
        }
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open.
    pub(super) async fn wait_until_none_open(&self) {
        loop {
            let ended = self.ended.notified();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock_unpoisoned()
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_client.lock_unpoisoned()
    }
}

/// One open connection.
pub(super) struct ConnectionGuard {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
    gauge: IntGauge,
    slot: Arc<Slot>,
}

fn key(slot: &Arc<Slot>) -> usize {
    Arc::as_ptr(slot) as usize
}

impl ConnectionGuard {
    /// The connection's slot.
    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Counts a connection for its client, which is known now, and returns whether it may stay: not
    /// if the client has as many as allowed.
    pub(super) fn count_client(&mut self, client: IpAddr) -> bool {
        let counted = self.connections.count_client(client);
        self.client = counted.flatten();
        counted.is_some()
    }
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
        self.connections.slots().all.remove(&key(&self.slot));
        self.gauge.dec();
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.ended.notify_waiters();
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

    #[test]
    fn a_client_that_is_known_later_counts_from_then_on() {
        let connections = Arc::new(Connections::default());
        connections.set_limits(0, 1);
        let mut first = connections.admit_unknown(gauge());
        let mut second = connections.admit_unknown(gauge());
        assert_eq!(connections.open(), 2);
        assert!(first.count_client(CLIENT));
        assert!(!second.count_client(CLIENT));
        drop(second);
        assert!(connections.admit(CLIENT, gauge()).is_none());
        drop(first);
        assert!(connections.admit(CLIENT, gauge()).is_some());
        assert_eq!(connections.open(), 0);
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn admit(connections: &Arc<Connections>) -> ConnectionGuard {
        connections.admit(CLIENT, gauge()).expect("room")
    }

    #[tokio::test]
    async fn the_total_is_waited_for() {
        let connections = Arc::new(Connections::default());
        connections.set_limits(1, 0);
        let first = admit(&connections);
        connections.wait_for_room().await;
        let _in_flight = first.slot().count_in_flight();
        let second = admit(&connections);
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.wait_for_room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("room again");
        drop(second);
        connections.wait_until_none_open().await;
    }

    #[tokio::test(start_paused = true)]
    async fn those_idle_longest_go_for_new_ones() {
        let connections = Arc::new(Connections::default());
        connections.set_limits(4, 0);
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(admit(&connections));
            tokio::time::sleep(IDLE).await;
        }
        // The oldest is busy; the second had a request since and is the youngest now.
        let in_flight = open[0].slot().count_in_flight();
        drop(open[1].slot().count_in_flight());
        let let_go = |open: &[ConnectionGuard]| -> Vec<usize> {
            (0..open.len())
                .filter(|&at| open[at].slot().is_close_requested())
                .collect()
        };
        open.push(admit(&connections));
        let room = tokio::time::timeout(LOOK / 2, connections.wait_for_room());
        assert!(room.await.is_err(), "none has gone yet");
        assert_eq!(let_go(&open), [2]);
        // A request arrives before it has closed: another one closes instead.
        let second = open[2].slot().count_in_flight();
        let room = tokio::time::timeout(LOOK / 4, connections.wait_for_room());
        assert!(room.await.is_err());
        assert_eq!(let_go(&open), [3]);
        open.remove(3);
        connections.wait_for_room().await;
        drop((in_flight, second));
    }
}
