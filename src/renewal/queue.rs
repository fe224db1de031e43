//! The plans of all certificates that CAs are asked for, one for each list of issuers.
//!
//! An order waits for the pace and the limits of its own CA, not of others. On-demand names have
//! plans of their own, which come after those of the configuration: however many names clients ask
//! for, no configured certificate waits for more than a few of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::issuers::Obstacle;
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::issuer::spec::CertSpec;
use crate::schedule::{CertState, Facts, Failure, Lifetime, Plan, Retry};

/// How many certificates are worked on at a time, for each list of issuers.
const AT_ONCE: usize = 32;

/// The same for certificates that clients ask for. A configured certificate waits for at most as
/// many of them.
const ON_DEMAND_AT_ONCE: usize = 16;

/// After how long at most a certificate is checked again that a limit holds: the limit may
/// end sooner than the CA has said.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// Every plan, and the part of its life in which a certificate is renewed.
pub(super) struct RenewalQueues {
    configured: Queue,
    on_demand: Queue,
    window: f64,
}

/// The plans of one precedence.
struct Queue {
    by_issuers: BTreeMap<Vec<Arc<str>>, Plan<Arc<CertSpec>>>,
    /// Until when a whole plan waits for the pace.
    paced: BTreeMap<Vec<Arc<str>>, UnixTime>,
    at_once: usize,
}

impl RenewalQueues {
    pub(super) fn new(window: f64) -> Self {
        Self {
            configured: Queue::new(AT_ONCE),
            on_demand: Queue::new(ON_DEMAND_AT_ONCE),
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
        for queue in [&mut self.configured, &mut self.on_demand] {
            let queues = queue.by_issuers.values_mut();
            queues.for_each(|plan| plan.set_window(window));
        }
    }

    pub(super) fn set(&mut self, spec: &Arc<CertSpec>, facts: Facts, now: UnixTime) {
        let window = self.window;
        let queues = &mut self.queue_mut(spec).by_issuers;
        if !queues.contains_key(&spec.issuers) {
            queues.insert(spec.issuers.clone(), Plan::new(window));
        }
        if let Some(plan) = self.plan_of_mut(spec) {
            plan.set(Arc::clone(spec), facts, now);
        }
    }

    pub(super) fn set_advised_time(&mut self, spec: &Arc<CertSpec>, at: Option<UnixTime>) {
        if let Some(plan) = self.plan_of_mut(spec) {
            plan.set_advised_time(spec, at);
        }
    }

    pub(super) fn remove(&mut self, spec: &Arc<CertSpec>) {
        let queue = self.queue_mut(spec);
        if let Some(plan) = queue.by_issuers.get_mut(&spec.issuers) {
            plan.remove(spec);
            if plan.is_empty() {
                queue.by_issuers.remove(&spec.issuers);
                queue.paced.remove(&spec.issuers);
            }
        }
    }

    /// Puts nothing off any longer: what stood against it may be over.
    pub(super) fn replan_all(&mut self) {
        for queue in [&mut self.configured, &mut self.on_demand] {
            queue.paced.clear();
            queue.by_issuers.values_mut().for_each(Plan::replan_all);
        }
    }

    /// The lists of issuers that there are plans for.
    pub(super) fn lists(&self) -> impl Iterator<Item = &Vec<Arc<str>>> {
        let lanes = [&self.configured, &self.on_demand].into_iter();
        lanes.flat_map(|queue| queue.by_issuers.keys())
    }

    /// Begins what is due at `now` and `ready`, as far as there is room. It counts as running until
    /// one of the calls below ends it. What is not ready is put off, alone or with all of its plan.
    pub(super) fn begin_due(
        &mut self,
        now: UnixTime,
        ready: impl Fn(&CertSpec) -> Result<(), Obstacle>,
    ) -> Vec<Arc<CertSpec>> {
        let mut begun = Vec::new();
        for queue in [&mut self.configured, &mut self.on_demand] {
            queue.begin_due(now, &ready, &mut begun);
        }
        begun
    }

    /// How many are due and wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        let lanes = [&self.configured, &self.on_demand].into_iter();
        let plans = lanes.flat_map(|queue| queue.by_issuers.values());
        plans.map(Plan::waiting).sum()
    }

    /// When [`Self::begin_due`] next has something.
    pub(super) fn next_wake(&self) -> Option<UnixTime> {
        let lanes = [&self.configured, &self.on_demand].into_iter();
        lanes.filter_map(Queue::next_wake).min()
    }

