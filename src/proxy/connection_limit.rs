//! Limits on connections to upstreams and on open files, and on each client's share of them.
//!
//! Over HTTP/1 a client's connection has at most one request that uses one of either; over HTTP/2 it
//! may have a hundred. None may use up what the others need.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::throttle::Throttle;

/// For each permit that a client's connection holds, this many must be free.
const SHARE: usize = 4;

/// What requests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    UpstreamConnection,
    File,
}

/// What the requests of one client's connection use.
#[derive(Debug, Default)]
pub struct Held {
    upstream_connections: AtomicUsize,
    /// Streams to servers of HTTP/2.
    streams: AtomicUsize,
    files: AtomicUsize,
}

impl Held {
    /// How many of its requests use something.
    pub fn requests(&self) -> usize {
        self.count(Resource::UpstreamConnection) + self.streams() + self.count(Resource::File)
    }

    /// How many streams to servers of HTTP/2 its requests use.
    fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn count(&self, resource: Resource) -> usize {
        self.counter(resource).load(Ordering::Relaxed)
    }

    fn counter(&self, resource: Resource) -> &AtomicUsize {
        match resource {
            Resource::UpstreamConnection => &self.upstream_connections,
            Resource::File => &self.files,
        }
    }

    /// Sets how many of its requests are at upstreams.
    #[cfg(test)]
    pub(crate) fn set_at_upstreams(&self, count: usize) {
        self.upstream_connections.store(count, Ordering::Relaxed);
    }
}

/// Whether a client's connection, which has `held` streams so far, may have another one of which
/// `free` are free.
pub(crate) fn may_share(held: Option<&Arc<Held>>, free: usize) -> bool {
    held.map_or(0, |held| held.streams()).saturating_mul(SHARE) < free
}

/// A stream to a server of HTTP/2, counted as its client's until this is dropped.
#[derive(Debug)]
pub(crate) struct StreamShare(Arc<Held>);

impl StreamShare {
    pub(crate) fn new(held: &Arc<Held>) -> Self {
        held.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(held))
    }
}

impl Drop for StreamShare {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts what requests use of a resource, and idle connections.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    resource: Resource,
    used: AtomicUsize,
    /// How many of those are used by tunnels.
    by_tunnels: AtomicUsize,
    most_used: AtomicUsize,
    idle: AtomicUsize,
    most_idle: AtomicUsize,
    /// Limits how often refusals are logged.
    refusals: Throttle,
    start: Instant,
    /// When a request was last refused because all was used, in milliseconds since `start`, from 1.
    full_at: AtomicU64,
}

impl Default for ConnectionLimit {
    fn default() -> Self {
        Self::of(Resource::UpstreamConnection)
    }
}

impl ConnectionLimit {
    /// No limit yet on the use of a resource.
    pub(crate) fn of(resource: Resource) -> Self {
        Self {
            resource,
            used: AtomicUsize::new(0),
            by_tunnels: AtomicUsize::new(0),
            most_used: AtomicUsize::new(usize::MAX),
            idle: AtomicUsize::new(0),
            most_idle: AtomicUsize::new(usize::MAX),
            refusals: Throttle::default(),
            start: Instant::now(),
            full_at: AtomicU64::new(0),
        }
    }

    /// Sets how many connections, or files, requests may use at a time.
    pub(crate) fn set_most_used(&self, most: usize) {
        self.most_used.store(most, Ordering::Relaxed);
    }

    /// Sets how many connections may be idle.
    pub(crate) fn set_most_idle(&self, most: usize) {
        self.most_idle.store(most, Ordering::Relaxed);
    }

