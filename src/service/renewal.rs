//! The service that obtains and renews certificates, and queries CAs for renewal info.
//!
//! It runs the jobs that the manager says are due, some at a time, and hands back their results.
//! It decides nothing: the manager says when a certificate is due, the issuer how it is obtained.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::blocking;
use super::cancel_on_stop::CancelOnStop;
use super::certificates::Due;
use super::start_gate::StartGate;
use super::state::GatewayState;
use super::systemd;
use crate::clock::UnixTime;
use crate::manager::{AriResult, JobResult, StartupStatus};
use crate::shutdown::requested;

/// How long it is waited at most until the clock is looked at again: it may have been set.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long what is being stored may take once the gateway stops.
const LAST_CALL: Duration = Duration::from_secs(2);

/// How long it may take then to store what waits for the storage.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// How often what is missing is reported again while certificates come in.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The rest after telling, as a multiple of what it took: with very many certificates it takes
/// long, and is to keep no core busy.
const TELL_SHARE: u32 = 20;

/// How many CAs are asked for advice at a time.
const ASKED_AT_ONCE: usize = 8;

/// Obtains and renews certificates until the gateway stops.
pub struct Renewal {
    state: Arc<GatewayState>,
    start_gate: StartGate,
    cancel: CancelOnStop,
    stopping: ShutdownWatch,
}

impl Renewal {
    /// The service for what `state` needs, until `stopping` says stop. It opens `start_gate`, or shuts
    /// it for good. `cancel` is what the issuers break off by.
    pub fn new(
        state: Arc<GatewayState>,
        start_gate: StartGate,
        cancel: CancelOnStop,
        stopping: ShutdownWatch,
    ) -> Self {
        Self {
            state,
            start_gate,
            cancel,
            stopping,
        }
    }

    /// Ends a start that is held back, one way or the other, where it is decided.
    async fn decide_start(&self) {
        if !self.start_gate.is_shut() {
            return;
        }
        let state = Arc::clone(&self.state);
        match blocking(move || state.startup_status()).await {
            Some((StartupStatus::Complete, _)) => self.start_gate.open(),
            Some((StartupStatus::Failed(why), _)) => self.start_gate.fail_start(why),
            // From here, so that a start that hangs says nothing.
            Some((StartupStatus::Pending, missing)) => systemd::starting(missing),
            None => {}
        }
    }

    /// Applies results until only jobs are left that wait for an issuer.
    async fn finish_jobs(&self, work: &mut Work) {
        loop {
            let left = work.tasks.len();
            tokio::select! {
                biased;
                Some(done) = work.next_result() => self.state.apply_job_result(done).await,
                () = self.cancel.wait_until_cancelled(left) => return,
            }
        }
    }

    /// Stores what waits for the storage, for the last time.
    async fn flush_pending_writes(&self) {
        let deps = self.state.deps();
        if !deps.has_waiting() {
            return;
        }
        let saving = deps.clone();
        let saved =
            tokio::time::timeout(LAST_SAVE, blocking(move || saving.flush_pending_writes())).await;
        if !matches!(saved, Ok(Some(0))) {
            tracing::error!(
                "some certificates or accounts could not be stored and are now lost; they will be \
                 obtained again: repair the storage before the next start"
            );
        }
    }
}

