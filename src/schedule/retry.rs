//! When a certificate that could not be obtained is retried.
//!
//! A [`Retry`] records the failures of one certificate. It is stored, so that a restart does not
//! start over at the CA's expense, and each is made from its predecessor by [`Retry::after`] alone.
//! Each class of failure has its own patience; a CA's wishes are obeyed, and a certificate that
//! expires soon is retried more often.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::{DAY, Failure, FailureClass, HOUR, Lifetime, MINUTE, Scope};
use crate::clock::UnixTime;

/// After failing for this long, it is tried daily.
const LONG: i64 = 30 * DAY;

/// The longest rate limit of a CA that is believed: public CAs count by the week.
pub(super) const LONGEST_LIMIT: i64 = 7 * DAY;

/// How long a limit lasts if the CA does not say.
pub(super) const UNSAID_LIMIT: i64 = HOUR;

/// The longest time for which a CA that is too busy is not asked.
const LONGEST_BUSY: i64 = 6 * HOUR;

/// How long it is not asked if it does not say.
const UNSAID_BUSY: i64 = 10 * MINUTE;

/// How many failed validations of a name in an hour we risk at a CA: public ones allow five, and
/// count by their own clocks.
pub const FAILED_VALIDATIONS: u32 = 4;

/// For how long a failed validation counts.
const COUNTS: i64 = HOUR + MINUTE;

/// How far a failure may lie in the future because of differing clocks.
const SKEW: i64 = MINUTE;

/// The share of a certificate's remaining time after which it is retried at the latest: 1/10.
const SHARE: i64 = 10;

/// The failures in a row of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// How many there were.
    pub failures: u32,
    /// How many there were of each class.
    pub classes: BTreeMap<FailureClass, u32>,
    /// When the first one was.
    pub first: UnixTime,
    /// When the last one was.
    pub last: UnixTime,
    /// When the next attempt is due; `None` if never automatically.
    pub next: Option<UnixTime>,
    /// The class of the last one.
    pub class: FailureClass,
    /// Why the last failed, for people.
    pub message: String,
    /// A page of the CA about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The issuer that failed last, by its name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// When validations of one name failed at the CA, as far as it still counts them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validations: Vec<UnixTime>,
}

impl Default for Retry {
    /// Replaces members that a stored one lacks: due immediately.
    fn default() -> Self {
        Self {
            failures: 1,
            classes: BTreeMap::new(),
            first: UnixTime::default(),
            last: UnixTime::default(),
            next: Some(UnixTime::default()),
            class: FailureClass::default(),
            message: String::new(),
            url: None,
            issuer: None,
            validations: Vec::new(),
        }
    }
}

