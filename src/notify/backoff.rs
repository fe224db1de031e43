//! How long to wait after a failed delivery, and when to give up.

use std::time::Duration;

use super::Retry;

/// The first pause, which doubles from one attempt to the next.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause, unless the recipient asks for more.
const LONGEST: Duration = Duration::from_secs(600);

/// The longest one that a recipient may ask for. It may well be wrong about itself.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// How long after it was composed a notification is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// How long to wait before the next attempt, after so many have failed and the notification is of this
/// `age`; `None` to give up. `random` is from 0 to 1, so that recipients are not all tried at once.
pub(super) fn pause(retry: Retry, attempts: u32, age: Duration, random: f64) -> Option<Duration> {
    let doublings = attempts.saturating_sub(1).min(16);
    let longest = (FIRST * (1 << doublings)).min(LONGEST);
    // From half of it to all of it.
    let own = longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
    let pause = match retry {
        Retry::Never => return None,
        Retry::Later => own,
        Retry::After(asked) => asked.min(LONGEST_ASKED).max(own),
    };
    (age.saturating_add(pause) < GIVE_UP).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_ten_minutes_for_a_day() {
        let seconds = |attempts, random| {
            let pause = pause(Retry::Later, attempts, Duration::ZERO, random);
            pause.expect("it continues").as_secs_f64()
        };
        assert_eq!(seconds(1, 1.0), 1.0);
        assert_eq!(seconds(1, 0.0), 0.5);
        assert_eq!(seconds(4, 1.0), 8.0);
        assert_eq!(seconds(100, 1.0), 600.0);
        let hour = Duration::from_secs(3600);
        assert_eq!(pause(Retry::Later, 100, hour * 24, 1.0), None);
        assert_eq!(pause(Retry::Never, 1, Duration::ZERO, 1.0), None);
        let after = Retry::After(hour);
        assert_eq!(pause(after, 1, Duration::ZERO, 1.0), Some(hour));
        for asked in [hour * 48, Duration::MAX] {
            let pause = pause(Retry::After(asked), 1, Duration::ZERO, 1.0);
            assert_eq!(pause, Some(hour), "no reason to give up at once");
        }
        assert_eq!(pause(after, 1, hour * 23, 1.0), None, "not in time");
        let soon = Retry::After(Duration::ZERO);
        assert_eq!(
            pause(soon, 3, Duration::ZERO, 1.0),
            Some(Duration::from_secs(4))
        );
    }
}
