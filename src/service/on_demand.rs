//! The service for certificates on demand: it answers waiting clients, keeps names that are used,
//! and removes the others.
//!
//! At the start, and now and then, it walks through all recorded names and serves those that are
//! not served yet. Nothing waits for that: a name that is asked for meanwhile is looked up on its
//! own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use super::blocking;
use super::state::GatewayState;
use crate::clock::UnixTime;
use crate::manager::{Removed, Retention};
use crate::shutdown::requested;

/// How many names are read from the storage in one go.
const AT_A_TIME: usize = 500;

/// The pause where nothing has to be kept.
const IDLE: Duration = Duration::from_secs(600);

/// The pause where more is to go than goes at a time.
const SOON: Duration = Duration::from_secs(1);

/// Maintains certificates on demand until the gateway stops.
pub struct OnDemandMaintenance {
    state: Arc<GatewayState>,
    stopping: ShutdownWatch,
}

impl OnDemandMaintenance {
    /// The service for the certificates of `state`, until `stopping` says stop.
    pub fn new(state: Arc<GatewayState>, stopping: ShutdownWatch) -> Self {
        Self { state, stopping }
    }
}

#[async_trait]
impl BackgroundService for OnDemandMaintenance {
    async fn start(&self, _: ShutdownWatch) {
        // Apart: who asks does not wait for a walk, nor a renewal for a storage that hangs here.
        tokio::join!(self.maintain_names(), self.answer_requests());
    }
}

impl OnDemandMaintenance {
    /// Answers the names that clients ask for.
    async fn answer_requests(&self) {
        let mut stopping = self.stopping.clone();
        loop {
            tokio::select! {
                () = self.state.requests.wait_for_request() => {}
                () = requested(&mut stopping) => return,
            }
            let state = Arc::clone(&self.state);
            blocking(move || state.answer_requests()).await;
        }
    }

    async fn maintain_names(&self) {
        let mut stopping = self.stopping.clone();
        let (mut walked, begun) = (None, Instant::now());
        loop {
            let (state, stop) = (Arc::clone(&self.state), self.stopping.clone());
            let turn = blocking(move || state.maintain_on_demand(walked, begun, &stop)).await;
            let pause;
            (walked, pause) = turn.unwrap_or((walked, IDLE));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.state.requests.wait_for_change() => walked = None,
                () = requested(&mut stopping) => return,
            }
        }
    }
}

impl GatewayState {
    /// Takes up what clients have asked for. Blocks on the storage, and holds nobody up meanwhile.
    fn answer_requests(&self) {
        while self.requests.has_new() {
            let asked = self.writer().manager.take_requests();
            if let Some(batch) = asked {
                let looked = batch.run(&self.deps);
                let mut writer = self.writer();
                writer.manager.apply_lookup(looked);
                self.publish_map(&self.current().config);
            }
            self.requests.notify_taken_up();
        }
    }

    /// Does what is due for certificates on demand. Returns when all that is stored was last walked
    /// through, and until when to wait. Blocks on the storage.
    fn maintain_on_demand(
        &self,
        walked: Option<UnixTime>,
        begun: Instant,
        stopping: &ShutdownWatch,
    ) -> (Option<UnixTime>, Duration) {
        let Some(retention) = self.writer().manager.on_demand_retention() else {
            return (None, IDLE);
        };
        self.record_uses(stopping);
        let walked = self.walk_records(retention, walked, stopping);
        let going = self.writer().manager.on_demand_removals(begun.elapsed());
        let pause =
            Duration::from_secs(u64::try_from(retention.looked_every()).unwrap_or_default());
        if going.is_empty() {
            return (walked, pause);
        }
        let gone = going.into_iter().map(|one| one.run(&self.deps));
        let gone: Vec<_> = gone.collect();
        // Others may be to go as well.
        let pause = match gone.iter().any(Removed::is_settled) {
            true => SOON.min(pause),
            false => pause,
        };
        let mut writer = self.writer();
        writer.manager.finish_on_demand_removals(gone);
        self.publish_map(&self.current().config);
        (walked, pause)
    }

    /// Writes down what was used, all of it.
    fn record_uses(&self, stopping: &ShutdownWatch) {
        for used in self.map.load().take_used().chunks(AT_A_TIME) {
            self.writer().manager.record_on_demand_uses(used);
        }
        while !*stopping.borrow() {
            let notes = self.writer().manager.unwritten_on_demand_uses();
            let count = notes.len();
            let written = self.deps.write_on_demand_uses(notes);
            self.writer().manager.mark_on_demand_uses_written(&written);
            // What is not written is tried again with the next look.
            if count == 0 || written.len() < count {
                return;
            }
        }
    }

    /// Has all names served that are stored, where it is time to look.
    fn walk_records(
        &self,
        retention: Retention,
        walked: Option<UnixTime>,
        stopping: &ShutdownWatch,
    ) -> Option<UnixTime> {
        let now = self.clock.now();
        let next = walked.map(|last| last.saturating_add(retention.walked_every()));
        if walked.is_some_and(|last| last <= now) && next.is_some_and(|next| next > now) {
            return walked;
        }
        let records = match self.deps.list_on_demand_records() {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%error, "cannot list stored on-demand certificates");
                return walked;
            }
        };
        self.writer().manager.recheck_on_demand();
        let mut loaded = 0;
        for part in records.chunks(AT_A_TIME) {
            if *stopping.borrow() {
                return walked;
            }
            let batch = self.writer().manager.look_up_records(part.to_vec());
            if batch.is_empty() {
                continue;
            }
            let looked = batch.run(&self.deps);
            let mut writer = self.writer();
            loaded += writer.manager.apply_lookup(looked).added.len();
            self.publish_map(&self.current().config);
        }
        if loaded > 0 {
            tracing::info!(certificates = loaded, "on demand, loaded from the storage");
        }
        Some(now)
    }
}