impl Retry {
    /// The record after another failure.
    ///
    /// `previous` is the record before it, `issuer` is what failed, and `life` is the lifetime of
    /// the certificate to be replaced, `None` if there is none.
    pub fn after(
        previous: Option<&Self>,
        failure: &Failure,
        issuer: Option<&str>,
        life: Option<&Lifetime>,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Self {
        let mut retry = previous.cloned().unwrap_or_else(|| Self {
            failures: 0,
            first: now,
            ..Self::default()
        });
        retry.repair_times(now);
        retry.failures = retry.failures.saturating_add(1);
        let count = retry.classes.entry(failure.class).or_default();
        *count = count.saturating_add(1);
        let count = *count;
        retry.first = retry.first.min(now);
        retry.last = now;
        retry.class = failure.class;
        retry.message.clone_from(&failure.message);
        retry.url.clone_from(&failure.url);
        retry.issuer = issuer.map(str::to_owned);
        let cost = usize::try_from(failure.failed_validations).unwrap_or(usize::MAX);
        retry.validations.retain(|at| counts(*at, now));
        let failed = std::iter::repeat_n(now, cost.min(BUDGET));
        retry.validations.extend(failed);
        let room_at = retry.room_at(cost);
        retry.next = delay(failure, count, now - retry.first, life, now, rng)
            .map(|delay| (now + delay).max(room_at));
        retry
    }

    /// How many failed validations of a name the CA still counts.
    pub fn failed_validations(&self, now: UnixTime) -> u32 {
        let counting = self.validations.iter().filter(|at| counts(**at, now));
        u32::try_from(counting.count()).unwrap_or(u32::MAX)
    }

    /// When the CA allows another attempt that fails as many validations as the last did, and at
    /// least one.
    fn room_at(&self, cost: usize) -> UnixTime {
        let spare = BUDGET.saturating_sub(cost.max(1));
        let place = self.validations.len().checked_sub(spare.saturating_add(1));
        let last = place.and_then(|place| self.validations.get(place));
        last.map_or(UnixTime::MIN, |at| *at + COUNTS)
    }

    /// Returns true if another attempt is due.
    pub fn is_due(&self, now: UnixTime) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Brings the next attempt closer if it is further off than the rule allows: the clock was set
    /// back, or the stored value is nonsense. Returns true if that was necessary.
    pub fn repair_times(&mut self, now: UnixTime) -> bool {
        let before = (self.first, self.last, self.next);
        if self.last > now + SKEW {
            let leap = self.last - now;
            self.first -= leap;
            self.last = now;
            self.next = self.next.map(|next| next - leap);
        }
        let longest = match self.class {
            FailureClass::RateLimited => LONGEST_LIMIT,
            _ => DAY,
        };
        // A quarter more than the rule's longest, for the jitter.
        let latest = self.last + (longest + longest / 4);
        self.next = self.next.map(|next| next.min(latest));
        before != (self.first, self.last, self.next)
    }
}

/// [`FAILED_VALIDATIONS`] as an index.
const BUDGET: usize = FAILED_VALIDATIONS as usize;

/// Returns true if a CA still counts a validation that failed at this time. Times beyond a clock
/// that was set back mean nothing.
fn counts(at: UnixTime, now: UnixTime) -> bool {
    (0..COUNTS).contains(&(now - at))
}

/// How long to wait after the `count`th failure of this class, if the first of any class was
/// `since` seconds ago. `None` is forever.
fn delay(
    failure: &Failure,
    count: u32,
    since: i64,
    life: Option<&Lifetime>,
    now: UnixTime,
    rng: &mut Rng,
) -> Option<i64> {
    let class = failure.class;
    if class == FailureClass::Paused {
        return None;
    }
    let asked = failure
        .retry_after
        .map(|until| until - now)
        .filter(|asked| *asked > 0);
    if class == FailureClass::RateLimited {
        let asked = lasting(failure, now);
        // Only later: the CA has named the earliest time.
        return Some(asked + share(asked, 0..=10, rng).max(1));
    }
    let steps = patience(class);
    let place = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut delay = steps
        .get(place)
        .or_else(|| steps.last())
        .copied()
        .unwrap_or(HOUR);
    if since >= LONG && class != FailureClass::Storage {
        delay = DAY;
    }
    if let Some(life) = life
        && class != FailureClass::Clock
    {
        delay = delay.min(latest(class, life, now));
    }
    delay = (delay + share(delay, -15..=15, rng)).max(1);
    let asked = asked.map_or(0, |asked| asked.min(DAY));
    Some(delay.max(asked + share(asked, 0..=10, rng)))
}

/// How long a limit that is met now is believed to last.
pub(super) fn lasting(failure: &Failure, now: UnixTime) -> i64 {
    let (longest, unsaid) = match failure.scope {
        Some(Scope::Ca) => (LONGEST_BUSY, UNSAID_BUSY),
        _ => (LONGEST_LIMIT, UNSAID_LIMIT),
    };
    let asked = failure.retry_after.map(|until| until - now);
    asked
        .filter(|asked| *asked > 0)
        .unwrap_or(unsaid)
        .min(longest)
}

/// The longest wait, by the certificate that would be replaced: a share of its remaining time;
/// after its end, a share of the time since.
fn latest(class: FailureClass, life: &Lifetime, now: UnixTime) -> i64 {
    let floor = match class {
        FailureClass::Network => MINUTE,
        // A public CA allows five failed validations of a name in an hour.
        FailureClass::Validation => 15 * MINUTE,
        FailureClass::Refused | FailureClass::Configuration => HOUR,
        FailureClass::Storage => 5,
        _ => 5 * MINUTE,
    };
    // An issuer of certificates for minutes is asked by the second.
    let floor = floor.min(life.length() / 20).max(1);
    (life.left(now).saturating_abs() / SHARE).max(floor)
}

/// How long to wait after the first, second, ... failure; the last one repeats.
fn patience(class: FailureClass) -> &'static [i64] {
    match class {
        FailureClass::Network => &[
            MINUTE,
            2 * MINUTE,
            5 * MINUTE,
            10 * MINUTE,
            20 * MINUTE,
            30 * MINUTE,
            HOUR,
            2 * HOUR,
            3 * HOUR,
            6 * HOUR,
        ],
        // Four in the first hour: a public CA allows five for a name.
        FailureClass::Validation => &[
            10 * MINUTE,
            20 * MINUTE,
            30 * MINUTE,
            HOUR,
            2 * HOUR,
            3 * HOUR,
            6 * HOUR,
            12 * HOUR,
        ],
        FailureClass::Refused | FailureClass::Configuration => &[HOUR, 4 * HOUR, 12 * HOUR, DAY],
        FailureClass::Clock => &[10 * MINUTE, HOUR, 2 * HOUR, 6 * HOUR],
        FailureClass::Vetoed => &[10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 6 * HOUR],
        // It costs nobody anything, and must work again when the storage does.
        FailureClass::Storage => &[5, 10, 30, MINUTE],
        FailureClass::Internal | FailureClass::RateLimited | FailureClass::Paused => &[
            5 * MINUTE,
            10 * MINUTE,
            30 * MINUTE,
            HOUR,
            2 * HOUR,
            6 * HOUR,
            12 * HOUR,
        ],
    }
}