    /// A permit for a request; `None`, which is logged, if there is none. `limit` is what the
    /// configuration allows, 0 if it sets no limit.
    ///
    /// A client's connection, which has `held` so far, may hold a quarter of what it leaves free, and
    /// one permit in any case. So greedy ones get less and less, and there is room for others.
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        limit: usize,
        held: Option<&Arc<Held>>,
    ) -> Option<UpstreamPermit> {
        let most = self.most(limit);
        let own = held.map_or(0, |held| held.count(self.resource));
        let take = |used: usize| {
            let may = own.saturating_mul(SHARE) < most.saturating_sub(used);
            may.then(|| used.saturating_add(1))
        };
        let acquired = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if let Err(used) = acquired {
            // That a client has used its share says nothing about the others.
            if used >= most {
                self.full_at.store(self.elapsed(), Ordering::Relaxed);
            }
            self.log_refusal();
            return None;
        }
        Some(UpstreamPermit {
            used: UsedPermit(Arc::clone(self)),
            share: held.map(|held| Share::new(held, self.resource)),
        })
    }

    /// A permit for a tunnel, like [`Self::try_acquire`]. Tunnels last long, so all of them together
    /// may hold half of what there is.
    pub(crate) fn try_acquire_for_tunnel(self: &Arc<Self>, limit: usize) -> Option<TunnelPermit> {
        let most = self.most(limit).div_ceil(2);
        let take = |used: usize| (used < most).then(|| used.saturating_add(1));
        let share = self
            .by_tunnels
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if share.is_err() {
            self.log_refusal();
            return None;
        }
        let share = TunnelShare(Arc::clone(self));
        let permit = self.try_acquire(limit, None)?;
        Some(TunnelPermit {
            permit,
            _share: share,
        })
    }

    fn most(&self, limit: usize) -> usize {
        let most = self.most_used.load(Ordering::Relaxed);
        match limit {
            0 => most,
            limit => most.min(limit),
        }
    }

    /// Whether a request has been refused within this time because all was used.
    pub(crate) fn was_full_within(&self, time: Duration) -> bool {
        let full_at = self.full_at.load(Ordering::Relaxed);
        let since = Duration::from_millis(self.elapsed().saturating_sub(full_at));
        full_at > 0 && since < time
    }

    fn elapsed(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis());
        elapsed.unwrap_or(u64::MAX).saturating_add(1)
    }

    fn log_refusal(&self) {
        let Some(suppressed) = self.refusals.admit() else {
            return;
        };
        match self.resource {
            Resource::UpstreamConnection => tracing::warn!(
                suppressed,
                "a request is refused with 503: too many are pending at upstreams; see \
                 server.limits.upstream_connections",
            ),
            Resource::File => tracing::warn!(
                suppressed,
                "a request for a file is refused with 503: too many files are open; raise the limit \
                 of the process on open files (LimitNOFILE=)",
            ),
        }
    }

    /// Counts a connection that becomes idle; `None` if enough are.
    pub(crate) fn try_keep_idle(self: &Arc<Self>) -> Option<IdlePermit> {
        let most = self.most_idle.load(Ordering::Relaxed);
        let take = |idle: usize| (idle < most).then(|| idle.saturating_add(1));
        self.idle
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        Some(IdlePermit(Arc::clone(self)))
    }

    /// How many connections are used.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many connections are idle.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }
}

/// A request's permit, returned when it is dropped.
#[derive(Debug)]
pub(crate) struct UpstreamPermit {
    used: UsedPermit,
    share: Option<Share>,
}

impl UpstreamPermit {
    /// What identifies the client's connection while the permit is held, if it may have several
    /// requests.
    pub(crate) fn connection(&self) -> Option<usize> {
        let share = self.share.as_ref()?;
        Some(Arc::as_ptr(&share.held).addr())
    }

    /// What counts a connection that requests share. It is no client's.
    pub(crate) fn into_used(self) -> UsedPermit {
        self.used
    }
}

/// A tunnel's permit, returned when it is dropped.
#[derive(Debug)]
pub(crate) struct TunnelPermit {
    pub(crate) permit: UpstreamPermit,
    _share: TunnelShare,
}

#[derive(Debug)]
struct TunnelShare(Arc<ConnectionLimit>);

