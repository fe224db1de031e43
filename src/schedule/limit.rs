//! Whether a CA may be asked for a certificate now.
//!
//! A [`Limiter`] belongs to one account at one CA, or to a whole CA. It keeps the configured pace,
//! so that a wave of orders is not a burst, and remembers the CA's limits, so that nobody runs into
//! the same limit again. A limit covers only its [`Scope`]. Its users store it; it never waits
//! itself.

mod block;
mod blocks;
mod wait;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use self::block::Block;
use self::blocks::Blocks;
pub use self::wait::{Wait, WaitReason};
use super::retry::lasting;
use super::{Failure, FailureClass, Intent, Scope};
use crate::clock::UnixTime;
use crate::host::Pattern;

/// So many orders within so many seconds, at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How many orders may be begun.
    pub orders: u32,
    /// In how many seconds.
    pub seconds: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            orders: 10,
            seconds: 10,
        }
    }
}

/// The known limits of one account at one CA, or of the whole CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limiter {
    /// All of them apply. Configuration, not state.
    #[serde(skip)]
    paces: Vec<Pace>,
    /// When orders were made, the oldest first; as many as the paces need.
    taken: VecDeque<UnixTime>,
    /// The limits of the CA that were met.
    #[serde(flatten)]
    blocks: Blocks,
    /// Why nobody is asked while the clock and the CA disagree. This concerns this machine alone.
    #[serde(skip)]
    clock: Option<Block>,
    /// The latest time that was seen: an earlier one means that the clock was set back.
    seen: UnixTime,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(vec![Pace::default()])
    }
}

impl Limiter {
    /// A limiter that keeps these paces.
    pub fn new(paces: Vec<Pace>) -> Self {
        Self {
            paces,
            taken: VecDeque::new(),
            blocks: Blocks::default(),
            clock: None,
            seen: UnixTime::MIN,
        }
    }

    /// Replaces the paces. A stored limiter comes back with the default one.
    pub fn set_paces(&mut self, paces: Vec<Pace>) {
        self.paces = paces;
        self.trim();
    }

    /// Counts one order.
    ///
    /// # Errors
    /// Until when and why to wait. Nothing is counted then.
    pub fn reserve_order(&mut self, intent: &Intent<'_>, now: UnixTime) -> Result<(), Wait> {
        self.repair_times(now);
        self.check_order(intent, now)?;
        self.taken.push_back(now);
        self.trim();
        Ok(())
    }

    /// Like [`Self::reserve_order`], but counts nothing.
    ///
    /// # Errors
    /// Until when and why to wait.
    pub fn check_order(&self, intent: &Intent<'_>, now: UnixTime) -> Result<(), Wait> {
        if let Some(wait) = self.held(intent, now) {
            return Err(wait);
        }
        let free_at = self.paces.iter().filter_map(|pace| self.free_at(*pace));
        match free_at.max() {
            Some(until) if until > now => Err(Wait {
                until,
                reason: WaitReason::Pace,
            }),
            _ => Ok(()),
        }
    }

    /// What prevents an order, apart from the pace: of several limits the widest, of those on names
    /// the one that lasts longest.
    pub fn held(&self, intent: &Intent<'_>, now: UnixTime) -> Option<Wait> {
        let clock = self.clock.as_ref().filter(|block| block.holds(now));
        let clock = clock.map(|block| Wait {
            until: block.until,
            reason: WaitReason::Clock(block.message.clone()),
        });
        clock.or_else(|| self.blocks.held(intent, now))
    }

    /// What prevents creating an account.
    pub fn registration_held(&self, now: UnixTime) -> Option<Wait> {
        self.blocks.registration_held(now)
    }

    /// All limits of the CA that apply now.
    pub fn limits(&self, now: UnixTime) -> impl Iterator<Item = Wait> {
        self.blocks.limits(now)
    }

    /// How many orders the paces allow now.
    pub fn room(&self, now: UnixTime) -> usize {
        let room = |pace: &Pace| {
            let end = |taken: UnixTime| taken + i64::from(pace.seconds);
            let latest = self.taken.iter().rev();
            let counting = latest.take_while(|taken| end(**taken) > now).count();
            let orders = usize::try_from(pace.orders.max(1)).unwrap_or(usize::MAX);
            orders.saturating_sub(counting)
        };
        self.paces.iter().map(room).min().unwrap_or(usize::MAX)
    }

