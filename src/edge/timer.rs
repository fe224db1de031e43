//! A timer that costs nothing until it is needed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that is started when something first waits and cleared when it continues.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Timer {
    /// Ready once `after` has passed since the first call that was not followed by [`Self::clear`].
    pub(super) fn poll_after(&mut self, cx: &mut Context<'_>, after: Duration) -> Poll<()> {
        self.poll_from(cx, || Instant::now() + after)
    }

    /// Ready once `after` has passed since `since`. `since` may advance at no cost: it is read when
    /// the running timer expires.
    pub(super) fn poll_since(
        &mut self,
        cx: &mut Context<'_>,
        after: Duration,
        since: impl Fn() -> Instant,
    ) -> Poll<()> {
        while self.poll_from(cx, || since() + after).is_ready() {
            if since() + after <= Instant::now() {
                return Poll::Ready(());
            }
            self.clear();
        }
        Poll::Pending
    }

    /// Ready at `at`. A later call with another time does not change a running timer.
    fn poll_from(&mut self, cx: &mut Context<'_>, at: impl FnOnce() -> Instant) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !self.running {
                    sleep.as_mut().reset(at());
                }
                sleep
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(at()))),
        };
        self.running = true;
        sleep.as_mut().poll(cx)
    }

    /// Stops the timer. It keeps its memory: what blocked once often blocks again.
    pub(super) fn clear(&mut self) {
        self.running = false;
    }

    /// Releases the memory too.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_beginning_that_moves_on_moves_the_end() {
        let begun = Instant::now();
        let moved = begun + Duration::from_secs(7);
        let mut timer = Timer::default();
        let since = || if Instant::now() < moved { begun } else { moved };
        std::future::poll_fn(|cx| timer.poll_since(cx, Duration::from_secs(10), since)).await;
        assert_eq!(begun.elapsed().as_secs(), 17);
    }
}
