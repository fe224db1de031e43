//! When a certificate is tried again that could not be had.
//!
//! A [`Retry`] is what is remembered of the failures of one certificate. It is stored, so that a
//! restart does not start over at the CA's cost, and it is made from the one before by
//! [`Retry::after`] alone. Each class of failure has its own patience; what a CA asks for is
//! obeyed, and a certificate that soon ends is tried more often.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::{DAY, Failure, FailureClass, HOUR, Lifetime, MINUTE};
use crate::clock::UnixTime;

/// After failing for so long, it is tried daily.
const LONG: i64 = 30 * DAY;

/// The longest time that a rate limit of a CA is believed in: public CAs count by the week.
pub(super) const LONGEST_LIMIT: i64 = 7 * DAY;

/// How long a limit lasts where the CA does not say.
pub(super) const UNSAID_LIMIT: i64 = HOUR;

/// How far ahead the time of a failure may lie by clocks that differ.
const SKEW: i64 = MINUTE;

/// The share of what remains of a certificate after which it is tried again at the latest: 1/10.
const SHARE: i64 = 10;

/// The failures in a row of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// How many there were.
    pub failures: u32,
    /// How many there were of each class.
    pub classes: BTreeMap<FailureClass, u32>,
    /// When the first of them was.
    pub first: UnixTime,
    /// When the last of them was.
    pub last: UnixTime,
    /// When the next attempt is due; `None` for never by itself.
    pub next: Option<UnixTime>,
    /// The class of the last.
    pub class: FailureClass,
    /// Why the last failed, for people.
    pub message: String,
    /// A page of the CA about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The issuer that failed last, by its name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

impl Default for Retry {
    /// Stands in for what a stored one does not have: due at once.
    fn default() -> Self {
        Self {
            failures: 1,
            classes: BTreeMap::new(),
            first: 0,
            last: 0,
            next: Some(0),
            class: FailureClass::default(),
            message: String::new(),
            url: None,
            issuer: None,
        }
    }
}

impl Retry {
    /// What is known after another failure.
    ///
    /// `previous` are the failures in a row before it, `issuer` is who failed, and `life` is that
    /// of the certificate which would be replaced, `None` where there is none.
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
        retry.mend(now);
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
        retry.next = delay(failure, count, now - retry.first, life, now, rng)
            .map(|delay| now.saturating_add(delay));
        retry
    }

    /// Whether another attempt is due.
    pub fn is_due(&self, now: UnixTime) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Brings a next attempt into reach that the rule would not have put so far off: the clock was
    /// set back since, or what was stored is nonsense. Says whether there was a need to.
    pub fn mend(&mut self, now: UnixTime) -> bool {
        let before = (self.first, self.last, self.next);
        if self.last > now.saturating_add(SKEW) {
            let leap = self.last.saturating_sub(now);
            self.first = self.first.saturating_sub(leap);
            self.last = now;
            self.next = self.next.map(|next| next.saturating_sub(leap));
        }
        let longest = match self.class {
            FailureClass::RateLimited => LONGEST_LIMIT,
            _ => DAY,
        };
        // A quarter more than the rule's longest, for the jitter.
        let latest = self.last.saturating_add(longest + longest / 4);
        self.next = self.next.map(|next| next.min(latest));
        before != (self.first, self.last, self.next)
    }
}

/// How long to wait after the `count`th failure of this class, where the first of any class was
/// `since` seconds ago. `None` is for ever.
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
        .map(|until| until.saturating_sub(now))
        .filter(|asked| *asked > 0);
    if class == FailureClass::RateLimited {
        let asked = asked.unwrap_or(UNSAID_LIMIT).min(LONGEST_LIMIT);
        // Only later: the CA has named the earliest time.
        return Some(asked + share(asked, 0..=10, rng).max(1));
    }
    let steps = patience(class);
    let place = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut delay = steps.get(place).or(steps.last()).copied().unwrap_or(HOUR);
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

/// How long to wait at most, by the certificate that would be replaced: a share of what remains of
/// it. After its end, a share of the time since.
fn latest(class: FailureClass, life: &Lifetime, now: UnixTime) -> i64 {
    let floor = match class {
        FailureClass::Network => MINUTE,
        // A public CA takes five failed validations of a name in an hour.
        FailureClass::Validation => 15 * MINUTE,
        FailureClass::Refused | FailureClass::Configuration => HOUR,
        FailureClass::Storage => 5,
        _ => 5 * MINUTE,
    };
    // Whoever issues for minutes is asked by the second.
    let floor = floor.min(life.length() / 20).max(1);
    (life.left(now).saturating_abs() / SHARE).max(floor)
}

/// How long to wait after the first, second.. failure; the last goes on.
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
        // Four in the first hour: a public CA takes five of a name.
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