#[async_trait]
impl BackgroundService for Renewal {
    async fn start(&self, _: ShutdownWatch) {
        let mut stopping = self.stopping.clone();
        let (mut work, mut ari_queries) = (Work::default(), JoinSet::new());
        let mut limit_checks = JoinSet::new();
        let (mut tell, mut not_before) = (None, Instant::now());
        let mut is_told = true;
        loop {
            let (next, is_begun) = work
                .begin_due(&self.state, &mut ari_queries, &mut limit_checks)
                .await;
            if is_begun {
                // Who is being asked is told while it lasts.
                tell = tell.or_else(|| Some(Instant::now().max(not_before)));
            }
            // Once for all certificates that come in until what is missing is told anew.
            if is_told {
                self.decide_start().await;
            }
            is_told = true;
            let pause = next.map_or(LONGEST_WAIT, |next| self.state.duration_until(next));
            let longest = if self.start_gate.is_shut() {
                systemd::NUDGE
            } else {
                LONGEST_WAIT
            };
            tokio::select! {
                Some(done) = work.next_result() => {
                    self.state.apply_job_result(done).await;
                    is_told = false;
                    tell = tell.or_else(|| Some(Instant::now().max(not_before)));
                }
                Some(answers) = ari_results(&mut ari_queries) => {
                    self.state.apply_ari_results(answers).await;
                    is_told = false;
                }
                Some(is_news) = limit_checks.join_next() => {
                    if is_news.unwrap_or_default() {
                        tell = tell.or_else(|| Some(Instant::now().max(not_before)));
                    }
                    is_told = false;
                }
                () = sleep_until(tell) => {
                    tell = None;
                    let (state, begun) = (Arc::clone(&self.state), Instant::now());
                    blocking(move || state.tick()).await;
                    not_before = Instant::now() + pause_after(begun.elapsed());
                }
                () = self.state.wait_for_plan() => {}
                () = self.state.wait_for_requests() => is_told = false,
                () = tokio::time::sleep(pause.min(longest)) => {}
                () = requested(&mut stopping) => break,
            }
        }
        let _ = tokio::time::timeout(LAST_CALL, self.finish_jobs(&mut work)).await;
        drop((work, ari_queries, limit_checks));
        self.flush_pending_writes().await;
        self.cancel.finish_work();
    }
}

/// How long after a telling that took so long there is no other.
fn pause_after(took: Duration) -> Duration {
    TELL_EVERY.max(took.saturating_mul(TELL_SHARE))
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits for an answer of a CA's, and takes all that there are; `None` at once where none is asked.
async fn ari_results(ari_queries: &mut JoinSet<AriResult>) -> Option<Vec<AriResult>> {
    let mut ended = vec![ari_queries.join_next().await?];
    while let Some(another) = ari_queries.try_join_next() {
        ended.push(another);
    }
    let ended = ended.into_iter();
    let answers = ended.filter_map(|answer| {
        answer
            .inspect_err(|error| {
                tracing::error!(
                    %error,
                    "asking a CA for renewal advice was interrupted by a bug"
                )
            })
            .ok()
    });
    Some(answers.collect())
}

/// The certificates that are worked on.
#[derive(Default)]
struct Work {
    tasks: JoinSet<JobResult>,
}

impl Work {
    /// Begins what is due. Returns when more will be, and whether there was anything.
    async fn begin_due(
        &mut self,
        state: &Arc<GatewayState>,
        asked: &mut JoinSet<AriResult>,
        limit_checks: &mut JoinSet<bool>,
    ) -> (Option<UnixTime>, bool) {
        let room = ASKED_AT_ONCE.saturating_sub(asked.len());
        let due = {
            let state = Arc::clone(state);
            blocking(move || state.due_work(room)).await
        };
        let Some(Due {
            jobs,
            ari_queries,
            limits_to_check,
            next,
        }) = due
        else {
            return (None, false);
        };
        let deps = state.deps();
        for query in ari_queries {
            let deps = deps.clone();
            asked.spawn(async move { query.run(&deps).await });
        }
        for issuer in limits_to_check {
            limit_checks.spawn(async move { issuer.refresh_limits().await });
        }
        let is_begun = !jobs.is_empty();
        for job in jobs {
            let deps = deps.clone();
            self.tasks.spawn(async move { job.run(&deps).await });
        }
        (next, is_begun)
    }

    /// Waits for the end of one; `None` at once where none is under way. Of one that breaks off the
    /// manager learns by itself.
    async fn next_result(&mut self) -> Option<JobResult> {
        let ended = self.tasks.join_next().await?;
        ended
            .inspect_err(|error| {
                tracing::error!(
                    %error,
                    "work on a certificate was interrupted by a bug"
                )
            })
            .ok()
    }
}
