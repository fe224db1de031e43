//! The place that a connection takes among all others: whether a request is in flight on it, and
//! whether it has to go for another.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

/// What times are counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A connection's place. The connection says what it does; whoever needs its place asks it to go.
#[derive(Debug)]
pub(super) struct Seat {
    in_flight: AtomicUsize,
    /// When the last request ended, in nanoseconds from [`START`].
    last_end: AtomicU64,
    let_go: AtomicBool,
    /// Whether a request has ended since the connection was last looked at because its client took
    /// nothing: the connection may have been idle for long.
    has_stalled: AtomicBool,
    waker: AtomicWaker,
}

impl Default for Seat {
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

impl Seat {
    /// Counts a request, or a handshake, until what is returned is dropped. The connection stays
    /// even where it has just been asked to go.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        if self.let_go.load(Ordering::Relaxed) {
            self.let_go.store(false, Ordering::Relaxed);
        }
        InFlight {
            seat: Arc::clone(self),
            stalled: Arc::default(),
        }
    }

    /// Since when nothing has been in flight; `None` where something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.in_flight.load(Ordering::Acquire) == 0;
        let since = || *START + Duration::from_nanos(self.last_end.load(Ordering::Relaxed));
        is_idle.then(since)
    }

    /// Whether a request has ended since the last call because its client took nothing.
    pub(super) fn take_stalled(&self) -> bool {
        self.has_stalled.swap(false, Ordering::Acquire)
    }

    /// Asks the connection to end, unless a request comes first.
    pub(super) fn let_go(&self) {
        self.let_go.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Whether the connection has been asked to end and has not ended yet.
    pub(super) fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    /// Ready once an idle connection is asked to end.
    pub(super) fn poll_let_go(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_let_go() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    seat: Arc<Seat>,
    stalled: Arc<AtomicBool>,
}

impl InFlight {
    /// Set where the request ends because its client takes nothing. Then it counts for nothing when
    /// the connection is asked how long it has been idle.
    pub(super) fn stalled(&self) -> &Arc<AtomicBool> {
        &self.stalled
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let seat = &*self.seat;
        let stalled = self.stalled.load(Ordering::Relaxed);
        if !stalled {
            seat.last_end.store(now(), Ordering::Relaxed);
        }
        seat.in_flight.fetch_sub(1, Ordering::Release);
        if stalled {
            seat.has_stalled.store(true, Ordering::Release);
            seat.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_between_requests() {
        let seat = Arc::new(Seat::default());
        let at_first = seat.idle_since().expect("idle");
        let (one, two) = (seat.begin(), seat.begin());
        drop(one);
        assert_eq!(seat.idle_since(), None);
        drop(two);
        assert!(seat.idle_since().expect("idle again") > at_first);
    }

    #[tokio::test]
    async fn who_is_let_go_hears_it_unless_a_request_comes_first() {
        let seat = Arc::new(Seat::default());
        let asked = tokio::spawn({
            let seat = Arc::clone(&seat);
            async move { std::future::poll_fn(|cx| seat.poll_let_go(cx)).await }
        });
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        seat.let_go();
        asked.await.expect("it hears");
        drop(seat.begin());
        assert!(!seat.is_let_go());
    }
}