    /// Records why an order with this intent failed. Returns the limit if it is new, and so worth
    /// storing.
    ///
    /// A rate limit stops what its scope covers. If the CA does not say what that is, it stops the
    /// set of names that met it; and the account, if a name of another registered domain meets one
    /// too while it lasts. A certificate that is not valid by the clock stops the account for a
    /// while: all others would be the same. That is not stored, since another machine has another
    /// clock.
    pub fn record_limit(
        &mut self,
        failure: &Failure,
        intent: &Intent<'_>,
        now: UnixTime,
    ) -> Option<Wait> {
        let is_busy = failure.scope == Some(Scope::Ca);
        match failure.class {
            FailureClass::RateLimited | FailureClass::Clock => {}
            // Asked to come back later, but not because of a limit.
            FailureClass::Network if is_busy => {}
            _ => return None,
        }
        self.repair_times(now);
        let block = Block {
            since: now,
            until: now + lasting(failure, now),
            message: failure.message.clone(),
            lifted: false,
            unknown: failure.scope.is_none(),
            renewals: intent.replaces,
        };
        if failure.class == FailureClass::Clock {
            self.clock.get_or_insert_default().record_limit(block);
            return None;
        }
        self.blocks
            .record_limit(failure.scope.clone(), block, intent.names, now)
    }

    /// Merges what another instance has recorded, as stored.
    pub fn merge_from(&mut self, other: &Self) {
        self.seen = self.seen.max(other.seen);
        self.blocks.merge_from(&other.blocks);
    }

    /// Forgets the limits of the CA on the account, on all of it, and on these names, and the
    /// problem with the clock, because a person knows better. The pace is kept.
    pub fn clear_limits(&mut self, names: &[Pattern], now: UnixTime) {
        self.repair_times(now);
        self.clock = None;
        self.blocks.clear_limits(names, now);
    }

    /// Drops the limit on the account if `is_none` says so about the CA's words.
    pub fn drop_account_limit(&mut self, is_none: impl FnOnce(&str) -> bool) {
        self.blocks.drop_account_limit(is_none);
    }

    /// Shifts everything remembered by the `seconds` by which the clock was set, see
    /// [`super::ClockStep`], so that waits keep their length.
    pub fn shift_times(&mut self, seconds: i64) {
        self.seen += seconds;
        for taken in &mut self.taken {
            *taken += seconds;
        }
        for block in self.blocks.iter_mut().chain(&mut self.clock) {
            block.since += seconds;
            block.until += seconds;
        }
    }

    /// When another order fits into this pace; `None` for at any time.
    fn free_at(&self, pace: Pace) -> Option<UnixTime> {
        let orders = usize::try_from(pace.orders.max(1)).unwrap_or(usize::MAX);
        let place = self.taken.len().checked_sub(orders)?;
        let oldest = self.taken.get(place)?;
        Some(*oldest + i64::from(pace.seconds))
    }

    /// Shortens waits that have become too long because the clock was set back.
    pub fn repair_times(&mut self, now: UnixTime) {
        if now >= self.seen {
            self.seen = now;
            return;
        }
        self.seen = now;
        for taken in &mut self.taken {
            *taken = (*taken).min(now);
        }
        for block in self.blocks.iter_mut().chain(&mut self.clock) {
            let ahead = (block.since - now).max(0);
            block.since -= ahead;
            block.until -= ahead;
        }
    }

    fn trim(&mut self) {
        let most = self.paces.iter().map(|pace| pace.orders).max().unwrap_or(0);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let extra = self.taken.len().saturating_sub(most);
        self.taken.drain(..extra);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const MINUTE: i64 = 60;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    const NONE: &Intent<'static> = &Intent {
        names: &[],
        replaces: false,
    };

    fn names(names: &[&str]) -> Vec<Pattern> {
        names
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect()
    }