    /// Until when the whole plan of `spec` waits for the pace.
    pub(super) fn paced(&self, spec: &CertSpec, now: UnixTime) -> Option<UnixTime> {
        let paced = self.queue(spec).paced.get(&spec.issuers).copied();
        paced.filter(|until| *until > now)
    }

    pub(super) fn record_success(&mut self, spec: &Arc<CertSpec>, life: Lifetime, now: UnixTime) {
        if let Some(plan) = self.plan_of_mut(spec) {
            plan.record_success(spec, life, now);
        }
    }

    pub(super) fn record_failure(
        &mut self,
        spec: &Arc<CertSpec>,
        failure: &Failure,
        now: UnixTime,
    ) {
        if let Some(plan) = self.plan_of_mut(spec) {
            plan.record_failure(spec, failure, None, now, &mut fastrand::Rng::new());
        }
    }

    pub(super) fn set_retry(&mut self, spec: &Arc<CertSpec>, retry: Retry) {
        if let Some(plan) = self.plan_of_mut(spec) {
            plan.set_retry(spec, retry);
        }
    }

    /// Puts a certificate off until a limit ends at `until`; not for too long, since the limit may
    /// end sooner.
    pub(super) fn defer_at_most(&mut self, spec: &Arc<CertSpec>, until: UnixTime, now: UnixTime) {
        self.defer(spec, until.min(now + LOOK_AGAIN));
    }

    pub(super) fn defer(&mut self, spec: &Arc<CertSpec>, until: UnixTime) {
        if let Some(plan) = self.plan_of_mut(spec) {
            plan.defer(spec, until);
        }
    }

    pub(super) fn request_now(&mut self, spec: &Arc<CertSpec>, now: UnixTime) {
        self.queue_mut(spec).paced.remove(&spec.issuers);
        if let Some(plan) = self.plan_of_mut(spec) {
            plan.request_now(spec, now);
        }
    }

    pub(super) fn state(&self, spec: &Arc<CertSpec>, now: UnixTime) -> CertState {
        let plan = self.plan_of(spec);
        plan.and_then(|plan| plan.state(spec, now))
            .unwrap_or(CertState::Missing)
    }

    pub(super) fn retry(&self, spec: &Arc<CertSpec>) -> Option<&Retry> {
        self.plan_of(spec)?.retry(spec)
    }

    /// When the present certificate is or was to be renewed.
    pub(super) fn planned_at(&self, spec: &Arc<CertSpec>) -> Option<UnixTime> {
        self.plan_of(spec)?.planned_at(spec)
    }

    pub(super) fn next_attempt(&self, spec: &Arc<CertSpec>) -> Option<UnixTime> {
        self.plan_of(spec)?.next_attempt(spec)
    }

    fn plan_of(&self, spec: &CertSpec) -> Option<&Plan<Arc<CertSpec>>> {
        self.queue(spec).by_issuers.get(&spec.issuers)
    }

    fn plan_of_mut(&mut self, spec: &CertSpec) -> Option<&mut Plan<Arc<CertSpec>>> {
        self.queue_mut(spec).by_issuers.get_mut(&spec.issuers)
    }

    fn queue(&self, spec: &CertSpec) -> &Queue {
        match spec.precedence {
            Precedence::OnDemand => &self.on_demand,
            _ => &self.configured,
        }
    }

    fn queue_mut(&mut self, spec: &CertSpec) -> &mut Queue {
        match spec.precedence {
            Precedence::OnDemand => &mut self.on_demand,
            _ => &mut self.configured,
        }
    }
}

impl Queue {
    fn new(at_once: usize) -> Self {
        Self {
            by_issuers: BTreeMap::new(),
            paced: BTreeMap::new(),
            at_once,
        }
    }

    fn begin_due(
        &mut self,
        now: UnixTime,
        ready: &impl Fn(&CertSpec) -> Result<(), Obstacle>,
        begun: &mut Vec<Arc<CertSpec>>,
    ) {
        let soon = now + 1;
        for (issuers, plan) in &mut self.by_issuers {
            if self.paced.get(issuers).is_some_and(|until| *until > now) {
                continue;
            }
            self.paced.remove(issuers);
            // What is put off makes room for the next.
            'all: loop {
                let room = self.at_once.saturating_sub(plan.running());
                let due = plan.due(now, room);
                if due.is_empty() {
                    break;
                }
                for spec in due {
                    match ready(&spec) {
                        Ok(()) => {
                            if plan.mark_running(&spec) {
                                begun.push(spec);
                            }
                        }
                        Err(Obstacle::OfNeed(until)) => {
                            let until = until.min(now + LOOK_AGAIN);
                            plan.defer(&spec, until.max(soon));
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
        // A plan without room waits for the end of a running job.
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
