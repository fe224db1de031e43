//! Time as an argument: decisions take the time from a [`Clock`], so that tests can move it.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A time in whole seconds since the Unix epoch, negative before it. Sums and differences saturate.
///
/// A number added or subtracted is in seconds; the difference of two times is in seconds too, and
/// negative if the second is later. It is shown in UTC in the format of RFC 3339.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The earliest time.
    pub const MIN: Self = Self(i64::MIN);

    /// The latest time.
    pub const MAX: Self = Self(i64::MAX);

    /// The time this many seconds after the Unix epoch.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds)
    }

    /// The seconds since the Unix epoch.
    pub const fn as_secs(self) -> i64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self - earlier).unwrap_or_default())
    }
}

impl Add<i64> for UnixTime {
    type Output = Self;

    fn add(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl Sub<i64> for UnixTime {
    type Output = Self;

    fn sub(self, seconds: i64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }
}

impl Sub for UnixTime {
    type Output = i64;

    fn sub(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self + i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
    }
}

impl Sub<Duration> for UnixTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        self - i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
    }
}

impl AddAssign<i64> for UnixTime {
    fn add_assign(&mut self, seconds: i64) {
        *self = *self + seconds;
    }
}

impl SubAssign<i64> for UnixTime {
    fn sub_assign(&mut self, seconds: i64) {
        *self = *self - seconds;
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

/// The time this many seconds after the Unix epoch.
#[cfg(test)]
pub(crate) const fn unix(seconds: i64) -> UnixTime {
    UnixTime::from_secs(seconds)
}

/// A source of the time of day.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> UnixTime;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> UnixTime {
        (**self).now()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the system"
    )]
    fn now(&self) -> UnixTime {
        let epoch = UnixTime::from_secs(0);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => epoch + since,
            Err(before) => epoch - before.duration(),
        }
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: UnixTime) -> Self {
        Self(AtomicI64::new(now.as_secs()))
    }

    /// Moves the clock by `seconds`, back if they are negative.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_secs(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_saturate() {
        let day = Duration::from_secs(86_400);
        assert_eq!(unix(10) + day, unix(86_410));
        assert_eq!(unix(10) - day, unix(-86_390));
        assert_eq!(unix(10) + Duration::from_millis(1_999), unix(11));
        assert_eq!(UnixTime::MAX + 1, UnixTime::MAX);
        assert_eq!(unix(0) + Duration::MAX, UnixTime::MAX);
        assert_eq!(UnixTime::MIN - day, UnixTime::MIN);
        assert_eq!(UnixTime::MAX - UnixTime::MIN, i64::MAX);
    }

    #[test]
    fn no_time_has_passed_if_the_clock_was_set_back() {
        assert_eq!(unix(10).since(unix(3)), Duration::from_secs(7));
        assert_eq!(unix(3).since(unix(10)), Duration::ZERO);
        assert_eq!(unix(3) - unix(10), -7);
    }

    #[test]
    fn a_time_is_stored_as_a_number_and_shown_as_a_date() {
        let time = unix(1_757_894_400);
        assert_eq!(serde_json::to_string(&time).expect("JSON"), "1757894400");
        assert_eq!(serde_json::from_str(" -5").ok(), Some(unix(-5)));
        assert_eq!(time.to_string(), "2025-09-15T00:00:00Z");
        assert_eq!(UnixTime::MAX.to_string(), i64::MAX.to_string());
    }
}
