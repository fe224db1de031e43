//! One address of a server: whether it gets requests, how many it has, and its open connections.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use pingora_core::protocols::l4::socket::SocketAddr;

use super::availability::{Availability, Kept};
use super::connection::IdleConnections;
use super::connection_limit::ConnectionLimit;
use super::http2::Http2Connections;
use super::link::Link;
use super::warm_up::WarmUp;
use crate::config::model::KeepAlive;
use crate::lock::MutexExt as _;

/// One address of a server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(super) address: SocketAddr,
    /// As it is logged.
    pub(crate) text: Box<str>,
    pub(super) availability: Arc<Availability>,
    pub(super) warm_up: Arc<WarmUp>,
    /// The value of the cookie that names it, once it has been computed; `None` if it cannot be.
    pub(super) cookie_value: OnceLock<Option<Box<str>>>,
    /// Requests that use it, those of earlier pools included.
    in_flight: Arc<AtomicUsize>,
    /// Connections that wait for their next request.
    pub(super) idle: Arc<IdleConnections>,
    /// Connections that requests share.
    pub(super) http2: Arc<Http2Connections>,
    /// Those of Pingora's lane; the last one is used first.
    resting: Mutex<Vec<Arc<Link>>>,
    /// Its [`Rank`]: the priority, then the weight.
    rank: AtomicU32,
}

/// Where an address stands among those of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// The lowest is tried first.
    pub(crate) priority: u16,
    /// Its share among those of the same priority.
    pub(crate) weight: u16,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, text: String, keepalive: KeepAlive) -> Self {
        Self {
            address,
            text: text.into(),
            availability: Arc::default(),
            warm_up: Arc::default(),
            cookie_value: OnceLock::new(),
            in_flight: Arc::default(),
            idle: IdleConnections::new(keepalive),
            http2: Http2Connections::new(),
            resting: Mutex::default(),
            rank: AtomicU32::new(1),
        }
    }

    /// This endpoint with what is known of the same address in an earlier pool, as far as `kept`
    /// says. Its connections are not taken over: they may have other settings.
    pub(super) fn succeed(&self, earlier: &Self, kept: Kept) -> Self {
        let endpoint = Self {
            availability: kept.take_over(&earlier.availability),
            warm_up: Arc::clone(&earlier.warm_up),
            in_flight: Arc::clone(&earlier.in_flight),
            ..Self::new(self.address.clone(), self.text.to_string(), self.idle.rule)
        };
        endpoint.set_rank(self.rank());
        endpoint
    }

    /// How many requests use it, shared by the endpoints of an address that succeed each other.
    pub(super) fn request_count(&self) -> &Arc<AtomicUsize> {
        &self.in_flight
    }

    /// Where it stands among the addresses of its server.
    pub(crate) fn rank(&self) -> Rank {
        let [a, b, c, d] = self.rank.load(Ordering::Relaxed).to_be_bytes();
        Rank {
            priority: u16::from_be_bytes([a, b]),
            weight: u16::from_be_bytes([c, d]),
        }
    }

    pub(super) fn set_rank(&self, rank: Rank) {
        let rank = u32::from(rank.priority) << 16 | u32::from(rank.weight);
        self.rank.store(rank, Ordering::Relaxed);
    }

    /// A link for a request: that of a waiting connection, else a new one.
    pub(crate) fn idle_or_new_link(&self) -> Arc<Link> {
        let mut resting = self.resting();
        while let Some(link) = resting.pop() {
            if link.is_open() {
                return link;
            }
        }
        Link::new()
    }

    /// Makes the connection of a link wait for its next request, if it has one and there is room.
    pub(crate) fn keep_idle(&self, link: Arc<Link>, connection_limit: &Arc<ConnectionLimit>) {
        let most = self.idle.rule.connections;
        if !link.is_open() {
            return;
        }
        let mut resting = self.resting();
        if resting.len() >= most {
            // Those that have waited longest are those that servers have closed.
            resting.retain(|link| link.is_open());
        }
        if resting.len() >= most {
            return link.close();
        }
        let Some(idle) = connection_limit.try_keep_idle() else {
            return link.close();
        };
        link.set_idle(idle);
        if resting.len() == resting.capacity() {
            resting.retain(|link| link.is_open());
        }
        resting.push(link);
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.resting.lock_unpoisoned()
    }

    /// How many requests use it.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request that begins, unless there are `most`, if that is not 0. Returns whether it
    /// may begin.
    pub(super) fn try_enter(&self, most: usize) -> bool {
        if most == 0 {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let order = Ordering::Relaxed;
        let enter = |count: usize| (count < most).then(|| count.saturating_add(1));
        self.in_flight.fetch_update(order, order, enter).is_ok()
    }

    /// Counts a request that ends.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
