//! The loop that obtains and renews certificates, and queries CAs for renewal info.
//!
//! It runs the jobs that the manager says are due, some at a time, and hands back their results.
//! It decides nothing: the manager says when a certificate is due, the issuer how it is obtained.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Engine, StartObserver, blocking, log_problems};
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::renewal::{AriQuery, AriResult, Job, JobResult, StartupStatus, list_revoked};
use crate::shutdown::requested;

/// The longest pause between two looks at the clock, which may have been set.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The same while a start waits for certificates: its observer is updated as often.
const START_UPDATE: Duration = Duration::from_secs(5);

/// How long what is being stored may take once the engine stops.
const LAST_CALL: Duration = Duration::from_secs(2);

/// How long it may take then to store what waits for the storage.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// How often what is missing is reported again while certificates come in.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// The pause after a report, as a multiple of what it took: with very many certificates it takes
/// long, and must not keep a core busy.
const REPORT_SHARE: u32 = 20;

/// How many CAs are asked for renewal info at a time.
const MAX_ARI_QUERIES: usize = 8;

/// After how long what could not be stored is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// Obtains and renews certificates until the engine stops.
pub(super) struct Renewal {
    engine: Arc<Engine>,
    start_observer: Option<Arc<dyn StartObserver>>,
}

impl Renewal {
    pub(super) fn new(engine: Arc<Engine>, start_observer: Option<Arc<dyn StartObserver>>) -> Self {
        Self {
            engine,
            start_observer,
        }
    }

    /// The observer of a start that still waits.
    fn waiting_start(&self) -> Option<&Arc<dyn StartObserver>> {
        let observer = self.start_observer.as_ref();
        observer.filter(|observer| observer.is_waiting())
    }

    /// Reports how a start stands that waits.
    async fn update_start(&self) {
        let Some(observer) = self.waiting_start() else {
            return;
        };
        let engine = Arc::clone(&self.engine);
        if let Some((status, missing)) = blocking(move || startup_status(&engine)).await {
            observer.update(status, missing);
        }
    }

    /// Runs until the engine stops; what is being stored then is stored. No job is begun before
    /// `orders_after`.
    pub(super) async fn run(self, mut orders_after: Option<Instant>) {
        let mut stopping = self.engine.stopping();
        let (mut work, mut ari_queries) = (Work::default(), JoinSet::new());
        let mut limit_checks = JoinSet::new();
        // When what is missing is reported again.
        let (mut report_at, mut not_before) = (None, Instant::now());
        let mut is_reported = true;
        loop {
            let (next, is_begun) = work
                .begin_due(
                    &self.engine,
                    orders_after.is_none(),
                    &mut ari_queries,
                    &mut limit_checks,
                )
                .await;
            if is_begun {
                // Which issuer is being asked is reported while it lasts.
                report_at = report_at.or_else(|| Some(Instant::now().max(not_before)));
            }
            // Once for all certificates that come in before what is missing is reported again.
            if is_reported {
                self.update_start().await;
            }
            is_reported = true;
            let pause = next.map_or(LONGEST_WAIT, |next| self.duration_until(next));
            let longest = match self.waiting_start() {
                Some(_) => START_UPDATE,
                None => LONGEST_WAIT,
            };
            tokio::select! {
                Some(done) = work.next_result() => {
                    self.apply_job_result(done).await;
                    is_reported = false;
                    report_at = report_at.or_else(|| Some(Instant::now().max(not_before)));
                }
                Some(results) = ari_results(&mut ari_queries) => {
                    self.apply_ari_results(results).await;
                    is_reported = false;
                }
                Some(is_news) = limit_checks.join_next() => {
                    if is_news.unwrap_or_default() {
                        report_at = report_at.or_else(|| Some(Instant::now().max(not_before)));
                    }
                    is_reported = false;
                }
                () = sleep_until(report_at) => {
                    report_at = None;
                    let (engine, begun) = (Arc::clone(&self.engine), Instant::now());
                    blocking(move || engine.lock().run_pass()).await;
                    not_before = Instant::now() + pause_after(begun.elapsed());
                }
                () = sleep_until(orders_after) => orders_after = None,
                () = self.engine.planned.notified() => {}
                () = self.engine.requests.wait_until_taken_up() => is_reported = false,
                () = tokio::time::sleep(pause.min(longest)) => {}
                () = requested(&mut stopping) => break,
            }
        }
        let _ = tokio::time::timeout(LAST_CALL, self.finish_jobs(&mut work)).await;
        drop((work, ari_queries, limit_checks));
        self.flush_pending_writes().await;
    }

    /// Applies the result of a job: what it obtained is served at once.
    async fn apply_job_result(&self, done: JobResult) {
        let engine = Arc::clone(&self.engine);
        blocking(move || {
            let mut manager = engine.lock();
            let report = manager.apply_job_results([done]);
            log_problems(&report);
            manager.publish_map();
        })
        .await;
    }

    /// Applies the renewal info of CAs.
    async fn apply_ari_results(&self, results: Vec<AriResult>) {
        let engine = Arc::clone(&self.engine);
        blocking(move || {
            let mut manager = engine.lock();
            for result in results {
                manager.renewals_mut().apply_ari_result(result);
            }
        })
        .await;
    }

    fn duration_until(&self, time: UnixTime) -> Duration {
        time.since(self.engine.clock.now())
    }