impl Drop for TunnelShare {
    fn drop(&mut self) {
        self.0.by_tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request holds on behalf of its client's connection, counted until this is dropped.
#[derive(Debug)]
struct Share {
    held: Arc<Held>,
    resource: Resource,
}

impl Share {
    fn new(held: &Arc<Held>, resource: Resource) -> Self {
        held.counter(resource).fetch_add(1, Ordering::Relaxed);
        let held = Arc::clone(held);
        Self { held, resource }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let counter = self.held.counter(self.resource);
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in use, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct UsedPermit(Arc<ConnectionLimit>);

impl UsedPermit {
    /// Counts the connection as idle instead; `None` if enough are.
    pub(crate) fn into_idle(self) -> Option<IdlePermit> {
        self.0.try_keep_idle()
    }
}

impl Drop for UsedPermit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An idle connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct IdlePermit(Arc<ConnectionLimit>);

impl Drop for IdlePermit {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection_limit(most: usize) -> Arc<ConnectionLimit> {
        let connection_limit = ConnectionLimit::default();
        connection_limit.set_most_used(most);
        Arc::new(connection_limit)
    }

    /// As many places as `connection` gets.
    fn fill(
        connection_limit: &Arc<ConnectionLimit>,
        connection: &Arc<Held>,
    ) -> Vec<UpstreamPermit> {
        std::iter::from_fn(|| connection_limit.try_acquire(0, Some(connection))).collect()
    }

    #[test]
    fn the_greedy_leave_room_for_others() {
        let connection_limit = connection_limit(100);
        let clients: Vec<Arc<Held>> = (0..5).map(|_| Arc::default()).collect();
        let first = fill(&connection_limit, &clients[0]);
        assert_eq!(first.len(), 20);
        let mut held: Vec<_> = clients[1..]
            .iter()
            .map(|own| fill(&connection_limit, own))
            .collect();
        assert!(held.iter().all(|places| !places.is_empty()));
        assert!(connection_limit.try_acquire(0, Some(&clients[1])).is_none());
        let newcomers: Vec<_> = (0..30)
            .filter_map(|_| connection_limit.try_acquire(0, None))
            .collect();
        assert_eq!(newcomers.len(), 30);
        drop(newcomers);
        drop(first);
        held.clear();
        assert_eq!(
            fill(&connection_limit, &clients[0]).len(),
            20,
            "all is given back"
        );
    }

    #[test]
    fn without_room_nobody_enters() {
        let connection_limit = connection_limit(2);
        let places: Vec<_> = (0..2)
            .filter_map(|_| connection_limit.try_acquire(0, None))
            .collect();
        assert_eq!(places.len(), 2);
        assert!(connection_limit.try_acquire(0, None).is_none());
        drop(places);
        let one = connection_limit.try_acquire(1, None);
        assert!(one.is_some());
        assert!(
            connection_limit.try_acquire(1, None).is_none(),
            "the configuration's limit"
        );
    }

    #[test]
    fn a_limit_is_full_if_others_are_refused_too() {
        let limit = connection_limit(2);
        let minute = Duration::from_secs(60);
        let own: Arc<Held> = Arc::default();
        let first = limit.try_acquire(0, Some(&own));
        assert!(limit.try_acquire(0, Some(&own)).is_none(), "its share");
        assert!(!limit.was_full_within(minute));
        let second = limit.try_acquire(0, None);
        assert!(limit.try_acquire(0, None).is_none());
        assert!(limit.was_full_within(minute));
        assert!(!limit.was_full_within(Duration::ZERO));
        drop((first, second));
    }

    #[test]
    fn a_shared_connection_is_counted_once() {
        let connection_limit = connection_limit(10);
        let own: Arc<Held> = Arc::default();
        let mut permits: Vec<_> = (0..2)
            .filter_map(|_| connection_limit.try_acquire(0, Some(&own)))
            .collect();
        let used = permits.pop().expect("two").into_used();
        let count = |own: &Held| own.requests();
        assert_eq!((connection_limit.used(), count(&own)), (2, 1));
        drop(permits);
        assert_eq!((connection_limit.used(), count(&own)), (1, 0));
        let idle = used.into_idle();
        assert_eq!((connection_limit.used(), connection_limit.idle()), (0, 1));
        drop(idle);
        assert_eq!(connection_limit.idle(), 0);
    }

    #[test]
    fn files_leave_a_clients_share_of_upstreams_alone() {
        let upstreams = connection_limit(1);
        let files = Arc::new(ConnectionLimit::of(Resource::File));
        files.set_most_used(2);
        let own: Arc<Held> = Arc::default();
        let file = files.try_acquire(0, Some(&own));
        assert!(file.is_some());
        assert!(files.try_acquire(0, Some(&own)).is_none(), "its share");
        let upstream = upstreams.try_acquire(1, Some(&own));
        assert!(upstream.is_some());
        assert_eq!(own.requests(), 2);
        assert!(files.try_acquire(0, None).is_some());
        drop((file, upstream));
        assert_eq!(own.requests(), 0);
    }

    #[test]
    fn no_more_wait_than_may() {
        let connection_limit = connection_limit(0);
        connection_limit.set_most_idle(1);
        let idle = connection_limit.try_keep_idle();
        assert!(idle.is_some());
        assert!(connection_limit.try_keep_idle().is_none());
        drop(idle);
        assert!(connection_limit.try_keep_idle().is_some());
    }
}