    /// A limit on a domain, or on the account.
    fn limited(domain: Option<&str>, seconds: i64) -> Failure {
        let scope = match domain {
            Some(domain) => Scope::Domain(domain.to_owned()),
            None => Scope::Account,
        };
        on(Some(scope), seconds)
    }

    fn on(scope: Option<Scope>, seconds: i64) -> Failure {
        Failure {
            retry_after: Some(NOW + seconds),
            scope,
            ..Failure::new(FailureClass::RateLimited, "too many certificates")
        }
    }

    fn until(limiter: &Limiter, name: &str, now: UnixTime) -> Option<i64> {
        let wait = limiter
            .check_order(&Intent::new(&names(&[name])), now)
            .err()?;
        Some(wait.until - NOW)
    }

    #[test]
    fn every_window_of_every_pace_is_kept() {
        let paces = [(10, 10), (300, 3 * 3600)];
        let mut limiter = Limiter::new(
            paces
                .map(|(orders, seconds)| Pace { orders, seconds })
                .to_vec(),
        );
        let (mut now, mut taken) = (NOW, Vec::new());
        while now < NOW + DAY {
            match limiter.reserve_order(NONE, now) {
                Ok(()) => taken.push(now),
                Err(wait) => {
                    assert_eq!(wait.reason, WaitReason::Pace);
                    assert!(wait.until > now);
                    now = wait.until;
                }
            }
        }
        assert_eq!(taken.len(), 8 * 300, "and no slower than that");
        for (orders, seconds) in paces {
            for window in taken.windows(orders as usize + 1) {
                assert!(window[orders as usize] - window[0] >= i64::from(seconds));
            }
        }
    }

    #[test]
    fn a_limit_stops_the_names_that_it_is_on() {
        let mut limiter = Limiter::default();
        assert!(
            limiter
                .record_limit(&limited(Some("*.Example.com."), 3 * HOUR), NONE, NOW)
                .is_some()
        );
        // (name, stopped)
        for (name, stopped) in [
            ("example.com", true),
            ("a.b.example.com", true),
            ("*.example.com", true),
            ("*.a.example.com", true),
            ("notexample.com", false),
            ("com", false),
            ("example.org", false),
        ] {
            let expected = stopped.then_some(3 * HOUR);
            assert_eq!(until(&limiter, name, NOW), expected, "{name}");
            assert_eq!(until(&limiter, name, NOW + 3 * HOUR), None, "{name}");
        }
        let wait = limiter
            .reserve_order(&Intent::new(&names(&["example.org", "a.example.com"])), NOW)
            .expect_err("one of them is stopped");
        assert!(wait.reason.is_of_names());
        let said = wait.to_string();
        assert!(
            said.contains("example.com") && said.contains("too many"),
            "{said}"
        );

        limiter.record_limit(&limited(None, HOUR), NONE, NOW);
        assert_eq!(until(&limiter, "example.org", NOW), Some(HOUR));
        limiter.record_limit(&limited(None, 60), NONE, NOW);
        assert_eq!(
            until(&limiter, "example.org", NOW),
            Some(HOUR),
            "the longer one"
        );
    }

    #[test]
    fn a_person_lifts_the_limits_on_a_name_for_all_instances() {
        let mut limiter = Limiter::default();
        for scope in [Some("example.com"), Some("example.org"), None] {
            assert!(
                limiter
                    .record_limit(&limited(scope, 3 * HOUR), NONE, NOW)
                    .is_some()
            );
        }
        let stored = limiter.clone();
        let mut peer = limiter.clone();
        limiter.clear_limits(&names(&["www.example.com"]), NOW + 60);
        let check = |limiter: &Limiter| {
            assert_eq!(until(limiter, "a.example.com", NOW + 60), None);
            assert_eq!(until(limiter, "example.org", NOW + 60), Some(3 * HOUR));
            assert_eq!(until(limiter, "other.test", NOW + 60), None);
        };
        check(&limiter);
        // The earlier record does not bring them back, and peers learn that they are over.
        limiter.merge_from(&stored);
        check(&limiter);
        peer.merge_from(&limiter);
        check(&peer);
        // Cleared before the storage was read.
        let mut other = Limiter::default();
        other.clear_limits(&names(&["www.example.com"]), NOW + 60);
        other.merge_from(&stored);
        check(&other);
        // A CA that repeats it is believed, by all.
        assert!(
            limiter
                .record_limit(&limited(Some("example.com"), 2 * HOUR), NONE, NOW + 90)
                .is_some()
        );
        assert_eq!(until(&limiter, "example.com", NOW + 90), Some(2 * HOUR));
        assert!(
            limiter
                .record_limit(&limited(Some("example.com"), HOUR), NONE, NOW + 90)
                .is_none()
        );
        peer.merge_from(&limiter);
        assert_eq!(until(&peer, "example.com", NOW + 90), Some(2 * HOUR));
        let json = serde_json::to_string(&peer).expect("JSON");
        let read: Limiter = serde_json::from_str(&json).expect("the same");
        assert_eq!(until(&read, "other.test", NOW + 90), None);
    }

