//! How long a server may take to accept a request.

use std::time::Duration;

use tokio::time::Instant;

/// The least that a server must accept of a request, in octets per second, averaged over the time
/// spent waiting for it.
const MIN_RATE: u64 = 1024;

/// The time that a server has been waited for to accept more of a request. The time that the client
/// takes to send it does not count.
#[derive(Debug, Default)]
pub(super) struct SendPace {
    /// Without the current wait.
    waited: Duration,
    /// Since when the server is waited for, if it is.
    since: Option<Instant>,
}

impl SendPace {
    /// Records whether the server is waited for.
    pub(super) fn note(&mut self, is_waiting: bool) {
        if is_waiting {
            self.since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Until when the server may be waited for: for `patience` in all, or for as long as the octets
    /// that it has accepted take at [`MIN_RATE`].
    pub(super) fn deadline(&self, patience: Duration, accepted: impl FnOnce() -> u64) -> Instant {
        let now = Instant::now();
        let since = self.since.unwrap_or(now);
        let until = |allowed: Duration| since + allowed.saturating_sub(self.waited);
        let earliest = until(patience);
        if now < earliest {
            return earliest;
        }
        earliest.max(until(Duration::from_secs(accepted() / MIN_RATE)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_time_spent_waiting_counts() {
        let mut pace = SendPace::default();
        pace.note(true);
        advance(seconds(4)).await;
        pace.note(false);
        sleep(seconds(100)).await;
        pace.note(true);
        let left =
            |pace: &SendPace, accepted| pace.deadline(seconds(5), || accepted) - Instant::now();
        assert_eq!(left(&pace, 0), seconds(1));
        advance(seconds(1)).await;
        assert_eq!(left(&pace, 0), Duration::ZERO);
        assert_eq!(left(&pace, 20 * MIN_RATE), seconds(15));
    }
}
