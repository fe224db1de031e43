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

/// How often it is looked whether a client has hung up that is not read from, and how many looks in
/// a row must find it.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u8 = 4;

/// The rate at which a body arrives, counting only the time spent waiting for the client: it is not
/// to blame for an upstream that reads the body slowly.
pub(super) struct Pace {
    /// How long a client may send nothing.
    idle: Duration,
    received: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    /// Whether the client waits for `100 Continue` and so is not waited for.
    is_held: bool,
    /// While nothing is read from the client: how many of the last looks have found it gone.
    looks: Option<u8>,
    /// Runs while the body is waited for; between two looks at a client that is not read from; after
    /// the end of the body, while nothing is sent to a client that has closed its side.
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
            is_held: false,
            looks: None,
            timer: Timer::default(),
        }
    }

    /// Starts anew with the next body. The timer keeps its memory.
    pub(super) fn begin(&mut self) {
        (self.received, self.waited) = (0, Duration::ZERO);
        self.waiting_since = None;
        self.is_held = false;
        self.looks = None;
        self.timer.clear();
    }

    /// Does not count time until the body begins or [`Self::resume`] is called.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// Counts time from now on, since the client has got `100 Continue`.
    pub(super) fn resume(&mut self) {
        self.is_held = false;
    }

    pub(super) fn advance(&mut self, received: usize) {
        self.received += received as u64;
        self.is_held &= received == 0;
        self.end_looks();
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
            self.timer.clear();
        }
    }

    /// Fails once the client has been too slow for too long.
    pub(super) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_held {
            return Poll::Pending;
        }
        self.end_looks();
        self.waiting_since.get_or_insert_with(Instant::now);
        let allowed =
            Duration::from_millis(self.received.saturating_mul(1000) / MIN_BYTES_PER_SECOND)
                .max(SLOW_START);
        ready!(
            self.timer
                .poll_after(cx, allowed.saturating_sub(self.waited).min(self.idle))
        );
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client sends its body too slowly",
        )))
    }

    /// Ready once `has_hung_up` has said for some seconds that the client has. It is asked only while
    /// nothing is read from the client.
    pub(super) fn poll_hung_up(
        &mut self,
        cx: &mut Context<'_>,
        has_hung_up: impl Fn() -> bool,
    ) -> Poll<()> {
        if self.looks.is_none() {
            self.timer.clear();
        }
        loop {
            let looks = *self.looks.get_or_insert(0);
            ready!(self.timer.poll_after(cx, LOOK));
            self.timer.clear();
            let looks = if has_hung_up() { looks + 1 } else { 0 };
            if looks >= LOOKS {
                return Poll::Ready(());
            }
            self.looks = Some(looks);
        }
    }

    /// Ends the looks at a client that is read from again.
    pub(super) fn end_looks(&mut self) {
        if self.looks.take().is_some() {
            self.timer.clear();
        }
    }

    pub(super) fn release(&mut self) {
        self.timer.release();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{sleep, timeout};

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    /// Waits for a client until it is too slow. Returns how long that took.
    async fn await_too_slow(pace: &mut Pace) -> Duration {
        let begun = Instant::now();
        let slow = poll_fn(|cx| pace.poll_too_slow(cx)).await;
        let error = slow.expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    }

    /// Waits for the next `octets`, which come after `time`. Returns whether they are waited for.
    async fn receive(pace: &mut Pace, time: Duration, octets: usize) -> bool {
        let waited = timeout(time, poll_fn(|cx| pace.poll_too_slow(cx))).await;
        pace.advance(octets);
        waited.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_for_a_moment() {
        assert_eq!(await_too_slow(&mut Pace::new(IDLE)).await, SLOW_START);
        let mut crawling = Pace::new(IDLE);
        let begun = Instant::now();
        while receive(&mut crawling, SECOND, 900).await {}
        assert_eq!(begun.elapsed(), SLOW_START);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_fast_enough_is_never_cut() {
        let mut pace = Pace::new(IDLE);
        for second in 0..600 {
            assert!(receive(&mut pace, SECOND, 1300).await, "after {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_fast_may_pause_but_for_no_longer_than_any() {
        let mut pace = Pace::new(IDLE);
        assert!(receive(&mut pace, SECOND, 31 * 1024).await);
        assert_eq!(await_too_slow(&mut pace).await, 30 * SECOND);

        let mut pace = Pace::new(IDLE);
        assert!(receive(&mut pace, SECOND, 10 << 20).await);
        assert_eq!(await_too_slow(&mut pace).await, IDLE);

        let mut pace = Pace::new(SLOW_START / 2);
        assert_eq!(await_too_slow(&mut pace).await, SLOW_START / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_client_is_not_waited_for_does_not_count() {
        let mut pace = Pace::new(IDLE);
        for _ in 0..5 {
            assert!(receive(&mut pace, SECOND, 1).await);
            sleep(IDLE * 2).await;
        }
        assert_eq!(await_too_slow(&mut pace).await, SLOW_START - 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_its_server_is_not_slow() {
        let begin: [fn(&mut Pace); 2] = [Pace::resume, |pace| pace.advance(1)];
        for begin in begin {
            let mut pace = Pace::new(IDLE);
            pace.hold();
            assert!(receive(&mut pace, IDLE * 2, 0).await);
            begin(&mut pace);
            assert_eq!(await_too_slow(&mut pace).await, SLOW_START);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_not_read_from_has_hung_up_if_it_stays_so() {
        let mut pace = Pace::new(IDLE);
        assert!(receive(&mut pace, SECOND, 1).await);
        let begun = Instant::now();
        let gone_from = |second: u64| move || begun.elapsed() >= Duration::from_secs(second);
        poll_fn(|cx| pace.poll_hung_up(cx, gone_from(20))).await;
        assert_eq!(begun.elapsed(), 23 * SECOND);
        // Its time without a look is as long as before.
        assert_eq!(await_too_slow(&mut pace).await, SLOW_START - SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn each_body_is_paced_by_itself() {
        let mut pace = Pace::new(IDLE);
        assert!(receive(&mut pace, SECOND, 1 << 20).await);
        pace.begin();
        assert!(receive(&mut pace, 9 * SECOND, 1).await);
        pace.begin();
        assert_eq!(await_too_slow(&mut pace).await, SLOW_START);
    }
}
