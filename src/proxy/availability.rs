//! Whether an address gets requests: it may be avoided, ejected, drained, or found down by health
//! checks.
//!
//! Requests only read atomics; what changes them is rare. Times are milliseconds of the pool's
//! time, and come in as arguments.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::model::Eject;
use crate::lock::MutexExt as _;

/// The longest ejection, unless the configured one is longer.
const LONGEST: Duration = Duration::from_secs(300);

/// An expired time: a trial is due.
const DUE: u64 = 1;

/// Whether an address gets requests.
#[derive(Debug, Default)]
pub(super) struct Availability {
    /// Until when it is avoided or ejected.
    out_until: AtomicU64,
    /// How many times it was ejected since it last worked. If it is not 0, the address is out even
    /// when the time is over: then one request tries it.
    ejections: AtomicU32,
    /// Whether health checks have found that it does not work.
    is_down: AtomicBool,
    /// Whether people have drained it.
    is_drained: AtomicBool,
    /// When its last failures were, while it is in use.
    failures: Mutex<VecDeque<u64>>,
}

/// Whether a request may use an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admittance {
    Refused,
    Admitted,
    /// It is the one request that tries an ejected address.
    Trial(Trial),
}

/// A request's task to find out whether an ejected address works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    /// Until when no other request tries it. `None` if others do, since no address is in use.
    claimed_until: Option<u64>,
}

impl Trial {
    /// A trial of an address that requests use because no other is in use.
    pub(super) const SHARED: Self = Self {
        claimed_until: None,
    };
}

/// What a pool takes over of an earlier one: only what it can end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// What health checks have found.
    pub(super) down: bool,
    pub(super) ejected: bool,
}

impl Kept {
    /// Everything.
    const ALL: Self = Self {
        down: true,
        ejected: true,
    };

    /// What an address begins with that had `earlier` before. If everything is kept, it is the same:
    /// requests of the earlier pool still find out about the address.
    pub(super) fn take_over(self, earlier: &Arc<Availability>) -> Arc<Availability> {
        if self == Self::ALL {
            return Arc::clone(earlier);
        }
        let own = Availability::default();
        own.set_drained(earlier.is_drained());
        own.set_down(self.down && earlier.is_down());
        if self.ejected {
            own.avoid_until(earlier.out_until());
            let ejections = earlier.ejections.load(Ordering::Relaxed);
            own.ejections.store(ejections, Ordering::Relaxed);
        }
        Arc::new(own)
    }
}

/// Where an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Up,
    /// A connection to it failed a few seconds ago.
    Avoided,
    /// Requests to it failed.
    Ejected,
    /// Health checks of it fail.
    Down,
    /// People have drained it.
    Drained,
}

impl Standing {
    /// The name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Avoided => "avoided",
            Self::Ejected => "ejected",
            Self::Down => "down",
            Self::Drained => "drained",
        }
    }
}

impl Availability {
    pub(super) fn standing(&self, now: u64) -> Standing {
        if self.is_drained() {
            Standing::Drained
        } else if self.is_down() {
            Standing::Down
        } else if self.is_ejected() {
            Standing::Ejected
        } else if self.out_until() > now {
            Standing::Avoided
        } else {
            Standing::Up
        }
    }

    /// Whether a request may use the address. The first one after an ejection is its trial, and has
    /// `lease` milliseconds for it.
    pub(super) fn admit(&self, now: u64, lease: u64) -> Admittance {
        let until = self.out_until();
        if until > now || self.is_out() {
            return Admittance::Refused;
        }
        if !self.is_ejected() {
            return Admittance::Admitted;
        }
        let claimed = now.saturating_add(lease);
        let order = Ordering::Relaxed;
        match self
            .out_until
            .compare_exchange(until, claimed, order, order)
        {
            Ok(_) => Admittance::Trial(Trial {
                claimed_until: Some(claimed),
            }),
            Err(_) => Admittance::Refused,
        }
    }

