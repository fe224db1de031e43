//! The loops for certificates on demand: one answers waiting clients, the other keeps names that are
//! used and removes the rest.
//!
//! At the start, and periodically, it walks through all recorded names and serves those that are not
//! served yet. Nothing waits for that: a name that is asked for meanwhile is looked up on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Engine, blocking};
use crate::clock::UnixTime;
use crate::on_demand::{Removed, Retention, list_records, write_uses};
use crate::shutdown::requested;

/// How many names are read from the storage in one go.
const BATCH: usize = 500;

/// The pause if nothing has to be maintained.
const IDLE: Duration = Duration::from_secs(600);

/// The pause if more names are to be removed than are removed at a time.
const SOON: Duration = Duration::from_secs(1);

/// Maintains certificates on demand until the engine stops.
#[derive(Clone)]
pub(super) struct OnDemandMaintenance {
    engine: Arc<Engine>,
}

impl OnDemandMaintenance {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    pub(super) async fn run(self) {
        // Separately: clients do not wait for a walk, nor a renewal for a storage that hangs here.
        tokio::join!(self.maintain_names(), self.run_requests());
    }

    async fn run_requests(&self) {
        let mut stopping = self.engine.stopping();
        loop {
            tokio::select! {
                () = self.engine.requests.wait_for_request() => {}
                () = requested(&mut stopping) => return,
            }
            let this = self.clone();
            blocking(move || this.answer_requests()).await;
        }
    }

    async fn maintain_names(&self) {
        let mut stopping = self.engine.stopping();
        let (mut walked, begun) = (None, Instant::now());
        loop {
            let this = self.clone();
            let turn = blocking(move || this.maintain(walked, begun)).await;
            let pause;
            (walked, pause) = turn.unwrap_or((walked, IDLE));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.engine.requests.wait_for_change() => walked = None,
                () = requested(&mut stopping) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        *self.engine.stop.borrow()
    }

    /// Takes up the names that clients have asked for. Blocks on the storage, without the lock.
    fn answer_requests(&self) {
        let engine = &self.engine;
        while engine.requests.has_new() {
            let lookup = engine.lock().take_requests();
            if let Some(lookup) = lookup {
                let results = lookup.run(&engine.deps);
                let mut manager = engine.lock();
                manager.apply_lookup(results);
                manager.publish_map();
            }
            engine.requests.notify_taken_up();
        }
    }

    /// Does what is due for certificates on demand. Returns when all stored names were last walked
    /// through, and how long to pause. Blocks on the storage.
    fn maintain(&self, walked: Option<UnixTime>, begun: Instant) -> (Option<UnixTime>, Duration) {
        let engine = &self.engine;
        let Some(retention) = engine.lock().on_demand().retention() else {
            return (None, IDLE);
        };
        self.record_uses();
        let walked = self.walk_records(retention, walked);
        let removals = engine.lock().on_demand_removals(begun.elapsed());
        let pause =
            Duration::from_secs(u64::try_from(retention.looked_every()).unwrap_or_default());
        if removals.is_empty() {
            return (walked, pause);
        }
        let removed = removals.into_iter().map(|one| one.run(&engine.deps));
        let removed: Vec<_> = removed.collect();
        // There may be more to remove.
        let pause = match removed.iter().any(Removed::is_settled) {
            true => SOON.min(pause),
            false => pause,
        };
        let mut manager = engine.lock();
        manager.finish_on_demand_removals(removed);
        manager.publish_map();
        (walked, pause)
    }

    /// Writes down all uses.
    fn record_uses(&self) {
        let engine = &self.engine;
        for used in engine.map.load().take_used().chunks(BATCH) {
            engine.lock().on_demand_mut().record_uses(used);
        }
        while !self.is_stopping() {
            let uses = engine.lock().on_demand().unwritten_uses();
            let count = uses.len();
            let written = write_uses(&engine.deps, uses);
            engine.lock().on_demand_mut().mark_uses_written(&written);
            // What could not be written is tried again next time.
            if count == 0 || written.len() < count {
                return;
            }
        }
    }

    /// Has all stored names served, if a walk is due.
    fn walk_records(&self, retention: Retention, walked: Option<UnixTime>) -> Option<UnixTime> {
        let engine = &self.engine;
        let now = engine.clock.now();
        let next = walked.map(|last| last + retention.walked_every());
        if walked.is_some_and(|last| last <= now) && next.is_some_and(|next| next > now) {
            return walked;
        }
        let records = match list_records(&engine.deps) {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%error, "cannot list stored on-demand certificates");
                return walked;
            }
        };
        engine.lock().on_demand_mut().recheck_all();
        let mut loaded = 0;
        for part in records.chunks(BATCH) {
            if self.is_stopping() {
                return walked;
            }
            let lookup = engine.lock().look_up_records(part.to_vec());
            if lookup.is_empty() {
                continue;
            }
            let results = lookup.run(&engine.deps);
            let mut manager = engine.lock();
            loaded += manager.apply_lookup(results).added.len();
            manager.publish_map();
        }
        if loaded > 0 {
            tracing::info!(certificates = loaded, "on demand, loaded from the storage");
        }
        Some(now)
    }
}
