//! Detects that the clock was set, by comparing it to a monotonic one.
//!
//! The time of day decides what is due and what is valid. It may step, because of a wrong time
//! server or a machine that slept. Spans that were measured (the pace at which a CA is asked) are
//! shifted along, so that a step does not permit another burst.

use std::time::Duration;

use crate::clock::UnixTime;

/// Smaller differences, in seconds, are the normal drift of clocks.
const DRIFT: i64 = 5;

/// Compares the time of day to a monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockStep {
    /// What the time of day was when the monotonic clock began.
    begin: Option<UnixTime>,
}

impl ClockStep {
    /// By how many seconds the time of day was set since the last call: positive if forward, 0 if
    /// it was not.
    ///
    /// `steady` is the time since an arbitrary moment, as from `Instant::elapsed`.
    pub fn measure(&mut self, now: UnixTime, steady: Duration) -> i64 {
        let begin = now - steady;
        let before = self.begin.replace(begin).unwrap_or(begin);
        let leap = begin - before;
        if leap.abs() < DRIFT { 0 } else { leap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn leaps_are_told_once_and_drift_is_none() {
        let mut clock_step = ClockStep::default();
        // (time of day, steady time, step)
        let table = [
            (1000, 10, 0),
            (1600, 610, 0),
            (1603, 611, 0),
            (5603, 612, 3999),
            (5604, 613, 0),
            (1604, 614, -4001),
            (1704, 714, 0),
        ];
        for (now, steady, leap) in table {
            let told = clock_step.measure(unix(now), Duration::from_secs(steady));
            assert_eq!(told, leap, "at {now}");
        }
    }
}
