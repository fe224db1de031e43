//! Decides which of all managed certificates is worked on next.
//!
//! A [`Plan`] knows until when each of its certificates is valid and how often it has failed, and
//! orders them by when they need work. Each call takes logarithmic time. It asks no CA and knows no
//! limits: the issuing service takes what is due, asks the limiter, and reports the result. Its
//! content is rebuilt from the storage at each start.

mod entry;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use fastrand::Rng;

pub use self::entry::{CertState, Facts};
use self::entry::{Entry, Place, Wish};
use super::{Failure, Lifetime, Retry};
use crate::clock::UnixTime;

/// A clock set back by less than this makes no difference.
const SET_BACK: Duration = Duration::from_secs(60);

/// A new certificate is not renewed before this share of its remaining time has passed: 1/10,
/// whatever its own dates say.
const REST: i64 = 10;

/// All managed certificates of one list of issuers, by when they need work.
///
/// There is one plan for each list: if the account at their CA has to wait for its pace, all of the
/// plan waits, and nothing of other plans.
#[derive(Clone, Debug)]
pub struct Plan<K> {
    window: f64,
    entries: HashMap<K, Entry>,
    /// By when they are due.
    waiting: BTreeSet<(UnixTime, K)>,
    /// Those that somebody requested, by when that was.
    asked: BTreeSet<(UnixTime, K)>,
    /// Due and without a certificate, by when they became so: those never tried first.
    missing: BTreeSet<(UnixTime, K)>,
    /// Due for renewal, by when that becomes urgent.
    renewals: BTreeSet<(UnixTime, K)>,
    running: usize,
    /// The latest time that was seen.
    seen: UnixTime,
}

impl<K: Clone + Ord + Hash> Plan<K> {
    /// An empty plan that renews in the last `window` of each lifetime, see [`Lifetime::due_at`].
    pub fn new(window: f64) -> Self {
        Self {
            window,
            entries: HashMap::new(),
            waiting: BTreeSet::new(),
            asked: BTreeSet::new(),
            missing: BTreeSet::new(),
            renewals: BTreeSet::new(),
            running: 0,
            seen: UnixTime::MIN,
        }
    }

    /// Replaces the window.
    pub fn set_window(&mut self, window: f64) {
        self.window = window;
        self.place_all();
    }

    /// Sets the facts about a certificate, and adds it to the plan if it is new. Work in progress
    /// continues.
    pub fn set(&mut self, key: K, facts: Facts, now: UnixTime) {
        let retry = facts.retry.map(|mut retry| {
            retry.repair_times(now);
            Box::new(retry)
        });
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.life != facts.life {
            // The advice was on another certificate.
            entry.advised = None;
        }
        entry.life = facts.life;
        entry.held = UnixTime::MIN;
        entry.retry = retry;
        self.place_entry(&key);
    }

