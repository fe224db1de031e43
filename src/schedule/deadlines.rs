//! Upcoming deadlines for a large set of items.

use std::collections::BTreeSet;

use super::DAY;
use crate::clock::UnixTime;

/// How far ahead deadlines are kept in order.
const AHEAD: i64 = DAY;

/// Upcoming deadlines in order. Only those of the next day are held: a million certificates that
/// expire some time this year cost nothing here, and are checked twice a day.
#[derive(Debug)]
pub struct Deadlines<T> {
    last: UnixTime,
    until: UnixTime,
    near: BTreeSet<(UnixTime, T)>,
}

/// What has come due as time passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed<T> {
    /// These.
    These(Vec<T>),
    /// Unknown: everything has to be checked, and added again.
    Unknown,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self {
            last: UnixTime::default(),
            until: UnixTime::default(),
            near: BTreeSet::new(),
        }
    }
}

impl<T: Ord> Deadlines<T> {
    /// Returns true if `time` is held; otherwise [`Self::add`] need not be called.
    pub fn is_near(&self, time: UnixTime) -> bool {
        time > self.last && time <= self.until
    }

    /// Adds `what` at `time`, if that is near. An obsolete deadline need not be removed: whoever
    /// receives it checks anyway.
    pub fn add(&mut self, time: UnixTime, what: T) {
        if self.is_near(time) {
            self.near.insert((time, what));
        }
    }

    /// When [`Self::pass_time`] has something to say at the latest.
    pub fn next(&self) -> UnixTime {
        let checked = self.until - AHEAD / 2 + 1;
        let near = self.near.first();
        near.map_or(checked, |(time, _)| checked.min(*time))
    }

    /// What has come due since the last call, now that it is `now`.
    pub fn pass_time(&mut self, now: UnixTime) -> Passed<T> {
        let is_known = now >= self.last && now <= self.until - AHEAD / 2;
        self.last = now;
        if !is_known {
            self.until = now + AHEAD;
            self.near.clear();
            return Passed::Unknown;
        }
        let mut came = Vec::new();
        while let Some((time, _)) = self.near.first() {
            if *time > now {
                break;
            }
            came.extend(self.near.pop_first().map(|(_, what)| what));
        }
        Passed::These(came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn what_is_near_comes_in_its_time_and_the_rest_when_it_is_near() {
        let mut deadlines = Deadlines::default();
        deadlines.add(NOW + 5, "lost: nobody has said what time it is");
        assert_eq!(deadlines.pass_time(NOW), Passed::Unknown);
        for (time, what) in [(NOW + 20, "b"), (NOW + 10, "a"), (NOW + 10, "a")] {
            deadlines.add(time, what);
        }
        deadlines.add(NOW, "over");
        deadlines.add(NOW + 2 * DAY, "far");
        assert_eq!(deadlines.near.len(), 2);
        assert_eq!(deadlines.next(), NOW + 10);
        assert_eq!(deadlines.pass_time(NOW + 9), Passed::These(vec![]));
        assert_eq!(deadlines.pass_time(NOW + 10), Passed::These(vec!["a"]));
        assert_eq!(deadlines.pass_time(NOW + 30), Passed::These(vec!["b"]));
        assert_eq!(deadlines.next(), NOW + DAY / 2 + 1);
        assert_eq!(deadlines.pass_time(NOW + DAY / 2 + 1), Passed::Unknown);
        assert_eq!(
            deadlines.pass_time(NOW + DAY / 2),
            Passed::Unknown,
            "set back"
        );
        deadlines.add(NOW + DAY, "now it is near");
        let passed = deadlines.pass_time(NOW + DAY);
        assert_eq!(passed, Passed::These(vec!["now it is near"]));
        assert_eq!(
            deadlines.pass_time(NOW + 9 * DAY),
            Passed::Unknown,
            "a leap"
        );
    }
}
