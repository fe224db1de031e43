//! What the certificate services ask of the gateway's state.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::blocking;
use super::report;
use super::state::{GatewayState, Writer};
use crate::clock::UnixTime;
use crate::event::EventBus;
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::manager::{
    AriQuery, AriResult, Deps, IssuancePlan, Job, JobResult, MonitoredCert, StartupStatus,
};

/// After how many seconds what could not be stored is tried again.
const SAVE_AGAIN: i64 = 5;

/// What is to be done about certificates now.
pub(super) struct Due {
    pub(super) jobs: Vec<Job>,
    pub(super) ari_queries: Vec<AriQuery>,
    /// The issuers of which the storage may have limits that are not known.
    pub(super) limits_to_check: Vec<Arc<dyn Issuer>>,
    /// When there will be more, where it is known: a query that finds no room waits for the end
    /// of another.
    pub(super) next: Option<UnixTime>,
}

impl GatewayState {
    /// The certificates to be worked on now, those of which CAs are to be asked, at most as many as
    /// there is `room` for, and when there will be more. Blocks on the storage.
    pub(super) fn due_work(&self, room: usize) -> Due {
        let waiting = self.deps.flush_pending_writes();
        let revoked = self.deps.list_revoked();
        let mut writer = self.writer();
        let now = self.clock.now();
        if writer.manager.next_pass().is_some_and(|next| next <= now) {
            self.run_pass(&mut writer);
        }
        writer.manager.mark_revoked(&revoked);
        let jobs = writer.manager.due_jobs();
        let ari_queries = writer.manager.ari_queries(room);
        let next_ari_query = writer.manager.next_ari_query();
        let has_room = ari_queries.len() < room;
        let next = [
            writer.manager.next_due(),
            next_ari_query.filter(|_| has_room),
            writer.manager.next_pass(),
            (waiting > 0).then(|| now.saturating_add(SAVE_AGAIN)),
        ];
        Due {
            jobs,
            ari_queries,
            limits_to_check: writer.manager.limits_to_check(),
            next: next.into_iter().flatten().min(),
        }
    }

    /// Applies the renewal info of CAs.
    pub(super) async fn apply_ari_results(self: &Arc<Self>, answers: Vec<AriResult>) {
        let state = Arc::clone(self);
        blocking(move || {
            let mut writer = state.writer();
            for answer in answers {
                writer.manager.apply_ari_result(answer);
            }
        })
        .await;
    }

    /// Whether all hosts have certificates, and how many have none.
    pub(super) fn startup_status(&self) -> (StartupStatus, usize) {
        let writer = self.writer();
        let missing = writer.missing.len();
        if writer.manager.is_loading() {
            return (StartupStatus::Pending, missing);
        }
        if missing > 0 {
            let views = writer.manager.managed_views();
            let asked: HashSet<_> = views.iter().flat_map(|view| &view.names).collect();
            let is_asked = |host: &Pattern| {
                let wildcard = host.wildcard_over();
                asked.contains(host) || wildcard.is_some_and(|above| asked.contains(&above))
            };
            // No CA will ever bring these.
            if let Some(lost) = writer.missing.iter().find(|one| !is_asked(&one.host)) {
                return (StartupStatus::Failed(lost.to_string()), missing);
            }
        }
        (writer.manager.startup_status(), missing)
    }

    /// How long it is until `time`.
    pub(super) fn duration_until(&self, time: UnixTime) -> Duration {
        let seconds = time.saturating_sub(self.clock.now());
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// Waits until what is due may have changed.
    pub(super) async fn wait_for_plan(&self) {
        self.planned.notified().await;
    }

    /// Waits until the names that clients ask for have been taken.
    pub(super) async fn wait_for_requests(&self) {
        self.requests.wait_until_taken_up().await;
    }

    /// Applies the result of a job: what it obtained is served at once.
    pub(super) async fn apply_job_result(self: &Arc<Self>, done: JobResult) {
        let state = Arc::clone(self);
        blocking(move || {
            let mut writer = state.writer();
            let report = writer.manager.apply_job_results([done]);
            report::log_certificates(&report);
            state.publish_map(&state.current().config);
        })
        .await;
    }

    /// Does what time asks for, and tells anew what is missing. Blocks on the storage.
    pub(super) fn tick(&self) {
        self.run_pass(&mut self.writer());
    }

    fn run_pass(&self, writer: &mut Writer) {
        let report = writer.manager.tick();
        report::log_changes(&report);
        report::log_certificates(&report);
        let config = &self.current().config;
        self.publish_certificates(config, writer, &report);
    }

    /// Makes the certificate of `subject` (see [`crate::storage::keys::subject`]) due now, whatever
    /// its schedule says. Whether a CA is asked for any such.
    pub fn request_renewal(&self, subject: &str) -> bool {
        let known = self.writer().manager.request_renewal(subject);
        self.notify_plan();
        known
    }

    /// Which issuers would be asked for a certificate for `name`.
    pub fn plan_issuance(&self, name: &Pattern) -> IssuancePlan {
        self.writer().manager.plan_issuance(name)
    }

    /// Why clients refuse what the local CA of this name issues; `None` where they need not.
    pub fn not_yet_valid(&self, issuer: &str) -> Option<String> {
        self.writer().manager.not_yet_valid(issuer)
    }

    /// Notifies that what is due may have changed.
    pub(super) fn notify_plan(&self) {
        self.planned.notify_one();
    }

    /// What jobs depend on.
    pub(super) fn deps(&self) -> &Deps {
        &self.deps
    }

    /// What happens to certificates.
    pub fn events(&self) -> &EventBus {
        self.deps.events()
    }

    /// Every certificate, with who replaces it before its end.
    pub(super) fn monitored_certs(&self) -> Vec<MonitoredCert> {
        self.writer().manager.monitored_certs()
    }

    /// The time by which validity is judged.
    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }
}
