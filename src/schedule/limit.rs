//! Whether a CA may be asked for a certificate now.
//!
//! A [`Limiter`] belongs to one account at one CA. It keeps the pace that is configured, so that a
//! wave of orders is no burst, and remembers what the CA has limited, so that nobody runs into the
//! same limit again. It is stored by whoever uses it; it never waits itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::retry::{LONGEST_LIMIT, UNSAID_LIMIT};
use super::{Failure, FailureClass, text};
use crate::clock::UnixTime;
use crate::host::{Pattern, parent};

/// So many orders within so many seconds, whenever one begins to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    pub orders: u32,
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

/// What is known of the limits of one account at one CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limiter {
    /// All of them are kept. Configuration, not state.
    #[serde(skip)]
    paces: Vec<Pace>,
    /// When orders were made, the oldest first; as many as the paces need.
    taken: VecDeque<UnixTime>,
    /// The limit on the whole account.
    account: Option<Block>,
    /// Limits on names at or below a domain.
    domains: BTreeMap<String, Block>,
    /// Why nobody is asked while the clock and the CA disagree. A matter of this machine alone.
    #[serde(skip)]
    clock: Option<Block>,
    /// The latest time that was seen: an earlier one means that the clock was set back.
    seen: UnixTime,
}

/// A limit of the CA that was met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Block {
    since: UnixTime,
    until: UnixTime,
    message: String,
    /// Whether a person said at `since` that it is over. It stays known until its end, so that
    /// instances which still keep to it learn so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lifted: bool,
}

/// Why and until when a CA may not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Not before.
    pub until: UnixTime,
    pub hold: Hold,
}

/// What keeps from asking a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Our own pace: nobody can be asked for at this account until then.
    Pace,
    /// What came was not valid by our clock, with what was said of it: nothing else would be.
    Clock(String),
    /// The CA's limit on the account, with what it said: nobody can be asked for until then.
    Account(String),
    /// The CA's limit on names at or below a domain, with what it said: others can be asked for.
    Domain(String, String),
}

