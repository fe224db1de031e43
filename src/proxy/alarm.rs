//! A timer for deadlines that are mostly moved before they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A timer that is set again only when it rings, or when a deadline is earlier than the one that it
/// is set for. So a deadline that moves on with each request costs nothing.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready at `deadline`. The task is woken no later than that, and sometimes earlier.
    pub(super) fn poll_at(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_last_deadline_whatever_came_before() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut alarm = Alarm::default();
        for deadline in [20, 40, 5, 30] {
            let now = poll_fn(|cx| Poll::Ready(alarm.poll_at(cx, at(deadline))));
            assert!(now.await.is_pending());
        }
        poll_fn(|cx| alarm.poll_at(cx, at(10))).await;
        assert_eq!(begun.elapsed().as_secs(), 10);
        poll_fn(|cx| alarm.poll_at(cx, at(60))).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
    }
}