    /// Sets when the CA suggests to renew the current certificate, `None` if it does not: this can
    /// only bring its renewal forward. It does not apply to the next certificate.
    pub fn set_advised_time(&mut self, key: &K, at: Option<UnixTime>) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.advised = at;
            self.place_entry(key);
        }
    }

    /// Removes a certificate from the plan. Work in progress continues, and its result is ignored.
    pub fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.dequeue(key, entry.place);
        }
    }

    /// What is due at `now` and not being worked on, at most `max`, the most urgent first:
    /// requested ones, late renewals, missing ones, other renewals. The call does not change them:
    /// each stays due until [`Self::mark_running`] or [`Self::defer`].
    pub fn due(&mut self, now: UnixTime, max: usize) -> Vec<K> {
        self.advance(now);
        let late = self.renewals.iter().take_while(|(at, _)| *at <= now);
        let others = self.renewals.iter().skip_while(|(at, _)| *at <= now);
        self.asked
            .iter()
            .chain(late)
            .chain(&self.missing)
            .chain(others)
            .take(max)
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// When to check again for what is due: at `now` or before if something is already due, `None`
    /// if nothing ever will be by itself.
    pub fn next_wake(&self) -> Option<UnixTime> {
        if self.asked.is_empty() && self.missing.is_empty() && self.renewals.is_empty() {
            return self.waiting.first().map(|(at, _)| *at);
        }
        Some(self.seen)
    }

    /// Begins work on a certificate. Returns false if it is not in the plan, or already being
    /// worked on.
    pub fn mark_running(&mut self, key: &K) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if entry.place == Place::Running {
            return false;
        }
        let before = std::mem::replace(&mut entry.place, Place::Running);
        self.dequeue(key, before);
        self.running += 1;
        true
    }

    /// Defers a certificate until a time, whether or not it is being worked on: a limit of the CA
    /// prevents it, or another instance holds its lock. It is not a failure.
    pub fn defer(&mut self, key: &K, until: UnixTime) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut entry.place, Place::Waiting(until));
        self.dequeue(key, before);
        self.waiting.insert((until, key.clone()));
    }

    /// Records that there is a certificate: it came from an issuer, or another instance has stored
    /// it.
    pub fn record_success(&mut self, key: &K, life: Lifetime, now: UnixTime) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.life = Some(life);
        entry.advised = None;
        entry.held = now + life.left(now).max(0) / REST;
        entry.retry = None;
        entry.wish = Wish::No;
        self.mark_finished(key);
    }

    /// Records a failed attempt. Returns what is to be stored; `None` if the certificate is not in
    /// the plan.
    pub fn record_failure(
        &mut self,
        key: &K,
        failure: &Failure,
        issuer: Option<&str>,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Option<Retry> {
        let entry = self.entries.get(key)?;
        let previous = entry.retry.as_deref();
        let retry = Retry::after(previous, failure, issuer, entry.life.as_ref(), now, rng);
        self.set_retry(key, retry.clone());
        Some(retry)
    }

    /// Sets the state after a failed attempt, here or at another instance.
    pub fn set_retry(&mut self, key: &K, retry: Retry) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.retry = Some(Box::new(retry));
        if entry.wish != Wish::No {
            entry.wish = Wish::Again;
        }
        self.mark_finished(key);
    }

    /// Ends the work on a certificate as if it had not begun.
    pub fn release(&mut self, key: &K) {
        self.mark_finished(key);
    }

    /// Cancels all deferrals by [`Self::defer`].
    pub fn replan_all(&mut self) {
        self.place_all();
    }

    /// Requests a certificate now, due or not, whatever the back-off says. Returns false if it is
    /// not in the plan. Work in progress is not started twice.
    pub fn request_now(&mut self, key: &K, now: UnixTime) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if entry.place != Place::Running {
            entry.wish = Wish::Now(now);
            self.place_entry(key);
        }
        true
    }

    /// The state of a certificate; `None` if it is not in the plan.
    pub fn state(&self, key: &K, now: UnixTime) -> Option<CertState> {
        let entry = self.entries.get(key)?;
        Some(entry.state(self.window, now))
    }

    /// The lifetime of the current certificate.
    pub fn life(&self, key: &K) -> Option<Lifetime> {
        self.entries.get(key)?.life
    }

    /// Its failures since it was last obtained.
    pub fn retry(&self, key: &K) -> Option<&Retry> {
        self.entries.get(key)?.retry.as_deref()
    }

    /// When a renewal is due by the certificate's lifetime; `None` if there is none.
    pub fn due_at(&self, key: &K) -> Option<UnixTime> {
        Some(self.life(key)?.due_at(self.window))
    }

    /// When its renewal is planned for, by its lifetime and by the CA's advice, whatever has failed
    /// since; `None` if there is none to renew.
    pub fn planned_at(&self, key: &K) -> Option<UnixTime> {
        self.entries.get(key)?.planned_at(self.window)
    }

    /// When the next attempt is made: in the past if it is due and waits for its turn, `None` if it
    /// is in progress, or not made automatically.
    pub fn next_attempt(&self, key: &K) -> Option<UnixTime> {
        match self.entries.get(key)?.place {
            Place::Idle | Place::Running => None,
            Place::Waiting(at) | Place::Asked(at) => Some(at),
            Place::Missing(_) | Place::Renewal(_) => Some(self.seen),
        }
    }

    /// All certificates with their states, in no order.
    pub fn iter(&self, now: UnixTime) -> impl Iterator<Item = (&K, CertState)> {
        self.entries
            .iter()
            .map(move |(key, entry)| (key, entry.state(self.window, now)))
    }

    /// The number of certificates.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many are due and not being worked on, as far as was seen.
    pub fn waiting(&self) -> usize {
        self.asked.len() + self.missing.len() + self.renewals.len()
    }

    /// How many are being worked on.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Moves what has become due to the queues of what is due.
    fn advance(&mut self, now: UnixTime) {
        let set_back = now < self.seen - SET_BACK;
        self.seen = now;
        if set_back {
            for entry in self.entries.values_mut() {
                entry.held = UnixTime::MIN;
                if let Some(retry) = &mut entry.retry {
                    retry.repair_times(now);
                }
            }
            self.place_all();
        }
        while let Some((at, key)) = self.waiting.pop_first() {
            if at > now {
                self.waiting.insert((at, key));
                break;
            }
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Idle;
                self.place_entry(&key);
            }
        }
    }

    /// Puts every entry into the queue that its facts require.
    fn place_all(&mut self) {
        let keys: Vec<K> = self.entries.keys().cloned().collect();
        for key in keys {
            self.place_entry(&key);
        }
    }

    fn mark_finished(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.place == Place::Running {
            entry.place = Place::Idle;
            self.running -= 1;
        }
        self.place_entry(key);
    }

    /// Puts an entry that is not being worked on into the queue that its facts require.
    fn place_entry(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.place == Place::Running {
            return;
        }
        let at = entry.due_at(self.window);
        let after = match (entry.wish, at) {
            (Wish::Now(since), _) => Place::Asked(since),
            (_, None) => Place::Idle,
            (_, Some(at)) if at > self.seen => Place::Waiting(at),
            (_, Some(at)) => entry.ready(self.window, at),
        };
        let before = std::mem::replace(&mut entry.place, after);
        self.dequeue(key, before);
        self.enqueue(key);
    }

    fn enqueue(&mut self, key: &K) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        match entry.place {
            Place::Idle | Place::Running => false,
            Place::Waiting(at) => self.waiting.insert((at, key.clone())),
            Place::Asked(at) => self.asked.insert((at, key.clone())),
            Place::Missing(at) => self.missing.insert((at, key.clone())),
            Place::Renewal(at) => self.renewals.insert((at, key.clone())),
        };
    }

    fn dequeue(&mut self, key: &K, place: Place) {
        match place {
            Place::Idle => false,
            Place::Running => {
                self.running -= 1;
                false
            }
            Place::Waiting(at) => self.waiting.remove(&(at, key.clone())),
            Place::Asked(at) => self.asked.remove(&(at, key.clone())),
            Place::Missing(at) => self.missing.remove(&(at, key.clone())),
            Place::Renewal(at) => self.renewals.remove(&(at, key.clone())),
        };
    }
}

#[cfg(test)]
mod tests;