/// A random share of `of`, in percent.
fn share(of: i64, percent: std::ops::RangeInclusive<i64>, rng: &mut Rng) -> i64 {
    // In seconds, so that short times are spread too.
    let (low, high) = (of * percent.start() / 100, of * percent.end() / 100);
    rng.i64(low..=high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn life(length: i64, left: i64) -> Lifetime {
        Lifetime {
            not_before: NOW + left - length,
            not_after: NOW + left,
            seed: 0,
        }
    }

    fn failure(class: FailureClass) -> Failure {
        Failure::new(class, "why")
    }

    /// The delays of `count` failures of a class, each at the time that its predecessor has set.
    fn delays(class: FailureClass, life: Option<&Lifetime>, count: usize, seed: u64) -> Vec<i64> {
        let mut rng = Rng::with_seed(seed);
        let mut now = NOW;
        let mut retry = None;
        let mut delays = Vec::new();
        for _ in 0..count {
            let next = Retry::after(retry.as_ref(), &failure(class), None, life, now, &mut rng);
            let delay = next.next.expect("tried again") - now;
            now += delay;
            delays.push(delay);
            retry = Some(next);
        }
        delays
    }

    #[test]
    fn each_class_has_its_own_patience() {
        use FailureClass::{
            Clock, Configuration, Internal, Network, RateLimited, Refused, Storage, Validation,
            Vetoed,
        };
        let table: [(FailureClass, &[i64]); 9] = [
            (
                Network,
                &[1, 2, 5, 10, 20, 30, 60, 120, 180, 360, 360].map(|minutes| minutes * MINUTE),
            ),
            (
                Validation,
                &[10, 20, 30, 60, 120, 180, 360, 720, 720].map(|minutes| minutes * MINUTE),
            ),
            (Refused, &[1, 4, 12, 24, 24].map(|hours| hours * HOUR)),
            (Configuration, &[1, 4, 12, 24, 24].map(|hours| hours * HOUR)),
            (RateLimited, &[HOUR; 4]),
            (
                Clock,
                &[10, 60, 120, 360, 360].map(|minutes| minutes * MINUTE),
            ),
            (Storage, &[5, 10, 30, 60, 60, 60]),
            (
                Vetoed,
                &[10, 30, 60, 120, 240, 360, 360].map(|minutes| minutes * MINUTE),
            ),
            (
                Internal,
                &[5, 10, 30, 60, 120, 360, 720, 720].map(|minutes| minutes * MINUTE),
            ),
        ];
        for (class, expected) in table {
            for seed in 0..50 {
                let delays = delays(class, None, expected.len(), seed);
                for (delay, step) in delays.iter().zip(expected) {
                    let off = (delay - step).abs();
                    assert!(off * 100 <= step * 15 + 100, "{class:?} {seed}: {delays:?}");
                }
            }
        }
    }

    #[test]
    fn jitter_sets_apart_what_failed_together() {
        let network = |seed| delays(FailureClass::Network, None, 10, seed);
        assert_eq!(network(1), network(1));
        let different: std::collections::HashSet<_> =
            (0..1000).filter_map(|seed| network(seed).pop()).collect();
        assert!(different.len() > 800, "{}", different.len());
    }

    #[test]
    fn a_name_that_fails_validation_stays_within_five_an_hour_and_is_not_paused() {
        for (length, left) in [(90 * DAY, 30 * DAY), (90 * DAY, HOUR), (160 * HOUR, HOUR)] {
            for seed in 0..50 {
                let mut at = 0;
                let mut times = vec![0];
                for delay in delays(
                    FailureClass::Validation,
                    Some(&life(length, left)),
                    60,
                    seed,
                ) {
                    at += delay;
                    times.push(at);
                }
                for window in times.windows(6) {
                    assert!(window[5] - window[0] > HOUR, "{length} {left}: {times:?}");
                }
            }
        }
        // Let's Encrypt pauses a name after 1,152 failures in a row: that takes years.
        let all: i64 = delays(FailureClass::Validation, None, 1152, 1).iter().sum();
        assert!(all > 2 * 365 * DAY, "{all}");
    }

    #[test]
    fn the_next_attempt_waits_until_the_ca_bears_it() {
        let failed = |count| Failure {
            failed_validations: count,
            ..failure(FailureClass::Validation)
        };
        for (costs, room) in [
            // Four in an hour: how many seconds after the last of these another is allowed.
            (&[2][..], 0),
            (&[2, 2], COUNTS - 600),
            (&[2, 1], 0),
            (&[1, 1], 0),
            (&[1, 1, 1, 1], COUNTS - 1800),
            (&[4], COUNTS),
            (&[17], COUNTS),
            // The next attempt may get as far as a validation.
            (&[2, 2, 0], COUNTS - 1200),
        ] {
            let mut retry = None;
            for (attempt, cost) in costs.iter().enumerate() {
                let now = NOW + 600 * i64::try_from(attempt).expect("a few");
                let mut rng = Rng::with_seed(1);
                let failure = failed(*cost);
                retry = Some(Retry::after(
                    retry.as_ref(),
                    &failure,
                    None,
                    None,
                    now,
                    &mut rng,
                ));
            }
            let retry = retry.expect("failed");
            let waits = retry.next.expect("tried again") - retry.last;
            assert!(waits >= room, "{costs:?}: {waits}");
            assert!(room > 0 || waits < HOUR, "{costs:?}: {waits}");
            let total: u32 = costs.iter().sum();
            assert_eq!(
                retry.failed_validations(retry.last),
                total.min(4),
                "{costs:?}"
            );
            assert_eq!(retry.failed_validations(retry.last + COUNTS), 0);
            assert_eq!(
                retry.failed_validations(NOW - DAY),
                0,
                "the clock was set back"
            );
        }
    }

    #[test]
    fn what_soon_ends_is_tried_more_often() {
        // (class, length, left, failures before, at most)
        let table = [
            (FailureClass::Network, 90 * DAY, 30 * DAY, 20, 6 * HOUR),
            (FailureClass::Network, 90 * DAY, 20 * HOUR, 20, 2 * HOUR),
            (FailureClass::Network, 90 * DAY, 60, 20, MINUTE),
            (FailureClass::Network, 160 * HOUR, 80 * HOUR, 20, 6 * HOUR),
            (FailureClass::Network, 160 * HOUR, 10 * HOUR, 20, HOUR),
            (FailureClass::Network, 60, 30, 0, 3),
            (FailureClass::Network, 60, 30, 20, 3),
            (FailureClass::Refused, 60, 30, 20, 3),
            (FailureClass::Internal, 60, 2, 20, 3),
            (FailureClass::Validation, 160 * HOUR, HOUR, 20, 15 * MINUTE),
            (FailureClass::Refused, 90 * DAY, HOUR, 20, HOUR),
            // Expired: by the time since.
            (FailureClass::Network, 60, -600, 20, 60),
            (FailureClass::Network, 160 * HOUR, -10 * HOUR, 20, HOUR),
            (FailureClass::Network, 90 * DAY, -20 * DAY, 20, 6 * HOUR),
        ];
        for (class, length, left, before, most) in table {
            let previous = Retry {
                failures: before,
                classes: BTreeMap::from([(class, before)]),
                first: NOW - 100,
                last: NOW - 10,
                ..Retry::default()
            };
            for seed in 0..50 {
                let life = life(length, left);
                let delay = Retry::after(
                    Some(&previous),
                    &failure(class),
                    None,
                    Some(&life),
                    NOW,
                    &mut Rng::with_seed(seed),
                )
                .next
                .expect("tried again")
                    - NOW;
                let fits = delay >= 1 && delay * 100 >= most * 84 - 100;
                let fits = fits && delay * 100 <= most * 115 + 100;
                assert!(fits, "{class:?} {length} {left}: {delay}, not {most}");
            }
        }
    }

    #[test]
    fn after_thirty_days_it_is_daily_but_for_the_storage() {
        let previous = Retry {
            failures: 90,
            first: NOW - 30 * DAY,
            last: NOW - 10,
            ..Retry::default()
        };
        for (class, step) in [
            (FailureClass::Network, DAY),
            (FailureClass::Validation, DAY),
            (FailureClass::Internal, DAY),
            (FailureClass::Storage, 5),
        ] {
            let mut rng = Rng::with_seed(3);
            let retry = Retry::after(Some(&previous), &failure(class), None, None, NOW, &mut rng);
            let delay = retry.next.expect("tried again") - NOW;
            assert!((delay - step).abs() <= step / 5, "{class:?}: {delay}");
            assert_eq!(retry.failures, 91);
            assert_eq!(retry.first, NOW - 30 * DAY);
        }
    }

    #[test]
    fn what_the_ca_asks_for_is_obeyed_within_reason() {
        use FailureClass::{Network, RateLimited, Validation};
        // (class, requested, minimum, maximum)
        let table = [
            (RateLimited, 3 * HOUR, 3 * HOUR, 3 * HOUR + 20 * MINUTE),
            (RateLimited, 60, 60, 67),
            (RateLimited, 34 * HOUR, 34 * HOUR, 38 * HOUR),
            (RateLimited, 400 * DAY, 7 * DAY, 8 * DAY),
            (RateLimited, -60, HOUR, 67 * MINUTE),
            (Network, 2 * HOUR, 2 * HOUR, 133 * MINUTE),
            (Network, 5, 51, 69),
            (Network, 400 * DAY, DAY, 27 * HOUR),
            (Validation, -DAY, 8 * MINUTE, 12 * MINUTE),
        ];
        for (class, asked, least, most) in table {
            let failure = Failure {
                retry_after: Some(NOW + asked),
                ..failure(class)
            };
            // Even if the certificate has only seconds left.
            for life in [None, (class == RateLimited).then(|| life(60, 30))] {
                for seed in 0..50 {
                    let mut rng = Rng::with_seed(seed);
                    let retry = Retry::after(None, &failure, None, life.as_ref(), NOW, &mut rng);
                    let delay = retry.next.expect("tried again") - NOW;
                    let fits = (least..=most).contains(&delay);
                    assert!(fits, "{class:?} {asked}: {delay}");
                }
            }
        }
    }

    #[test]
    fn what_is_paused_waits_for_a_person() {
        let failure = Failure {
            url: Some("https://ca.example/unpause".to_owned()),
            ..failure(FailureClass::Paused)
        };
        let mut rng = Rng::with_seed(1);
        let mut retry = Retry::after(None, &failure, Some("le"), None, NOW, &mut rng);
        assert_eq!(retry.next, None);
        assert!(!retry.repair_times(NOW - DAY) || retry.next.is_none());
        assert!(!retry.is_due(UnixTime::MAX));
        assert_eq!(retry.url, failure.url);
        assert_eq!(retry.issuer.as_deref(), Some("le"));
    }

    #[test]
    fn classes_are_counted_apart() {
        let mut rng = Rng::with_seed(1);
        let mut retry = None;
        for _ in 0..8 {
            for class in [FailureClass::Network, FailureClass::Validation] {
                let failure = failure(class);
                let next = Retry::after(retry.as_ref(), &failure, None, None, NOW, &mut rng);
                retry = Some(next);
            }
        }
        let retry = retry.expect("failed");
        assert_eq!(retry.failures, 16);
        let delay = retry.next.expect("tried again") - NOW;
        assert!(delay > 10 * HOUR, "{delay}: the eighth of its class");
    }

    #[test]
    fn it_survives_a_restart_and_another_version() {
        let mut rng = Rng::with_seed(1);
        let failure = failure(FailureClass::Validation);
        for failure in [
            failure.clone(),
            Failure {
                class: FailureClass::Paused,
                ..failure
            },
        ] {
            let retry = Retry::after(None, &failure, Some("le"), None, NOW, &mut rng);
            let json = serde_json::to_string(&retry).expect("JSON");
            let read: Retry = serde_json::from_str(&json).expect("the same");
            assert_eq!(read, retry, "{json}");
        }
        let read: Retry = serde_json::from_str(
            r#"{"failures": 3, "class": "eclipse", "classes": {"eclipse": 2}, "moon": [1]}"#,
        )
        .expect("tolerated");
        assert_eq!(read.failures, 3);
        assert_eq!(read.class, FailureClass::Internal);
        assert!(read.is_due(NOW), "not stalled");
        let empty: Retry = serde_json::from_str("{}").expect("tolerated");
        assert!(empty.is_due(NOW));
    }

    #[test]
    fn a_clock_set_back_stalls_nothing() {
        let mut rng = Rng::with_seed(1);
        // It failed in 2040, by a clock that has been corrected since.
        let mad = NOW + 14 * 365 * DAY;
        let failure = failure(FailureClass::Network);
        let mut retry = Retry::after(None, &failure, None, None, mad, &mut rng);
        assert!(retry.repair_times(NOW));
        let next = retry.next.expect("tried again");
        assert!((NOW..NOW + 70).contains(&next), "{}", next - NOW);
        assert_eq!((retry.first, retry.last), (NOW, NOW));
        assert!(!retry.repair_times(NOW), "mended once");

        let mut nonsense = Retry {
            last: NOW,
            next: Some(UnixTime::MAX),
            ..Retry::default()
        };
        assert!(nonsense.repair_times(NOW));
        assert!(nonsense.next.is_some_and(|next| next <= NOW + 2 * DAY));
    }
}
