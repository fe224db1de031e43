//! A timer that costs nothing until it is needed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that is set when something first waits and cleared when it goes on.
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

    /// Ready at `at`; a later call with another time does not move a running timer.
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

    /// Stops the timer. It keeps its memory: what blocked once blocks again.
    pub(super) fn clear(&mut self) {
        self.running = false;
    }

    /// Gives the memory back too.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}