    /// Until when it is avoided or ejected, for a choice of the least bad one.
    pub(super) fn out_until(&self) -> u64 {
        self.out_until.load(Ordering::Relaxed)
    }

    /// Whether requests would be admitted.
    pub(super) fn is_in_use(&self, now: u64) -> bool {
        self.out_until() <= now && !self.is_out()
    }

    /// Whether health checks or people have taken it out of use.
    pub(super) fn is_out(&self) -> bool {
        self.is_down() || self.is_drained()
    }

    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Sets what health checks have found.
    pub(super) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    pub(super) fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    /// Stops requests from getting the address, or lets them get it again.
    pub(super) fn set_drained(&self, is_drained: bool) {
        self.is_drained.store(is_drained, Ordering::Relaxed);
    }

    /// Avoids the address until a time.
    pub(super) fn avoid_until(&self, until: u64) {
        self.out_until.store(until, Ordering::Relaxed);
    }

    /// Stops avoiding the address, or ends its ejection.
    pub(super) fn restore(&self) {
        // Reading first keeps the cache line shared while all is well.
        if self.out_until() != 0 {
            self.out_until.store(0, Ordering::Relaxed);
        }
        if self.is_ejected() {
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejections.load(Ordering::Relaxed) != 0
    }

    /// Counts a failure, and returns whether there are now as many as eject the address.
    pub(super) fn count_failure(&self, now: u64, rule: &Eject) -> bool {
        if self.is_ejected() {
            return false;
        }
        let mut failures = self.failures.lock_unpoisoned();
        while failures.len() >= rule.failures {
            failures.pop_front();
        }
        failures.push_back(now);
        let oldest = failures.front().copied().unwrap_or(now);
        failures.len() >= rule.failures && now.saturating_sub(oldest) <= millis(rule.within)
    }

    /// Ejects the address, for longer each time that it has failed its trial. Returns for how long.
    pub(super) fn eject(&self, now: u64, rule: &Eject) -> Duration {
        self.failures.lock_unpoisoned().clear();
        let time = self.next_ejection(rule);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.avoid_until(now.saturating_add(millis(time)));
        time
    }

    /// Ejects the address again after a trial has failed, and returns for how long. `None` if that is
    /// not for the trial to decide: others use the address too, or it took so long that another
    /// request has found out, or is about to.
    pub(super) fn eject_again(&self, trial: Trial, now: u64, rule: &Eject) -> Option<Duration> {
        let (claimed, order) = (trial.claimed_until?, Ordering::Relaxed);
        let time = self.next_ejection(rule);
        let until = now.saturating_add(millis(time));
        let claim = &self.out_until;
        claim.compare_exchange(claimed, until, order, order).ok()?;
        self.ejections.fetch_add(1, order);
        Some(time)
    }

    /// How long the next ejection takes.
    fn next_ejection(&self, rule: &Eject) -> Duration {
        let before = self.ejections.load(Ordering::Relaxed).min(16);
        let longest = LONGEST.max(rule.time);
        rule.time.saturating_mul(1 << before).min(longest)
    }

    /// Ends a trial that has neither succeeded nor failed: the next request tries again.
    pub(super) fn release_trial(&self, trial: Trial) {
        if let Some(claimed) = trial.claimed_until {
            let order = Ordering::Relaxed;
            // If it has changed, another request has found out.
            _ = self.out_until.compare_exchange(claimed, DUE, order, order);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::StatusSet;

    const RULE: Eject = Eject {
        failures: 3,
        within: Duration::from_secs(10),
        status: StatusSet::range(502, 504),
        time: Duration::from_secs(20),
    };

    /// How long a trial may take, in milliseconds.
    const LEASE: u64 = 1000;

    fn trial(admittance: Admittance) -> Trial {
        match admittance {
            Admittance::Trial(trial) => trial,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failures_count_within_their_time() {
        let address = Availability::default();
        assert!(!address.count_failure(1, &RULE));
        assert!(!address.count_failure(5_000, &RULE));
        assert!(
            !address.count_failure(10_002, &RULE),
            "the first is too old"
        );
        assert!(address.count_failure(15_000, &RULE));
    }

    #[test]
    fn one_request_tries_an_ejected_address() {
        let address = Availability::default();
        assert_eq!(address.admit(1, LEASE), Admittance::Admitted);
        assert_eq!(address.eject(1, &RULE), Duration::from_secs(20));
        assert_eq!(address.standing(20_000), Standing::Ejected);
        assert_eq!(address.admit(20_000, LEASE), Admittance::Refused);
        let first = trial(address.admit(20_001, LEASE));
        assert_eq!(address.admit(20_001, LEASE), Admittance::Refused);
        // Its client went away: the next request tries.
        address.release_trial(first);
        let second = trial(address.admit(20_002, LEASE));
        assert_ne!(second, Trial::SHARED);
        address.restore();
        assert_eq!(address.admit(20_003, LEASE), Admittance::Admitted);
        // What ends late changes nothing.
        address.release_trial(second);
        assert_eq!(address.standing(20_004), Standing::Up);
    }

    #[test]
    fn a_trial_that_takes_too_long_is_followed_by_another() {
        let address = Availability::default();
        address.eject(1, &RULE);
        let first = trial(address.admit(30_000, LEASE));
        assert_eq!(address.admit(30_999, LEASE), Admittance::Refused);
        let second = trial(address.admit(31_000, LEASE));
        address.release_trial(first);
        assert_eq!(address.admit(31_500, LEASE), Admittance::Refused);
        address.release_trial(second);
        trial(address.admit(31_600, LEASE));
    }

    #[test]
    fn an_address_that_fails_again_is_out_for_longer() {
        let address = Availability::default();
        let times: Vec<u64> = (0..6).map(|_| address.eject(1, &RULE).as_secs()).collect();
        assert_eq!(times, [20, 40, 80, 160, 300, 300]);
        address.restore();
        assert_eq!(address.eject(1, &RULE), RULE.time);
        let long = Eject {
            time: Duration::from_secs(3600),
            ..RULE
        };
        assert_eq!(address.eject(1, &long), long.time);
    }

    #[test]
    fn a_trial_that_ends_late_ejects_nothing() {
        let address = Availability::default();
        address.eject(1, &RULE);
        let first = trial(address.admit(30_000, LEASE));
        let second = trial(address.admit(31_000, LEASE));
        assert_eq!(address.eject_again(first, 31_001, &RULE), None);
        assert_eq!(address.eject_again(Trial::SHARED, 31_001, &RULE), None);
        address.restore();
        assert_eq!(address.eject_again(first, 31_002, &RULE), None);
        assert_eq!(address.eject_again(second, 31_002, &RULE), None);
        assert_eq!(address.standing(31_003), Standing::Up);
        address.eject(40_000, &RULE);
        let third = trial(address.admit(60_000, LEASE));
        // Nobody else has tried since its time was over.
        let longer = address.eject_again(third, 90_000, &RULE);
        assert_eq!(longer, Some(RULE.time * 2));
        assert_eq!(address.admit(129_999, LEASE), Admittance::Refused);
        trial(address.admit(130_000, LEASE));
    }

    #[test]
    fn an_address_that_is_down_gets_nothing() {
        let address = Availability::default();
        address.set_down(true);
        assert_eq!(address.admit(1, LEASE), Admittance::Refused);
        assert_eq!(address.standing(1), Standing::Down);
        address.set_down(false);
        assert!(address.is_in_use(1));
    }

    #[test]
    fn an_address_that_is_drained_gets_nothing_until_it_is_resumed() {
        let address = Availability::default();
        address.eject(1, &RULE);
        address.set_drained(true);
        assert_eq!(address.standing(1), Standing::Drained);
        // No trial either.
        assert_eq!(address.admit(30_000, LEASE), Admittance::Refused);
        assert!(address.is_out());
        address.set_drained(false);
        assert_eq!(address.standing(1), Standing::Ejected);
        trial(address.admit(30_000, LEASE));
    }
}