    /// Applies results until only jobs are left that wait for an issuer.
    async fn finish_jobs(&self, work: &mut Work) {
        loop {
            let left = work.tasks.len();
            tokio::select! {
                biased;
                Some(done) = work.next_result() => self.apply_job_result(done).await,
                () = self.engine.cancel.wait_until_cancelled(left) => return,
            }
        }
    }

    /// Stores what waits for the storage, for the last time.
    async fn flush_pending_writes(&self) {
        let deps = self.engine.deps.clone();
        if !deps.has_waiting() {
            return;
        }
        let saved =
            tokio::time::timeout(LAST_SAVE, blocking(move || deps.flush_pending_writes())).await;
        if !matches!(saved, Ok(Some(0))) {
            tracing::error!(
                "some certificates or accounts could not be stored and are now lost; they will be \
                 obtained again: repair the storage before the next start"
            );
        }
    }
}

/// How long after a report that took so long there is no other.
fn pause_after(took: Duration) -> Duration {
    REPORT_EVERY.max(took.saturating_mul(REPORT_SHARE))
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits for the result of a query, and returns all that there are; `None` at once if none is under
/// way.
async fn ari_results(ari_queries: &mut JoinSet<AriResult>) -> Option<Vec<AriResult>> {
    let mut ended = vec![ari_queries.join_next().await?];
    while let Some(another) = ari_queries.try_join_next() {
        ended.push(another);
    }
    let results = ended.into_iter().filter_map(|result| {
        result
            .inspect_err(|error| {
                tracing::error!(
                    %error,
                    "asking a CA for renewal advice was interrupted by a bug"
                )
            })
            .ok()
    });
    Some(results.collect())
}

/// The certificates that are worked on.
#[derive(Default)]
struct Work {
    tasks: JoinSet<JobResult>,
}

impl Work {
    /// Begins what is due, jobs only if `may_order`. Returns when more will be, and whether a job was
    /// begun.
    async fn begin_due(
        &mut self,
        engine: &Arc<Engine>,
        may_order: bool,
        ari_queries: &mut JoinSet<AriResult>,
        limit_checks: &mut JoinSet<bool>,
    ) -> (Option<UnixTime>, bool) {
        let room = MAX_ARI_QUERIES.saturating_sub(ari_queries.len());
        let collecting = Arc::clone(engine);
        let Some(due) = blocking(move || DueWork::collect(&collecting, room, may_order)).await
        else {
            return (None, false);
        };
        for query in due.ari_queries {
            let deps = engine.deps.clone();
            ari_queries.spawn(async move { query.run(&deps).await });
        }
        for issuer in due.limits_to_check {
            limit_checks.spawn(async move { issuer.refresh_limits().await });
        }
        let is_begun = !due.jobs.is_empty();
        for job in due.jobs {
            let deps = engine.deps.clone();
            let running = deps.count_running();
            self.tasks.spawn(async move {
                let _running = running;
                job.run(&deps).await
            });
        }
        (due.next, is_begun)
    }

    /// Waits for the end of a job; `None` at once if none is under way. The manager notices by itself
    /// if one ends without a result.
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

/// What is to be done about certificates now.
struct DueWork {
    jobs: Vec<Job>,
    ari_queries: Vec<AriQuery>,
    /// The issuers of which the storage may have limits that are not known.
    limits_to_check: Vec<Arc<dyn Issuer>>,
    /// When there will be more, where that is known: a query that finds no room waits for the end
    /// of another.
    next: Option<UnixTime>,
}

impl DueWork {
    /// Takes what is due from the manager, with as many queries as there is `room` for. First stores
    /// what waits for the storage. Blocks on it. Without `may_order`, jobs stay due.
    fn collect(engine: &Engine, room: usize, may_order: bool) -> Self {
        let waiting = engine.deps.flush_pending_writes();
        let revoked = list_revoked(&engine.deps);
        let mut manager = engine.lock();
        let now = engine.clock.now();
        if manager.next_pass().is_some_and(|next| next <= now) {
            manager.run_pass();
        }
        manager.renewals_mut().mark_revoked(&revoked);
        let jobs = match may_order {
            true => manager.due_jobs(),
            false => Vec::new(),
        };
        let ari_queries = manager.renewals_mut().ari_queries(room);
        let next_ari_query = manager.renewals().next_ari_query();
        let has_room = ari_queries.len() < room;
        let next = [
            manager.renewals().next_due().filter(|_| may_order),
            next_ari_query.filter(|_| has_room),
            manager.next_pass(),
            (waiting > 0).then(|| now + SAVE_AGAIN),
        ];
        Self {
            jobs,
            ari_queries,
            limits_to_check: manager.renewals_mut().limits_to_check(),
            next: next.into_iter().flatten().min(),
        }
    }
}

/// Whether all hosts have certificates, and how many have none.
fn startup_status(engine: &Engine) -> (StartupStatus, usize) {
    let manager = engine.lock();
    let missing = manager.missing();
    if manager.cert_files().is_loading() {
        return (StartupStatus::Pending, missing.len());
    }
    if !missing.is_empty() {
        let views = manager.renewals().views();
        let asked: HashSet<_> = views.iter().flat_map(|view| &view.names).collect();
        let is_asked = |host: &Pattern| {
            let wildcard = host.wildcard_over();
            asked.contains(host) || wildcard.is_some_and(|above| asked.contains(&above))
        };
        // No CA will ever issue a certificate for these.
        if let Some(lost) = missing.iter().find(|one| !is_asked(&one.host)) {
            return (StartupStatus::Failed(lost.to_string()), missing.len());
        }
    }
    (manager.renewals().startup_status(), missing.len())
}
