//! A CA with the limits of Let's Encrypt, which fails the test if one is exceeded.

use std::collections::{HashMap, VecDeque};

use fastrand::Rng;

use crate::clock::UnixTime;
use crate::schedule::{DAY, Failure, FailureClass, HOUR, Lifetime, Scope};

/// Orders of an account within three hours.
pub(super) const ORDERS: usize = 300;

/// Failed validations of a name within an hour.
const FAILED: usize = 5;

/// How far it backdates certificates.
const BACKDATE: i64 = HOUR;

/// The longest time for a response. Orders in progress along with the first refused one are no
/// fault.
pub(super) const ANSWER: i64 = 40;

pub(super) struct Ca {
    pub(super) name: &'static str,
    /// From, to.
    pub(super) outages: Vec<(UnixTime, UnixTime)>,
    /// From, to, and the names below which are limited; all names if it is empty.
    pub(super) limits: Vec<(UnixTime, UnixTime, &'static str)>,
    /// When somebody first ran into each, so that nobody may again.
    told: Vec<Option<UnixTime>>,
    recent: VecDeque<UnixTime>,
    failed: HashMap<u32, VecDeque<UnixTime>>,
    pub(super) most_in_3_hours: usize,
    pub(super) most_failed: usize,
    per_day: HashMap<i64, usize>,
    pub(super) orders: usize,
    /// Orders refused because of one of `limits`.
    pub(super) limited: usize,
}

impl Ca {
    pub(super) fn new(
        name: &'static str,
        outages: Vec<(UnixTime, UnixTime)>,
        limits: Vec<(UnixTime, UnixTime, &'static str)>,
    ) -> Self {
        Self {
            name,
            outages,
            told: vec![None; limits.len()],
            limits,
            recent: VecDeque::new(),
            failed: HashMap::new(),
            most_in_3_hours: 0,
            most_failed: 0,
            per_day: HashMap::new(),
            orders: 0,
            limited: 0,
        }
    }

    pub(super) fn is_down(&self, now: UnixTime) -> bool {
        self.outages
            .iter()
            .any(|(from, to)| (*from..*to).contains(&now))
    }

    pub(super) fn most_in_a_day(&self) -> usize {
        self.per_day.values().max().copied().unwrap_or(0)
    }

    /// `proven` says whether the name points to the gateway now.
    pub(super) fn order(
        &mut self,
        id: u32,
        name: &str,
        length: i64,
        proven: bool,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<Lifetime, Failure> {
        if self.is_down(now) {
            return Err(Failure::new(FailureClass::Network, "connection timed out"));
        }
        self.count(now);
        for (told, (from, to, below)) in self.told.iter_mut().zip(&self.limits) {
            if (*from..*to).contains(&now) && name.ends_with(below) {
                let first = *told.get_or_insert(now);
                assert!(
                    now - first <= ANSWER,
                    "{name} runs into a known limit at {now}"
                );
                self.limited += 1;
                return Err(Failure {
                    retry_after: Some(*to),
                    scope: Some(match below.is_empty() {
                        true => Scope::Account,
                        false => Scope::Domain((*below).to_owned()),
                    }),
                    ..Failure::new(FailureClass::RateLimited, "too many")
                });
            }
        }
        if !proven {
            self.count_failed(id, name, now);
            return Err(Failure::new(FailureClass::Validation, "no such answer"));
        }
        match rng.u32(0..2000) {
            0 => Err(Failure::new(FailureClass::Network, "internal error of CA")),
            1 => Err(Failure::new(FailureClass::Internal, "not what was asked")),
            _ => Ok(Lifetime {
                not_before: now - BACKDATE,
                not_after: now - BACKDATE + length,
                seed: rng.u64(..),
            }),
        }
    }

    fn count(&mut self, now: UnixTime) {
        while self.recent.front().is_some_and(|at| *at <= now - 3 * HOUR) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.most_in_3_hours = self.most_in_3_hours.max(self.recent.len());
        *self.per_day.entry(now.as_secs() / DAY).or_default() += 1;
        self.orders += 1;
        assert!(self.recent.len() <= ORDERS, "too many orders at {now}");
    }

    fn count_failed(&mut self, id: u32, name: &str, now: UnixTime) {
        let failed = self.failed.entry(id).or_default();
        while failed.front().is_some_and(|at| *at <= now - HOUR) {
            failed.pop_front();
        }
        failed.push_back(now);
        self.most_failed = self.most_failed.max(failed.len());
        assert!(failed.len() <= FAILED, "{name} fails too often at {now}");
    }
}