impl Hold {
    /// Whether it concerns these names alone, and others may be asked for meanwhile.
    pub fn is_of_names(&self) -> bool {
        matches!(self, Self::Domain(..))
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = text(self.until);
        match &self.hold {
            Hold::Pace => write!(f, "waits for its turn until {until}"),
            Hold::Clock(said) => write!(f, "the CA is asked for nothing until {until}: {said}"),
            Hold::Account(said) => write!(f, "the CA limits this account until {until}: {said}"),
            Hold::Domain(domain, said) => {
                write!(f, "the CA limits names of {domain} until {until}: {said}")
            }
        }
    }
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
            account: None,
            domains: BTreeMap::new(),
            clock: None,
            seen: UnixTime::MIN,
        }
    }

    /// Goes on with other paces. A stored limiter comes back with the default one.
    pub fn set_paces(&mut self, paces: Vec<Pace>) {
        self.paces = paces;
        self.trim();
    }

    /// Takes one order for a certificate with these names.
    ///
    /// # Errors
    /// Until when and why to wait. Nothing is taken then.
    pub fn take(&mut self, names: &[Pattern], now: UnixTime) -> Result<(), Wait> {
        self.mend(now);
        self.check(names, now)?;
        self.taken.push_back(now);
        self.trim();
        Ok(())
    }

    /// As [`Self::take`], but takes nothing.
    ///
    /// # Errors
    /// Until when and why to wait.
    pub fn check(&self, names: &[Pattern], now: UnixTime) -> Result<(), Wait> {
        if let Some(block) = self.account.as_ref().filter(|block| block.holds(now)) {
            return Err(Wait {
                until: block.until,
                hold: Hold::Account(block.message.clone()),
            });
        }
        if let Some(block) = self.clock.as_ref().filter(|block| block.holds(now)) {
            return Err(Wait {
                until: block.until,
                hold: Hold::Clock(block.message.clone()),
            });
        }
        let blocks = names.iter().filter_map(|name| self.blocked(name, now));
        if let Some((domain, block)) = blocks.max_by_key(|(_, block)| block.until) {
            return Err(Wait {
                until: block.until,
                hold: Hold::Domain(domain.to_owned(), block.message.clone()),
            });
        }
        let free_at = self.paces.iter().filter_map(|pace| self.free_at(*pace));
        match free_at.max() {
            Some(until) if until > now => Err(Wait {
                until,
                hold: Hold::Pace,
            }),
            _ => Ok(()),
        }
    }

    /// How many orders the paces allow now.
    pub fn room(&self, now: UnixTime) -> usize {
        let room = |pace: &Pace| {
            let end = |taken: UnixTime| taken.saturating_add(i64::from(pace.seconds));
            let latest = self.taken.iter().rev();
            let counting = latest.take_while(|taken| end(**taken) > now).count();
            let orders = usize::try_from(pace.orders.max(1)).unwrap_or(usize::MAX);
            orders.saturating_sub(counting)
        };
        self.paces.iter().map(room).min().unwrap_or(usize::MAX)
    }

    /// Learns from a failure at this CA. Says whether there was something to learn that was not
    /// known, which is worth storing.
    ///
    /// A rate limit stops the names that it is on, or the account. A certificate that is not valid
    /// by the clock stops the account for a while: all others would come the same. That is not
    /// stored, since another machine has another clock.
    pub fn failed(&mut self, failure: &Failure, now: UnixTime) -> bool {
        let is_clock = match failure.class {
            FailureClass::RateLimited => false,
            FailureClass::Clock => true,
            _ => return false,
        };
        self.mend(now);
        let asked = failure
            .retry_after
            .filter(|until| *until > now)
            .unwrap_or_else(|| now.saturating_add(UNSAID_LIMIT));
        let block = Block {
            since: now,
            until: asked.min(now.saturating_add(LONGEST_LIMIT)),
            message: failure.message.clone(),
            lifted: false,
        };
        if is_clock {
            self.clock.get_or_insert_default().meet(block);
            return false;
        }
        match failure.scope.as_deref().map(domain) {
            Some(domain) => {
                let is_new = self.domains.entry(domain).or_default().meet(block);
                // Now and then, so that the cost is spread.
                if self.domains.len().is_power_of_two() {
                    self.domains.retain(|_, block| block.until > now);
                }
                is_new
            }
            None => self.account.get_or_insert_default().meet(block),
        }
    }

    /// Takes over what another instance has learnt, as it was stored.
    pub fn learn(&mut self, other: &Self) {
        self.seen = self.seen.max(other.seen);
        if let Some(block) = &other.account {
            match &mut self.account {
                Some(present) => present.learn(block),
                None => self.account = Some(block.clone()).filter(|block| !block.lifted),
            }
        }
        for (domain, block) in &other.domains {
            match self.domains.get_mut(domain) {
                Some(present) => present.learn(block),
                None if block.lifted => {}
                None => {
                    self.domains.insert(domain.clone(), block.clone());
                }
            }
        }
    }

    /// Forgets the limits of the CA on the account and on these names, and what was wrong with the
    /// clock, where a person knows better. The pace is kept.
    pub fn lift(&mut self, names: &[Pattern], now: UnixTime) {
        self.mend(now);
        self.clock = None;
        self.account.get_or_insert_default().lift(now);
        for domain in names.iter().flat_map(domains) {
            let block = self.domains.entry(domain.to_owned()).or_default();
            block.lift(now);
        }
        self.domains.retain(|_, block| block.until > now);
    }

    /// The clock leapt by so many seconds, see [`super::Steadiness`]: all that is remembered moves
    /// along, so that what was waited for is waited for.
    pub fn leap(&mut self, seconds: i64) {
        self.seen = self.seen.saturating_add(seconds);
        for taken in &mut self.taken {
            *taken = taken.saturating_add(seconds);
        }
        for block in self.blocks() {
            block.since = block.since.saturating_add(seconds);
            block.until = block.until.saturating_add(seconds);
        }
    }

    /// When another order fits into this pace, `None` for at any time.
    fn free_at(&self, pace: Pace) -> Option<UnixTime> {
        let orders = usize::try_from(pace.orders.max(1)).unwrap_or(usize::MAX);
        let place = self.taken.len().checked_sub(orders)?;
        let oldest = self.taken.get(place)?;
        Some(oldest.saturating_add(i64::from(pace.seconds)))
    }

    /// The limit on this name that lasts longest, with its domain.
    fn blocked(&self, name: &Pattern, now: UnixTime) -> Option<(&str, &Block)> {
        domains(name)
            .filter_map(|domain| self.domains.get_key_value(domain))
            .filter(|(_, block)| block.holds(now))
            .max_by_key(|(_, block)| block.until)
            .map(|(domain, block)| (domain.as_str(), block))
    }

    /// Brings near what lies in the future, where the clock was set back: what is waited for is
    /// waited for no longer than it was meant to be.
    pub fn mend(&mut self, now: UnixTime) {
        if now >= self.seen {
            self.seen = now;
            return;
        }
        self.seen = now;
        for taken in &mut self.taken {
            *taken = (*taken).min(now);
        }
        for block in self.blocks() {
            let ahead = block.since.saturating_sub(now).max(0);
            block.since = block.since.saturating_sub(ahead);
            block.until = block.until.saturating_sub(ahead);
        }
    }

    fn blocks(&mut self) -> impl Iterator<Item = &mut Block> {
        let domains = self.domains.values_mut();
        domains.chain(&mut self.account).chain(&mut self.clock)
    }

    fn trim(&mut self) {
        let most = self.paces.iter().map(|pace| pace.orders).max().unwrap_or(0);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let extra = self.taken.len().saturating_sub(most);
        self.taken.drain(..extra);
    }
}

