//! What the services that renew certificates ask of the manager.

use std::sync::Arc;

use super::{
    AriQuery, AriResult, Deps, Job, JobResult, ManagedView, MonitoredCert, Report, StartupStatus,
    TlsManager,
};
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::issuer::Issuer;
use crate::renewal::RenewalPolicy;
use crate::schedule::RenewedBy;

impl TlsManager {
    /// The certificates that a CA is to be asked for now, as many as may be worked on at a time.
    /// Each is held until [`Self::apply_job_results`] says what came of it.
    pub fn due_jobs(&mut self) -> Vec<Job> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let now = self.clock.now();
        let on_demand = self.on_demand.as_ref();
        let wanted =
            on_demand.map(|on_demand| Arc::clone(&on_demand.gate) as Arc<dyn RenewalPolicy>);
        let (local_certs, issuers) = (&mut self.local_certs, &config.issuers);
        let mut local_ca = |name: &Arc<str>| local_certs.local_ca(name, issuers);
        let jobs = self
            .renewals
            .begin_due_jobs(&mut local_ca, issuers, wanted.as_ref(), now);
        // What a limit stands against comes late, or not at all.
        self.answer_all_waiting(now);
        if let Some(gauges) = &mut self.gauges {
            gauges.show_limits(self.renewals.limits());
        }
        jobs
    }

    /// The certificates of which a CA is to be asked now when it advises to renew them, at most so
    /// many. What comes of each goes to [`Self::apply_ari_result`].
    pub fn ari_queries(&mut self, most: usize) -> Vec<AriQuery> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let now = self.clock.now();
        self.renewals.ari_queries(&config.issuers, now, most)
    }

    /// The issuers whose limits are to be looked at in the storage now, see
    /// [`Issuer::refresh_limits`].
    pub fn limits_to_check(&mut self) -> Vec<Arc<dyn Issuer>> {
        let now = self.clock.now();
        self.renewals.limits_to_check(now)
    }

    /// Applies the renewal info of a CA.
    pub fn apply_ari_result(&mut self, answer: AriResult) {
        let now = self.clock.now();
        self.renewals.apply_ari_result(answer, now);
    }

    /// When [`Self::ari_queries`] next has something; `None` where nothing is to be asked.
    pub fn next_ari_query(&self) -> Option<UnixTime> {
        self.renewals.next_ari_query()
    }

    /// When [`Self::due_jobs`] next has something; `None` where nothing is planned.
    pub fn next_due(&self) -> Option<UnixTime> {
        self.renewals.next_due()
    }

    /// The dependencies of [`Job::run`].
    pub fn deps(&self) -> &Deps {
        self.renewals.deps()
    }

    /// Applies the results of jobs: what they obtained is served at once.
    pub fn apply_job_results(&mut self, done: impl IntoIterator<Item = JobResult>) -> Report {
        let mut report = Report::default();
        let Some(config) = self.config.clone() else {
            return report;
        };
        let now = self.clock.now();
        let mut demanded = Vec::new();
        for done in done {
            demanded.extend(done.spec().on_demand_name().cloned());
            if let Some((spec, change)) = self.renewals.apply_result(done, now) {
                self.apply_change(change, spec.precedence, &mut report);
            }
        }
        self.publish(&config, now, &mut report);
        for name in demanded {
            self.finish_on_demand_job(&name, now);
        }
        report
    }

    /// Makes the certificate of `subject` (see [`crate::storage::keys::subject`]) due now, whatever
    /// its schedule says. Whether there is any.
    pub fn request_renewal(&mut self, subject: &str) -> bool {
        let now = self.clock.now();
        self.renewals.request_renewal(subject, now)
    }

    /// Whether all that CAs are asked for is there.
    pub fn startup_status(&self) -> StartupStatus {
        self.renewals.startup_status(self.clock.now())
    }

    /// The certificates that people may have to be told of, with who replaces them before their
    /// end: of those from files only what ends soon, has ended or has not begun.
    pub fn monitored_certs(&self) -> Vec<MonitoredCert> {
        let watched = |certificate: &Arc<TlsCertificate>, renewed_by| MonitoredCert {
            certificate: Arc::clone(certificate),
            renewed_by,
            retry: None,
        };
        let files = self.cert_files.alarming();
        let by_hand = files.map(|one| watched(one, RenewedBy::ByHand));
        let window = self.config.as_ref().map(|config| config.renewal.window);
        let local = self.local_certs.certificates().map(|one| {
            let renewed_by = RenewedBy::Renewed {
                window: window.unwrap_or(0.5),
                failures: 0,
            };
            watched(one, renewed_by)
        });
        let others = self.renewals.monitored_certs();
        by_hand.chain(local).chain(others).collect()
    }

    /// The shortest life of a certificate from a file so far, in seconds.
    pub fn shortest_life(&self) -> Option<i64> {
        self.cert_files.shortest_life()
    }

    /// Everything that CAs are asked for.
    pub fn managed_views(&self) -> Vec<ManagedView> {
        self.renewals.views(self.clock.now()).collect()
    }
}