    #[test]
    fn the_room_in_a_pace_is_what_can_be_taken() {
        let mut limiter = Limiter::new(vec![
            Pace::default(),
            Pace {
                orders: 12,
                seconds: 3600,
            },
        ]);
        for (now, room) in [(NOW, 10), (NOW + 9, 0), (NOW + 10, 2), (NOW + 3600, 10)] {
            assert_eq!(limiter.room(now), room, "{}", now - NOW);
            for _ in 0..room {
                limiter.reserve_order(NONE, now).expect("room");
            }
            assert!(limiter.reserve_order(NONE, now).is_err());
        }
    }

    #[test]
    fn only_some_failures_are_limits() {
        use FailureClass::{Clock, Network, Paused, RateLimited, Refused, Validation};
        for (class, stopped, stored) in [
            (RateLimited, true, true),
            (Clock, true, false),
            (Network, false, false),
            (Validation, false, false),
            (Refused, false, false),
            (Paused, false, false),
        ] {
            let mut limiter = Limiter::default();
            let failure = Failure {
                scope: Some(Scope::Account),
                ..Failure::new(class, "")
            };
            assert_eq!(limiter.record_limit(&failure, NONE, NOW).is_some(), stored);
            let expected = stopped.then_some(HOUR);
            assert_eq!(until(&limiter, "a.test", NOW), expected, "{class:?}");
            let json = serde_json::to_string(&limiter).expect("JSON");
            let read: Limiter = serde_json::from_str(&json).expect("the same");
            assert_eq!(until(&read, "a.test", NOW), stored.then_some(HOUR));
            limiter.clear_limits(&[], NOW);
            assert_eq!(until(&limiter, "a.test", NOW), None, "{class:?}");
        }
    }

    #[test]
    fn nonsense_from_a_ca_lasts_a_week() {
        let mut limiter = Limiter::default();
        limiter.record_limit(&limited(None, 4000 * DAY), NONE, NOW);
        assert_eq!(until(&limiter, "a.test", NOW), Some(7 * DAY));
    }