impl Block {
    fn holds(&self, now: UnixTime) -> bool {
        self.until > now && !self.lifted
    }

    /// Takes `new`, which a CA has said just now, unless it is known to last longer. Whether it did.
    fn meet(&mut self, new: Self) -> bool {
        let is_news = self.lifted || new.until > self.until;
        if is_news {
            *self = new;
        }
        is_news
    }

    /// Takes over what another instance knows. What was lifted after it was met is over, and a CA
    /// may say it again after that.
    fn learn(&mut self, other: &Self) {
        match (self.lifted, other.lifted) {
            (false, true) if other.since >= self.since => {
                let until = self.until.max(other.until);
                *self = Self {
                    until,
                    ..other.clone()
                };
            }
            (true, false) if other.since > self.since => *self = other.clone(),
            (true, false) => self.until = self.until.max(other.until),
            (false, false) if other.until > self.until => *self = other.clone(),
            _ => {}
        }
    }

    fn lift(&mut self, now: UnixTime) {
        self.lifted = true;
        self.since = now;
        // What is in the storage may not have been read yet.
        self.until = self.until.max(now.saturating_add(UNSAID_LIMIT));
        self.message.clear();
    }
}

/// The domain of a name, and all that it is below. A limit on an address is met with its next
/// failure.
fn domains(name: &Pattern) -> impl Iterator<Item = &str> {
    let first = match name {
        Pattern::Any | Pattern::Ip(_) => None,
        Pattern::Exact(name) | Pattern::Wildcard(name) => Some(name.as_str()),
    };
    std::iter::successors(first, |name| parent(name))
}

