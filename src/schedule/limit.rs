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
        if let Some(block) = self.account.as_ref().filter(|block| block.until > now) {
            return Err(Wait {
                until: block.until,
                hold: Hold::Account(block.message.clone()),
            });
        }
        let blocks = names.iter().filter_map(|name| self.blocked(name, now));
        if let Some((domain, block)) = blocks.max_by_key(|(_, block)| block.until) {
            return Err(Wait {
                until: block.until,
                hold: Hold::Domain(domain.to_owned(), block.message.clone()),
            });
        }
        match self
            .paces
            .iter()
            .filter_map(|pace| self.free_at(*pace))
            .max()
        {
            Some(until) if until > now => Err(Wait {
                until,
                hold: Hold::Pace,
            }),
            _ => Ok(()),
        }
    }

    /// Learns from a failure at this CA. Says whether there was something to learn, which is worth
    /// storing.
    ///
    /// A rate limit stops the names that it is on, or the account. A certificate that is not valid
    /// by the clock stops the account for a while: all others would come the same.
    pub fn failed(&mut self, failure: &Failure, now: UnixTime) -> bool {
        if !matches!(
            failure.class,
            FailureClass::RateLimited | FailureClass::Clock
        ) {
            return false;
        }
        self.mend(now);
        let asked = failure
            .retry_after
            .filter(|until| *until > now)
            .unwrap_or_else(|| now.saturating_add(UNSAID_LIMIT));
        let block = Block {
            since: now,
            until: asked.min(now.saturating_add(LONGEST_LIMIT)),
            message: failure.message.clone(),
        };
        match failure.scope.as_deref().map(domain) {
            Some(domain) => {
                later(self.domains.entry(domain).or_default(), block);
                // Now and then, so that the cost is spread.
                if self.domains.len().is_power_of_two() {
                    self.domains.retain(|_, block| block.until > now);
                }
            }
            None => later(self.account.get_or_insert_default(), block),
        }
        true
    }

    /// Takes over what another instance has learnt, as it was stored.
    pub fn learn(&mut self, other: &Self) {
        self.seen = self.seen.max(other.seen);
        if let Some(block) = &other.account {
            later(self.account.get_or_insert_default(), block.clone());
        }
        for (domain, block) in &other.domains {
            later(
                self.domains.entry(domain.clone()).or_default(),
                block.clone(),
            );
        }
    }

    /// Forgets the limits of the CA, where a person knows better. The pace is kept.
    pub fn lift(&mut self) {
        self.account = None;
        self.domains.clear();
    }

    /// The clock leapt by so many seconds, see [`super::Steadiness`]: all that is remembered moves
    /// along, so that what was waited for is waited for.
    pub fn leap(&mut self, seconds: i64) {
        self.seen = self.seen.saturating_add(seconds);
        for taken in &mut self.taken {
            *taken = taken.saturating_add(seconds);
        }
        for block in self.domains.values_mut().chain(&mut self.account) {
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
        let first = match name {
            Pattern::Any => None,
            Pattern::Exact(name) | Pattern::Wildcard(name) => Some(name.as_str()),
        };
        std::iter::successors(first, |name| parent(name))
            .filter_map(|domain| self.domains.get_key_value(domain))
            .filter(|(_, block)| block.until > now)
            .max_by_key(|(_, block)| block.until)
            .map(|(domain, block)| (domain.as_str(), block))
    }

    /// Brings near what lies in the future, where the clock was set back: what is waited for is
    /// waited for no longer than it was meant to be.
    fn mend(&mut self, now: UnixTime) {
        if now >= self.seen {
            self.seen = now;
            return;
        }
        self.seen = now;
        for taken in &mut self.taken {
            *taken = (*taken).min(now);
        }
        for block in self.domains.values_mut().chain(&mut self.account) {
            let ahead = block.since.saturating_sub(now).max(0);
            block.since = block.since.saturating_sub(ahead);
            block.until = block.until.saturating_sub(ahead);
        }
    }

    fn trim(&mut self) {
        let most = self.paces.iter().map(|pace| pace.orders).max().unwrap_or(0);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let extra = self.taken.len().saturating_sub(most);
        self.taken.drain(..extra);
    }
}

/// Keeps the one that lasts longer.
fn later(present: &mut Block, new: Block) {
    if new.until > present.until {
        *present = new;
    }
}

/// A CA's word for a domain in the form of ours.
fn domain(text: &str) -> String {
    let text = text.strip_prefix("*.").unwrap_or(text);
    text.trim_end_matches('.').to_ascii_lowercase()
}
