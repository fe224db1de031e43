//! How fast a client sends the body of its request.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::timer::Timer;

/// The least that a client must send of a body, averaged over the time spent waiting for it.
const MIN_BYTES_PER_SECOND: u64 = 1024;

/// How long a client may be slower than that.
const SLOW_START: Duration = Duration::from_secs(10);

/// The rate at which a body arrives, counting only the time spent waiting for the client: it is not
/// to blame for an upstream that reads the body slowly.
pub(super) struct Pace {
    /// How long a client may send nothing.
    idle: Duration,
    received: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    /// Runs while the body is waited for; after its end, while nothing is sent to a client that has
    /// closed its side.
    pub(super) timer: Timer,
}

impl Pace {
    /// For a client that may send nothing for `idle`.
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            idle,
            received: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            timer: Timer::default(),
        }
    }

    /// Starts anew with the next body. The timer keeps its memory.
    pub(super) fn begin(&mut self) {
        (self.received, self.waited) = (0, Duration::ZERO);
        self.waiting_since = None;
        self.timer.clear();
    }

    pub(super) fn advance(&mut self, received: usize) {
        self.received += received as u64;
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
            self.timer.clear();
        }
    }

    /// Fails once the client has been too slow for too long.
    pub(super) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting_since.get_or_insert_with(Instant::now);
        let allowed = Duration::from_secs(self.received / MIN_BYTES_PER_SECOND).max(SLOW_START);
        ready!(
            self.timer
                .poll_after(cx, allowed.saturating_sub(self.waited).min(self.idle))
        );
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client sends its body too slowly",
        )))
    }

    pub(super) fn release(&mut self) {
        self.timer.release();
    }
}
