//! How the configured pace is waited for.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant as Moment;

use crate::clock::UnixTime;
use crate::config::model::OrderLimit;
use crate::schedule::{Wait, WaitReason};

/// How long the first in a queue waits for the pace, in seconds.
const PATIENCE: i64 = 10;

const SECOND: Duration = Duration::from_secs(1);

/// Waits for the rest of a second: the limiter counts whole ones, and so lets go early by less than
/// one.
pub(super) async fn keep_pace(let_go: &mut VecDeque<Moment>, pace: OrderLimit) {
    let orders = usize::try_from(pace.orders.max(1)).unwrap_or(usize::MAX);
    while let_go.len() >= orders {
        let Some(oldest) = let_go.pop_front() else {
            break;
        };
        let rest = (oldest + pace.per).saturating_duration_since(Moment::now());
        tokio::time::sleep(rest.min(SECOND)).await;
    }
    let_go.push_back(Moment::now());
}

/// How long to wait here, `None` for longer than anybody does.
pub(super) fn waited_for(wait: &Wait, now: UnixTime) -> Option<Duration> {
    let seconds = wait.until.saturating_sub(now);
    let is_short = wait.reason == WaitReason::Pace && seconds <= PATIENCE;
    // Seconds of the clock begin when they like.
    let seconds = u64::try_from(seconds.max(1)).ok().filter(|_| is_short)?;
    Some(Duration::from_secs(seconds))
}
