//! The plans of all certificates that CAs are asked for, one for each list of issuers.
//!
//! What is asked of one CA waits for that CA's pace and limits; what is asked of another does not.
//! What clients ask for has plans of its own, which come after those of the configuration: however
//! many names are asked for, none of its certificates waits for more than a few of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::needs::Need;
use super::authorities::Obstacle;
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::schedule::{CertState, Facts, Failure, Lifetime, Plan, Retry};

/// How many certificates are worked on at a time, for each list of issuers.
const AT_ONCE: usize = 32;

/// The same for those that clients ask for: each takes its place in the pace of the CA when it
/// orders, and what the configuration asks for then comes after as many.
const ON_DEMAND_AT_ONCE: usize = 16;

/// After how many seconds at most what a limit stands against is looked at again: it may be over
/// sooner than the CA has said.
const LOOK_AGAIN: i64 = 600;

/// Every plan, and the part of its life in which a certificate is renewed.
pub(super) struct Plans {
    configured: Lane,
    on_demand: Lane,
    window: f64,
}

/// The plans of all that come in the same turn.
struct Lane {
    by_issuers: BTreeMap<Vec<Arc<str>>, Plan<Arc<Need>>>,
    /// Until when a whole plan waits for the pace.
    paced: BTreeMap<Vec<Arc<str>>, UnixTime>,
    at_once: usize,
}

impl Plans {
    pub(super) fn new(window: f64) -> Self {
        Self {
            configured: Lane::new(AT_ONCE),
            on_demand: Lane::new(ON_DEMAND_AT_ONCE),
            window,
        }
    }

    pub(super) fn window(&self) -> f64 {
        self.window
    }

    pub(super) fn set_window(&mut self, window: f64) {
        if self.window.to_bits() == window.to_bits() {
            return;
        }
        self.window = window;
        for lane in [&mut self.configured, &mut self.on_demand] {
            let plans = lane.by_issuers.values_mut();
            plans.for_each(|plan| plan.set_window(window));
        }
    }

    pub(super) fn set(&mut self, need: &Arc<Need>, facts: Facts, now: UnixTime) {
        let window = self.window;
        let plans = &mut self.lane_mut(need).by_issuers;
        if !plans.contains_key(&need.issuers) {
            plans.insert(need.issuers.clone(), Plan::new(window));
        }
        if let Some(plan) = self.of_mut(need) {
            plan.set(Arc::clone(need), facts, now);
        }
    }

    pub(super) fn advise(&mut self, need: &Arc<Need>, at: Option<UnixTime>) {
        if let Some(plan) = self.of_mut(need) {
            plan.advise(need, at);
        }
    }

    pub(super) fn remove(&mut self, need: &Arc<Need>) {
        let lane = self.lane_mut(need);
        if let Some(plan) = lane.by_issuers.get_mut(&need.issuers) {
            plan.remove(need);
            if plan.is_empty() {
                lane.by_issuers.remove(&need.issuers);
                lane.paced.remove(&need.issuers);
            }
        }
    }

    /// Puts nothing off any longer for what stood against it: that may be over.
    pub(super) fn reconsider(&mut self) {
        for lane in [&mut self.configured, &mut self.on_demand] {
            lane.paced.clear();
            lane.by_issuers.values_mut().for_each(Plan::reconsider);
        }
    }

    /// The lists of issuers that there are plans for.
    pub(super) fn lists(&self) -> impl Iterator<Item = &Vec<Arc<str>>> {
        let lanes = [&self.configured, &self.on_demand].into_iter();
        lanes.flat_map(|lane| lane.by_issuers.keys())
    }

    /// What is due at `now` and `ready`, as far as there is room; begun, until one of the calls
    /// below ends it. What is not ready is put off, alone or with all of its plan.
    pub(super) fn begin(
        &mut self,
        now: UnixTime,
        ready: impl Fn(&Need) -> Result<(), Obstacle>,
    ) -> Vec<Arc<Need>> {
        let mut begun = Vec::new();
        for lane in [&mut self.configured, &mut self.on_demand] {
            lane.begin(now, &ready, &mut begun);
        }
        begun
    }

    /// When [`Self::begin`] next has something.
    pub(super) fn next_wake(&self) -> Option<UnixTime> {
        let lanes = [&self.configured, &self.on_demand].into_iter();
        lanes.filter_map(Lane::next_wake).min()
    }

    /// Until when the whole plan of `need` waits for the pace.
    pub(super) fn paced(&self, need: &Need, now: UnixTime) -> Option<UnixTime> {
        let paced = self.lane(need).paced.get(&need.issuers).copied();
        paced.filter(|until| *until > now)
    }

