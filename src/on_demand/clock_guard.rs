//! Whether the clock can be trusted with what cannot be undone.
//!
//! A clock that is years ahead makes all names look unused. What is removed from the storage is
//! lost, keys included. So nothing is removed before the clock has been right for a while.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::schedule::ClockStep;

/// How long a process has to be up: by then its clock is set, if it can be.
const AT_FIRST: Duration = Duration::from_secs(3600);

/// A step of more seconds than this is no mere correction.
const LEAP: i64 = 3600;

/// How long nothing is removed after a step: time to notice it, and for names to be used.
const AFTER_LEAP: Duration = Duration::from_secs(86_400);

/// Watches the clock.
#[derive(Debug)]
pub(super) struct ClockGuard {
    clock_step: ClockStep,
    /// How long the process has to be up until the clock is trusted.
    from: Duration,
}

impl Default for ClockGuard {
    fn default() -> Self {
        Self {
            clock_step: ClockStep::default(),
            from: AT_FIRST,
        }
    }
}

impl ClockGuard {
    /// Whether the clock, which says `now`, can be trusted; the process has been `up` so long.
    pub(super) fn is_trusted(&mut self, now: UnixTime, up: Duration) -> bool {
        let leap = self.clock_step.measure(now, up);
        if leap.saturating_abs() > LEAP {
            tracing::warn!(
                seconds = leap,
                "the clock jumped: no on-demand certificate will be deleted for a day"
            );
            self.from = up.saturating_add(AFTER_LEAP);
        }
        up >= self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn a_new_process_and_a_leap_are_no_calm() {
        const HOUR: u64 = 3600;
        let mut clock_guard = ClockGuard::default();
        let mut holds = |now, hours| clock_guard.is_trusted(now, Duration::from_secs(hours * HOUR));
        assert!(!holds(unix(1_000_000), 0));
        assert!(holds(unix(1_000_000 + 3600), 1));
        assert!(
            holds(unix(1_000_000 + 3600 + 1800), 1),
            "half an hour is a correction"
        );
        let year = 365 * 86_400;
        assert!(!holds(unix(year + 1_000_000 + 2 * 3600), 2));
        assert!(!holds(unix(year + 1_000_000 + 25 * 3600), 25));
        assert!(holds(unix(year + 1_000_000 + 26 * 3600), 26));
        assert!(!holds(unix(1_000_000 + 27 * 3600), 27), "back again");
        assert!(holds(unix(1_000_000 + 51 * 3600), 51));
    }
}