    #[test]
    fn it_survives_a_restart_and_is_shared() {
        let mut limiter = Limiter::default();
        for _ in 0..10 {
            limiter.reserve_order(NONE, NOW).expect("free");
        }
        limiter.record_limit(&limited(Some("a.test"), HOUR), NONE, NOW);
        let json = serde_json::to_string(&limiter).expect("JSON");
        let mut read: Limiter = serde_json::from_str(&json).expect("the same");
        read.set_paces(vec![Pace::default()]);
        assert_eq!(read, limiter);
        assert_eq!(until(&read, "b.test", NOW), Some(10));

        let mut other = Limiter::default();
        other.merge_from(&limiter);
        assert_eq!(until(&other, "a.test", NOW), Some(HOUR));
        assert_eq!(until(&other, "b.test", NOW), None, "a pace of its own");
        let empty: Limiter = serde_json::from_str(r#"{"new": 1}"#).expect("tolerated");
        assert_eq!(until(&empty, "a.test", NOW), None);
    }

    #[test]
    fn a_leap_of_the_clock_is_neither_licence_nor_prison() {
        let pace = vec![Pace {
            orders: 1,
            seconds: 3600,
        }];
        let mut limiter = Limiter::new(pace);
        limiter.reserve_order(NONE, NOW).expect("free");
        limiter.record_limit(&limited(Some("a.test"), 2 * HOUR), NONE, NOW);

        limiter.shift_times(14 * 365 * DAY);
        let mad = NOW + 14 * 365 * DAY;
        assert_eq!(
            limiter
                .reserve_order(NONE, mad + 60)
                .map_err(|wait| wait.until - mad),
            Err(HOUR)
        );
        // Set back, unnoticed.
        let now = NOW + 120;
        let wait = limiter.reserve_order(NONE, now).expect_err("waits");
        assert_eq!(wait.until - now, HOUR);
        let wait = limiter
            .reserve_order(&Intent::new(&names(&["a.test"])), now)
            .expect_err("waits");
        assert!(wait.until - now <= 2 * HOUR, "{}", wait.until - now);
    }

    #[test]
    fn limits_that_are_over_take_no_room() {
        let mut limiter = Limiter::default();
        for index in 0..10_000 {
            let now = NOW + index * 60;
            let failure = Failure {
                retry_after: Some(now + HOUR),
                scope: Some(Scope::Domain(format!("{index}.test"))),
                ..limited(None, 0)
            };
            limiter.record_limit(&failure, NONE, now);
        }
        let known = limiter.blocks.iter_mut().count();
        assert!(known < 300, "{known}");
    }

    /// Until when an order of these names is held, in seconds from the beginning.
    fn held(limiter: &Limiter, of: &[&str], replaces: bool, now: UnixTime) -> Option<i64> {
        let names = names(of);
        let intent = Intent {
            names: &names,
            replaces,
        };
        Some(limiter.held(&intent, now)?.until - NOW)
    }

    #[test]
    fn each_scope_holds_what_it_limits_and_nothing_else() {
        let met = names(&["a.example", "www.a.example"]);
        let met = Intent::new(&met);
        // (scope, the same set in another order, one of its names, one below, another name)
        let table = [
            (Scope::Set, true, false, false, false),
            (Scope::Domain("a.example".into()), true, true, true, false),
            (
                Scope::Identifier("a.example".into()),
                true,
                true,
                false,
                false,
            ),
            (Scope::Account, true, true, true, true),
            (Scope::Ca, true, true, true, true),
            (Scope::Registrations, false, false, false, false),
        ];
        for (scope, same, one, below, other) in table {
            let mut limiter = Limiter::default();
            let limit = limiter.record_limit(&on(Some(scope.clone()), HOUR), &met, NOW);
            assert_eq!(limit.expect("news").reason.as_str(), scope.as_str());
            for (of, is) in [
                (&["www.a.example", "a.example"][..], same),
                (&["a.example"], one),
                (&["x.a.example"], below),
                (&["b.example"], other),
            ] {
                let expected = is.then_some(HOUR);
                assert_eq!(held(&limiter, of, false, NOW), expected, "{scope:?} {of:?}");
                assert_eq!(held(&limiter, of, false, NOW + HOUR), None, "{scope:?}");
            }
            let is_registrations = scope == Scope::Registrations;
            assert_eq!(limiter.registration_held(NOW).is_some(), is_registrations);
            assert_eq!(limiter.limits(NOW).count(), 1);
            let json = serde_json::to_string(&limiter).expect("JSON");
            let mut read: Limiter = serde_json::from_str(&json).expect("the same");
            read.set_paces(vec![Pace::default()]);
            assert_eq!(read, limiter);
            limiter.clear_limits(met.names, NOW);
            assert_eq!(limiter.limits(NOW).count(), 0, "{scope:?}");
        }
    }

    #[test]
    fn a_limit_of_which_nothing_is_said_holds_the_set_and_for_a_second_name_the_account() {
        let mut limiter = Limiter::default();
        let fail = |limiter: &mut Limiter, name: &str, now: UnixTime| {
            let names = names(&[name]);
            let failure = Failure::new(FailureClass::RateLimited, "slow down");
            let limit = limiter.record_limit(&failure, &Intent::new(&names), now);
            limit.map(|limit| limit.reason.as_str())
        };
        assert_eq!(fail(&mut limiter, "a.example", NOW), Some("set"));
        assert_eq!(held(&limiter, &["a.example"], false, NOW), Some(HOUR));
        assert_eq!(held(&limiter, &["b.other"], false, NOW), None);
        // One of the same registered domain says nothing about the account.
        assert_eq!(fail(&mut limiter, "www.a.example", NOW), Some("set"));
        assert_eq!(held(&limiter, &["b.other"], false, NOW), None);
        // Nor does another one some time after it.
        assert_eq!(fail(&mut limiter, "b.other", NOW + HOUR), Some("set"));
        assert_eq!(held(&limiter, &["c.test"], false, NOW + HOUR), None);
        assert_eq!(
            fail(&mut limiter, "c.test", NOW + HOUR + 1),
            Some("account")
        );
        assert_eq!(
            held(&limiter, &["d.test"], false, NOW + HOUR + 1),
            Some(2 * HOUR + 1)
        );
    }

    #[test]
    fn a_renewal_that_names_what_it_replaces_is_held_by_what_such_a_renewal_met() {
        for scope in [
            Scope::Set,
            Scope::Domain("a.example".into()),
            Scope::Account,
        ] {
            let mut limiter = Limiter::default();
            let names = names(&["a.example"]);
            let failure = on(Some(scope.clone()), HOUR);
            limiter.record_limit(&failure, &Intent::new(&names), NOW);
            assert_eq!(held(&limiter, &["a.example"], false, NOW), Some(HOUR));
            assert_eq!(held(&limiter, &["a.example"], true, NOW), None, "{scope:?}");
            let renewal = Intent {
                names: &names,
                replaces: true,
            };
            let limit = limiter.record_limit(&on(Some(scope.clone()), 60), &renewal, NOW);
            assert!(limit.is_some(), "that is news");
            assert_eq!(held(&limiter, &["a.example"], true, NOW), Some(HOUR));
            let mut other = Limiter::default();
            other.merge_from(&limiter);
            assert_eq!(held(&other, &["a.example"], true, NOW), Some(HOUR));
        }
        let mut limiter = Limiter::default();
        limiter.record_limit(&on(Some(Scope::Ca), HOUR), NONE, NOW);
        assert_eq!(
            held(&limiter, &["a.example"], true, NOW),
            Some(HOUR),
            "nobody is exempt"
        );
    }

    #[test]
    fn a_busy_ca_is_left_alone_for_hours_at_most() {
        for (class, seconds, expected) in [
            (FailureClass::RateLimited, None, Some(10 * MINUTE)),
            (FailureClass::RateLimited, Some(60), Some(60)),
            (FailureClass::RateLimited, Some(DAY), Some(6 * HOUR)),
            (FailureClass::Network, Some(300), Some(300)),
            (FailureClass::Validation, Some(300), None),
        ] {
            let mut limiter = Limiter::default();
            let failure = Failure {
                retry_after: seconds.map(|seconds| NOW + seconds),
                scope: Some(Scope::Ca),
                ..Failure::new(class, "busy")
            };
            limiter.record_limit(&failure, NONE, NOW);
            assert_eq!(held(&limiter, &["a.example"], false, NOW), expected);
        }
    }

    /// As stored by 0.1.0.
    #[test]
    fn what_former_versions_have_stored_is_read() {
        let json = r#"{ "taken": [1800000000], "seen": 1800000000,
            "account": { "since": 1800000000, "until": 1800003600, "message": "too many orders" },
            "domains": { "a.example": { "since": 1800000000, "until": 1800007200, "message": "x" } } }"#;
        let limiter: Limiter = serde_json::from_str(json).expect("read");
        assert_eq!(held(&limiter, &["b.test"], false, NOW), Some(HOUR));
        assert_eq!(
            held(&limiter, &["w.a.example"], false, NOW + HOUR),
            Some(2 * HOUR)
        );
        assert_eq!(limiter.limits(NOW).count(), 2);
    }
}