/// A CA's word for a domain in the form of ours.
fn domain(text: &str) -> String {
    let text = text.strip_prefix("*.").unwrap_or(text);
    text.trim_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = 1_800_000_000;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn names(names: &[&str]) -> Vec<Pattern> {
        names
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect()
    }

    fn limited(scope: Option<&str>, seconds: i64) -> Failure {
        Failure {
            retry_after: Some(NOW + seconds),
            scope: scope.map(str::to_owned),
            ..Failure::new(FailureClass::RateLimited, "too many certificates")
        }
    }

    fn until(limiter: &Limiter, name: &str, now: UnixTime) -> Option<i64> {
        let wait = limiter.check(&names(&[name]), now).err()?;
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
            match limiter.take(&[], now) {
                Ok(()) => taken.push(now),
                Err(wait) => {
                    assert_eq!(wait.hold, Hold::Pace);
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
        assert!(limiter.failed(&limited(Some("*.Example.com."), 3 * HOUR), NOW));
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
            .take(&names(&["example.org", "a.example.com"]), NOW)
            .expect_err("one of them is stopped");
        assert!(wait.hold.is_of_names());
        let said = wait.to_string();
        assert!(
            said.contains("example.com") && said.contains("too many"),
            "{said}"
        );

        limiter.failed(&limited(None, HOUR), NOW);
        assert_eq!(until(&limiter, "example.org", NOW), Some(HOUR));
        limiter.failed(&limited(None, 60), NOW);
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
            assert!(limiter.failed(&limited(scope, 3 * HOUR), NOW));
        }
        let stored = limiter.clone();
        let mut peer = limiter.clone();
        limiter.lift(&names(&["www.example.com"]), NOW + 60);
        let check = |limiter: &Limiter| {
            assert_eq!(until(limiter, "a.example.com", NOW + 60), None);
            assert_eq!(until(limiter, "example.org", NOW + 60), Some(3 * HOUR));
            assert_eq!(until(limiter, "other.test", NOW + 60), None);
        };
        check(&limiter);
        // What was stored before does not bring them back, and peers learn that they are over.
        limiter.learn(&stored);
        check(&limiter);
        peer.learn(&limiter);
        check(&peer);
        // Lifted before the storage was read.
        let mut other = Limiter::default();
        other.lift(&names(&["www.example.com"]), NOW + 60);
        other.learn(&stored);
        check(&other);
        // A CA that says it again is believed, by all.
        assert!(limiter.failed(&limited(Some("example.com"), 2 * HOUR), NOW + 90));
        assert_eq!(until(&limiter, "example.com", NOW + 90), Some(2 * HOUR));
        assert!(!limiter.failed(&limited(Some("example.com"), HOUR), NOW + 90));
        peer.learn(&limiter);
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
                limiter.take(&[], now).expect("room");
            }
            assert!(limiter.take(&[], now).is_err());
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
            assert_eq!(limiter.failed(&Failure::new(class, ""), NOW), stored);
            let expected = stopped.then_some(HOUR);
            assert_eq!(until(&limiter, "a.test", NOW), expected, "{class:?}");
            let json = serde_json::to_string(&limiter).expect("JSON");
            let read: Limiter = serde_json::from_str(&json).expect("the same");
            assert_eq!(until(&read, "a.test", NOW), stored.then_some(HOUR));
            limiter.lift(&[], NOW);
            assert_eq!(until(&limiter, "a.test", NOW), None, "{class:?}");
        }
    }

    #[test]
    fn nonsense_from_a_ca_lasts_a_week() {
        let mut limiter = Limiter::default();
        limiter.failed(&limited(None, 4000 * DAY), NOW);
        assert_eq!(until(&limiter, "a.test", NOW), Some(7 * DAY));
    }

    #[test]
    fn it_survives_a_restart_and_is_shared() {
        let mut limiter = Limiter::default();
        for _ in 0..10 {
            limiter.take(&[], NOW).expect("free");
        }
        limiter.failed(&limited(Some("a.test"), HOUR), NOW);
        let json = serde_json::to_string(&limiter).expect("JSON");
        let mut read: Limiter = serde_json::from_str(&json).expect("the same");
        read.set_paces(vec![Pace::default()]);
        assert_eq!(read, limiter);
        assert_eq!(until(&read, "b.test", NOW), Some(10));

        let mut other = Limiter::default();
        other.learn(&limiter);
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
        limiter.take(&[], NOW).expect("free");
        limiter.failed(&limited(Some("a.test"), 2 * HOUR), NOW);

        limiter.leap(14 * 365 * DAY);
        let mad = NOW + 14 * 365 * DAY;
        assert_eq!(
            limiter.take(&[], mad + 60).map_err(|wait| wait.until - mad),
            Err(HOUR)
        );
        // Set back, and nobody was told.
        let now = NOW + 120;
        let wait = limiter.take(&[], now).expect_err("waits");
        assert_eq!(wait.until - now, HOUR);
        let wait = limiter.take(&names(&["a.test"]), now).expect_err("waits");
        assert!(wait.until - now <= 2 * HOUR, "{}", wait.until - now);
    }

    #[test]
    fn limits_that_are_over_take_no_room() {
        let mut limiter = Limiter::default();
        for index in 0..10_000 {
            let now = NOW + index * 60;
            let failure = Failure {
                retry_after: Some(now + HOUR),
                scope: Some(format!("{index}.test")),
                ..limited(None, 0)
            };
            limiter.failed(&failure, now);
        }
        assert!(limiter.domains.len() < 300, "{}", limiter.domains.len());
    }
}
