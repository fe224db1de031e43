//! How many connections to upstreams there may be, and whose they are.
//!
//! Over HTTP/1 a client's connection has one request at an upstream at most; over HTTP/2 it may
//! have a hundred. None may take what all others need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::throttle::Throttle;

/// For each place that a client's connection has, so many must be free.
const SHARE: usize = 4;

/// Connections to upstreams: those in use by requests, and those that wait for one.
#[derive(Debug)]
pub(crate) struct Room {
    used: AtomicUsize,
    most_used: AtomicUsize,
    idle: AtomicUsize,
    most_idle: AtomicUsize,
    /// For those who find no room.
    pub(crate) refusals: Throttle,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            used: AtomicUsize::new(0),
            most_used: AtomicUsize::new(usize::MAX),
            idle: AtomicUsize::new(0),
            most_idle: AtomicUsize::new(usize::MAX),
            refusals: Throttle::default(),
        }
    }
}

impl Room {
    /// Sets how many connections requests may use at a time.
    pub(crate) fn set_most_used(&self, most: usize) {
        self.most_used.store(most, Ordering::Relaxed);
    }

    /// Sets how many connections may wait for a request.
    pub(crate) fn set_most_idle(&self, most: usize) {
        self.most_idle.store(most, Ordering::Relaxed);
    }

    /// A place for a request, `None` where there is none. `limit` is what the configuration
    /// allows, 0 for no limit of its own.
    ///
    /// A client's connection may have a quarter of what it leaves free, and one place in any case.
    /// So greedy ones get less and less, and others find room.
    pub(crate) fn enter(
        self: &Arc<Self>,
        limit: usize,
        connection: Option<&Arc<AtomicUsize>>,
    ) -> Option<Place> {
        let most = self.most_used.load(Ordering::Relaxed);
        let most = match limit {
            0 => most,
            limit => most.min(limit),
        };
        let own = connection.map_or(0, |own| own.load(Ordering::Relaxed));
        let take = |used: usize| {
            let may = own.saturating_mul(SHARE) < most.saturating_sub(used);
            may.then(|| used.saturating_add(1))
        };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        if let Some(own) = connection {
            own.fetch_add(1, Ordering::Relaxed);
        }
        Some(Place {
            room: Arc::clone(self),
            connection: connection.cloned(),
        })
    }

    /// Counts a connection that waits for its next request; `None` where enough do.
    pub(crate) fn keep(self: &Arc<Self>) -> Option<Idle> {
        let most = self.most_idle.load(Ordering::Relaxed);
        let take = |idle: usize| (idle < most).then(|| idle.saturating_add(1));
        self.idle
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        Some(Idle(Arc::clone(self)))
    }

    /// How many connections wait for a request.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }
}

/// A request's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    connection: Option<Arc<AtomicUsize>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.used.fetch_sub(1, Ordering::Relaxed);
        if let Some(own) = &self.connection {
            own.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A connection that waits, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Idle(Arc<Room>);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(most: usize) -> Arc<Room> {
        let room = Room::default();
        room.set_most_used(most);
        Arc::new(room)
    }

    /// As many places as `connection` gets.
    fn fill(room: &Arc<Room>, connection: &Arc<AtomicUsize>) -> Vec<Place> {
        std::iter::from_fn(|| room.enter(0, Some(connection))).collect()
    }

    #[test]
    fn the_greedy_leave_room_for_others() {
        let room = room(100);
        let clients: Vec<Arc<AtomicUsize>> = (0..5).map(|_| Arc::default()).collect();
        let first = fill(&room, &clients[0]);
        assert_eq!(first.len(), 20);
        let mut held: Vec<_> = clients[1..].iter().map(|own| fill(&room, own)).collect();
        assert!(held.iter().all(|places| !places.is_empty()));
        assert!(room.enter(0, Some(&clients[1])).is_none());
        let newcomers: Vec<_> = (0..30).filter_map(|_| room.enter(0, None)).collect();
        assert_eq!(newcomers.len(), 30);
        drop(newcomers);
        drop(first);
        held.clear();
        assert_eq!(fill(&room, &clients[0]).len(), 20, "all is given back");
    }

    #[test]
    fn without_room_nobody_enters() {
        let room = room(2);
        let places: Vec<_> = (0..2).filter_map(|_| room.enter(0, None)).collect();
        assert_eq!(places.len(), 2);
        assert!(room.enter(0, None).is_none());
        drop(places);
        let one = room.enter(1, None);
        assert!(one.is_some());
        assert!(room.enter(1, None).is_none(), "the configuration's limit");
    }

    #[test]
    fn no_more_wait_than_may() {
        let room = room(0);
        room.set_most_idle(1);
        let idle = room.keep();
        assert!(idle.is_some());
        assert!(room.keep().is_none());
        drop(idle);
        assert!(room.keep().is_some());
    }
}
