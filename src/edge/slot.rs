//! The slot that a connection occupies: whether a request is in flight on it, and whether it has
//! been asked to close to make room for another.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

/// The origin of all times here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A connection's slot. The connection records what it does; to free the slot, others ask it to
/// close.
#[derive(Debug)]
pub(super) struct Slot {
    in_flight: AtomicUsize,
    /// When the last request ended, in nanoseconds from [`START`].
    last_end: AtomicU64,
    let_go: AtomicBool,
    /// Whether a request has ended since the last call of [`Self::take_stalled`] because its client
    /// stopped reading: the connection may have been idle for long.
    has_stalled: AtomicBool,
    waker: AtomicWaker,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            last_end: AtomicU64::new(now()),
            let_go: AtomicBool::new(false),
            has_stalled: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }
}

impl Slot {
    /// Counts a request until the returned guard is dropped. The connection stays open even if it
    /// has just been asked to close.
    pub(super) fn count_in_flight(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        if self.let_go.load(Ordering::Relaxed) {
            self.let_go.store(false, Ordering::Relaxed);
        }
        InFlight {
            slot: Arc::clone(self),
            stalled: Arc::default(),
        }
    }

    /// Keeps the connection open until the returned guard is dropped. Unlike a request, this leaves
    /// the time since when it has been idle as it is.
    pub(super) fn occupy(&self) -> Occupied<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Occupied(self)
    }

    /// Lets the connection be idle from now on. It stays open even if it has just been asked to
    /// close.
    pub(super) fn restart_idle_time(&self) {
        self.last_end.store(now(), Ordering::Relaxed);
        self.let_go.store(false, Ordering::Relaxed);
    }

    /// Since when nothing has been in flight; `None` while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.in_flight.load(Ordering::Acquire) == 0;
        let since = || *START + Duration::from_nanos(self.last_end.load(Ordering::Relaxed));
        is_idle.then(since)
    }

    /// Whether a request has ended since the last call because its client stopped reading.
    pub(super) fn take_stalled(&self) -> bool {
        self.has_stalled.swap(false, Ordering::Acquire)
    }

    /// Asks the connection to close, unless a request arrives first.
    pub(super) fn request_close(&self) {
        self.let_go.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Whether the connection has been asked to close and is still open.
    pub(super) fn is_close_requested(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    /// Ready once an idle connection is asked to close.
    pub(super) fn poll_close_requested(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_close_requested() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Work of the gateway's own for a connection, see [`Slot::occupy`].
#[derive(Debug)]
pub(super) struct Occupied<'a>(&'a Slot);

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    slot: Arc<Slot>,
    stalled: Arc<AtomicBool>,
}

impl InFlight {
    /// Set if the request ends because its client stopped reading. Then it does not count when the
    /// connection is asked how long it has been idle.
    pub(super) fn stalled(&self) -> &Arc<AtomicBool> {
        &self.stalled
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let slot = &*self.slot;
        let stalled = self.stalled.load(Ordering::Relaxed);
        if !stalled {
            slot.last_end.store(now(), Ordering::Relaxed);
        }
        slot.in_flight.fetch_sub(1, Ordering::Release);
        if stalled {
            slot.has_stalled.store(true, Ordering::Release);
            slot.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_between_requests() {
        let slot = Arc::new(Slot::default());
        let at_first = slot.idle_since().expect("idle");
        let (one, two) = (slot.count_in_flight(), slot.count_in_flight());
        drop(one);
        assert_eq!(slot.idle_since(), None);
        drop(two);
        assert!(slot.idle_since().expect("idle again") > at_first);
    }

    #[tokio::test]
    async fn work_for_a_connection_makes_it_no_younger() {
        let slot = Slot::default();
        let at_first = slot.idle_since().expect("idle");
        let work = slot.occupy();
        assert_eq!(slot.idle_since(), None);
        drop(work);
        assert_eq!(slot.idle_since(), Some(at_first));
        slot.request_close();
        slot.restart_idle_time();
        assert!(!slot.is_close_requested());
        assert!(slot.idle_since().expect("idle") > at_first);
    }

    #[tokio::test]
    async fn who_is_let_go_hears_it_unless_a_request_comes_first() {
        let slot = Arc::new(Slot::default());
        let asked = tokio::spawn({
            let slot = Arc::clone(&slot);
            async move { std::future::poll_fn(|cx| slot.poll_close_requested(cx)).await }
        });
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        slot.request_close();
        asked.await.expect("it hears");
        drop(slot.count_in_flight());
        assert!(!slot.is_close_requested());
    }
}