    pub(super) fn succeed(&mut self, need: &Arc<Need>, life: Lifetime, now: UnixTime) {
        if let Some(plan) = self.of_mut(need) {
            plan.succeed(need, life, now);
        }
    }

    pub(super) fn fail(&mut self, need: &Arc<Need>, failure: &Failure, now: UnixTime) {
        if let Some(plan) = self.of_mut(need) {
            plan.fail(need, failure, None, now, &mut fastrand::Rng::new());
        }
    }

    pub(super) fn failed(&mut self, need: &Arc<Need>, retry: Retry) {
        if let Some(plan) = self.of_mut(need) {
            plan.failed(need, retry);
        }
    }

    /// Puts off what stands against which is over at `until`, or sooner than was said.
    pub(super) fn put_off(&mut self, need: &Arc<Need>, until: UnixTime, now: UnixTime) {
        self.defer(need, until.min(now.saturating_add(LOOK_AGAIN)));
    }

    pub(super) fn defer(&mut self, need: &Arc<Need>, until: UnixTime) {
        if let Some(plan) = self.of_mut(need) {
            plan.defer(need, until);
        }
    }

    pub(super) fn request(&mut self, need: &Arc<Need>, now: UnixTime) {
        self.lane_mut(need).paced.remove(&need.issuers);
        if let Some(plan) = self.of_mut(need) {
            plan.request(need, now);
        }
    }

    pub(super) fn state(&self, need: &Arc<Need>, now: UnixTime) -> CertState {
        let plan = self.of(need);
        plan.and_then(|plan| plan.state(need, now))
            .unwrap_or(CertState::Missing)
    }

    pub(super) fn retry(&self, need: &Arc<Need>) -> Option<&Retry> {
        self.of(need)?.retry(need)
    }

    pub(super) fn next_attempt(&self, need: &Arc<Need>) -> Option<UnixTime> {
        self.of(need)?.next_attempt(need)
    }

    fn of(&self, need: &Need) -> Option<&Plan<Arc<Need>>> {
        self.lane(need).by_issuers.get(&need.issuers)
    }

    fn of_mut(&mut self, need: &Need) -> Option<&mut Plan<Arc<Need>>> {
        self.lane_mut(need).by_issuers.get_mut(&need.issuers)
    }

    fn lane(&self, need: &Need) -> &Lane {
        match need.standing {
            Precedence::OnDemand => &self.on_demand,
            _ => &self.configured,
        }
    }

    fn lane_mut(&mut self, need: &Need) -> &mut Lane {
        match need.standing {
            Precedence::OnDemand => &mut self.on_demand,
            _ => &mut self.configured,
        }
    }
}

impl Lane {
    fn new(at_once: usize) -> Self {
        Self {
            by_issuers: BTreeMap::new(),
            paced: BTreeMap::new(),
            at_once,
        }
    }

    fn begin(
        &mut self,
        now: UnixTime,
        ready: &impl Fn(&Need) -> Result<(), Obstacle>,
        begun: &mut Vec<Arc<Need>>,
    ) {
        let soon = now.saturating_add(1);
        for (issuers, plan) in &mut self.by_issuers {
            if self.paced.get(issuers).is_some_and(|until| *until > now) {
                continue;
            }
            self.paced.remove(issuers);
            // What is put off makes room for what comes after it.
            'all: loop {
                let room = self.at_once.saturating_sub(plan.running());
                let due = plan.due(now, room);
                if due.is_empty() {
                    break;
                }
                for need in due {
                    match ready(&need) {
                        Ok(()) => {
                            if plan.start(&need) {
                                begun.push(need);
                            }
                        }
                        Err(Obstacle::OfNeed(until)) => {
                            let until = until.min(now.saturating_add(LOOK_AGAIN));
                            plan.defer(&need, until.max(soon));
                        }
                        Err(Obstacle::Pace(until)) => {
                            self.paced.insert(issuers.clone(), until.max(soon));
                            break 'all;
                        }
                    }
                }
            }
        }
    }

    fn next_wake(&self) -> Option<UnixTime> {
        // Where there is no room, the end of what is under way is what is waited for.
        let with_room = self
            .by_issuers
            .iter()
            .filter(|(_, plan)| plan.running() < self.at_once);
        let wakes = with_room.filter_map(|(issuers, plan)| {
            let paced = self.paced.get(issuers).copied();
            Some(plan.next_wake()?.max(paced.unwrap_or(UnixTime::MIN)))
        });
        wakes.min()
    }
}
