//! Passes: each brings what is served up to what is configured, present or just obtained, and
//! publishes at most one new map.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::report::Report;
use super::uncovered_hosts::Coverage;
use super::{TlsManager, desired, staples};
use crate::cert_store::READ_AGAIN;
use crate::certificate::Change;
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::Pattern;
use crate::issuer::spec::{CertSpec, is_remote};
use crate::on_demand::{LookupResults, Removed};
use crate::renewal::JobResult;

impl TlsManager {
    /// Begins with `config`: loads certificates from files for as long as there is `patience`. What
    /// is left is loaded by [`Self::scan_slice`], and only then issuers are asked for anything.
    pub fn start(&mut self, config: &Config, patience: Duration) -> Report {
        self.configure(config);
        let default = config.tls.default_certificate.clone();
        self.cert_files.begin_first_scan(default);
        let until = Instant::now() + patience;
        self.scan_until(Some(until))
    }

    /// Serves what `config` asks for. Certificates that it still names stay as they are.
    pub fn apply(&mut self, config: &Config) -> Report {
        self.configure(config);
        self.refresh()
    }

    /// Reads again what changed on disk, and does all else that is due.
    pub fn refresh(&mut self) -> Report {
        self.cert_files.begin_scan();
        self.scan_until(None)
    }

    /// Like [`Self::refresh`], but looks only at what `paths` are part of: files of certificates,
    /// or directories of them.
    pub fn refresh_paths(&mut self, paths: &[PathBuf]) -> Report {
        let now = self.begin_pass();
        match self.cert_files.reload_paths(paths, now) {
            Some(changes) => {
                let mut report = Report::default();
                self.apply_changes(changes, Precedence::Configured, &mut report);
                self.finish_pass(report, now)
            }
            // The scan that is under way begins anew, and continues in slices.
            None if self.cert_files.is_loading() => {
                self.cert_files.begin_scan();
                self.finish_pass(Report::default(), now)
            }
            None => self.refresh(),
        }
    }

    /// Does what is due by time: renews what soon ends, serves what has begun to be valid. Reads no
    /// certificate's file.
    pub fn tick(&mut self) -> Report {
        let now = self.begin_pass();
        self.finish_pass(Report::default(), now)
    }

    /// When [`Self::tick`] is due whatever else happens: the storage did not say what it holds, or
    /// a certificate whose file has vanished is not served much longer.
    pub fn next_pass(&self) -> Option<UnixTime> {
        let is_unread = self.renewals.is_unread() || self.local_certs.is_unopened();
        let read = is_unread.then(|| self.served.last_pass() + READ_AGAIN);
        read.into_iter().chain(self.cert_files.next_end()).min()
    }

    /// Scans files for so long. `None` where there is nothing to publish or report yet.
    pub fn scan_slice(&mut self, slice: Duration) -> Option<Report> {
        let now = self.begin_pass();
        let is_hurried = self.cert_files.is_hurried();
        let (report, is_done) = self.scan_files(Some(Instant::now() + slice), now);
        if !is_done && !is_hurried && self.served.may_wait(self.cert_files.is_loading()) {
            return None;
        }
        self.served.note_slice();
        Some(self.finish_pass(report, now))
    }

    /// Continues the scan until it is done or it is `until`.
    fn scan_until(&mut self, until: Option<Instant>) -> Report {
        let now = self.begin_pass();
        let (report, _) = self.scan_files(until, now);
        self.served.note_slice();
        self.finish_pass(report, now)
    }

    /// Scans files until it is `until`. Returns what has changed, and whether the scan is done.
    fn scan_files(&mut self, until: Option<Instant>, now: UnixTime) -> (Report, bool) {
        let progress = self.cert_files.scan_until(until, now);
        let mut report = Report::default();
        self.apply_changes(progress.changes, Precedence::Configured, &mut report);
        (report, progress.is_done)
    }

    /// Applies the results of jobs: what they obtained is served at once.
    pub fn apply_job_results(&mut self, results: impl IntoIterator<Item = JobResult>) -> Report {
        let mut report = Report::default();
        let Some(config) = self.config.clone() else {
            return report;
        };
        let now = self.now();
        let mut requested = Vec::new();
        for result in results {
            requested.extend(result.spec().on_demand_name().cloned());
            if let Some((spec, change)) = self.renewals.apply_result(result, now) {
                self.apply_change(change, spec.precedence, &mut report);
            }
        }
        self.publish(&config, now, &mut report);
        for name in requested {
            self.on_demand.finish_job(&name, &mut self.renewals, now);
        }
        report
    }

    /// Applies the results of a lookup, and serves what there is.
    pub fn apply_lookup(&mut self, results: LookupResults) -> Report {
        let mut report = Report::default();
        let Some(config) = self.config.clone() else {
            return report;
        };
        let now = self.now();
        let candidates = self.served.candidates();
        let (changes, adopted) = self
            .on_demand
            .adopt(results, &mut self.renewals, candidates, now);
        self.apply_changes(changes, Precedence::OnDemand, &mut report);
        self.publish(&config, now, &mut report);
        self.on_demand.answer_adopted(adopted, &self.renewals, now);
        report
    }

    /// Applies the results of removals: removed names are no longer served.
    pub fn finish_on_demand_removals(&mut self, removed: Vec<Removed>) -> Report {
        let mut report = Report::default();
        let Some(config) = self.config.clone() else {
            return report;
        };
        let changes = self.on_demand.finish_removals(removed, &mut self.renewals);
        self.apply_changes(changes, Precedence::OnDemand, &mut report);
        self.publish(&config, self.now(), &mut report);
        report
    }

    fn begin_pass(&mut self) -> UnixTime {
        let now = self.now();
        self.served.pass_time(now);
        self.cert_files.pass_time(now);
        now
    }

    /// Brings everything else up to what the files are now, and publishes.
    fn finish_pass(&mut self, mut report: Report, now: UnixTime) -> Report {
        let Some(config) = self.config.clone() else {
            return report;
        };
        let vanished = self.cert_files.end_vanished(now);
        self.apply_changes(vanished, Precedence::Configured, &mut report);
        if self.cert_files.is_loading() {
            // What files do not cover is not known yet, so no issuer is asked for it.
            self.publish(&config, now, &mut report);
            report.loading = Some(self.cert_files.scan_progress());
        } else {
            self.local_certs.maintain_cas(&mut report.problems);
            let unneeded = self
                .superseded
                .remove_unneeded(&config, self.served.map(), now);
            self.apply_changes(unneeded, Precedence::Superseded, &mut report);
            let desired = self.reconcile(&config, now, &mut report);
            self.local_certs.report_not_yet_valid(&mut report.problems);
            if std::mem::take(&mut self.is_new) && !self.served.is_dry() {
                let substitutes = self.superseded.load_substitutes(&self.renewals, now);
                self.apply_changes(substitutes, Precedence::Superseded, &mut report);
                if config.renewal.required_at_start {
                    self.renewals.retry_missing();
                }
            }
            self.publish(&config, now, &mut report);
            self.report_uncovered_hosts(&config, &desired, now, &mut report);
        }
        let mut wrong = std::mem::take(&mut report.problems);
        self.cert_files
            .report_problems(now, &mut report.problems, &mut report.warnings);
        report.problems.append(&mut wrong);
        report.watch = Arc::clone(self.cert_files.watched_paths());
        report.certificates = self.cert_files.loaded()
            + self.local_certs.len()
            + self.renewals.certificates().count()
            + self.superseded.certificates().len();
        report.mark_new_problems(&mut self.reported);
        report
    }

    /// Sees that there is a certificate for each specification that the configuration and its sites
    /// ask for, and for no other. Returns their names.
    fn reconcile(
        &mut self,
        config: &Config,
        now: UnixTime,
        report: &mut Report,
    ) -> HashSet<Pattern> {
        self.renewals.set_ari(config.renewal.ari, now);
        let managed = desired::from_certificates(config);
        self.ensure_certificates(config, &managed, now, report);
        // What was issued for these may cover a site.
        let mut hosts = std::mem::take(&mut self.hosts);
        hosts.update_uncovered(self.served.candidates_mut(), now);
        let has =
            |spec: &CertSpec| self.renewals.has_certificate(spec) || self.local_certs.has(spec);
        let of_sites = desired::from_sites(&hosts, &managed, self.served.candidates(), has, now);
        self.ensure_certificates(config, &of_sites, now, report);
        let specs = managed.into_iter().chain(of_sites).map(|(spec, _)| spec);
        let specs: HashSet<CertSpec> = specs.collect();
        self.hosts = hosts;
        for change in self.renewals.retain(|spec| specs.contains(spec)) {
            self.supersede(change, config, now, report);
        }
        let unneeded = self.local_certs.retain(|spec| specs.contains(spec));
        self.apply_changes(unneeded, Precedence::Fallback, report);
        specs.into_iter().flat_map(|spec| spec.names).collect()
    }

    /// Issues local certificates of these specifications, and plans the others.
    fn ensure_certificates(
        &mut self,
        config: &Config,
        specs: &[desired::ConfiguredSpec<'_>],
        now: UnixTime,
        report: &mut Report,
    ) {
        let window = config.renewal.window;
        let (remote, local) = specs
            .iter()
            .cloned()
            .partition::<Vec<_>, _>(|(spec, _)| is_remote(spec, config));
        report.to_obtain += remote.len();
        let problems = &mut report.problems;
        let mut changes = self
            .local_certs
            .issue_certificates(&local, window, now, problems);
        if !self.served.is_dry() {
            let remote: Vec<_> = remote.into_iter().map(|(spec, _)| spec).collect();
            changes.extend(self.renewals.ensure_planned(&remote, window, now));
        }
        for (spec, change) in changes {
            self.apply_change(change, spec.precedence, report);
        }
    }

    /// Removes a certificate that is no longer configured, unless it is still needed.
    fn supersede(&mut self, change: Change, config: &Config, now: UnixTime, report: &mut Report) {
        match &change.old {
            Some(old) if self.superseded.keep(old, config, now) => {
                self.served.set_precedence(old, Precedence::Superseded);
            }
            _ => self.apply_change(change, Precedence::Superseded, report),
        }
    }

    /// Publishes what has changed.
    pub(super) fn publish(&mut self, config: &Config, now: UnixTime, report: &mut Report) {
        let mut local_ca = |name: &Arc<str>| self.local_certs.local_ca(name);
        let renewals = &mut self.renewals;
        let updated = self
            .on_demand
            .update_issuance(config, &mut local_ca, renewals, now);
        match updated {
            Ok(()) => {
                let candidates = self.served.candidates();
                let changes = self.on_demand.recheck_names(renewals, candidates, now);
                self.apply_changes(changes, Precedence::OnDemand, report);
            }
            Err(problem) => report.problems.push(problem),
        }
        let loading = self.cert_files.load_progress();
        self.served
            .publish(config, self.on_demand.issuance(), loading, now);
        if let Some(gauges) = &self.gauges
            && gauges.are_few()
        {
            gauges.refill(self.certificates());
        }
    }

    fn report_uncovered_hosts(
        &mut self,
        config: &Config,
        desired: &HashSet<Pattern>,
        now: UnixTime,
        report: &mut Report,
    ) {
        // Certificates that were issued in this pass count.
        self.hosts
            .update_uncovered(self.served.candidates_mut(), now);
        let coverage = Coverage {
            config,
            map: self.served.map(),
            waiting: self.served.candidates().waiting(),
            desired,
            pending: self.renewals.uncovered_names(now),
            local_certs: &self.local_certs,
            is_dry: self.served.is_dry(),
            now,
        };
        coverage.report_uncovered(&self.hosts, report);
    }

    pub(super) fn apply_changes(
        &mut self,
        changes: Vec<Change>,
        precedence: Precedence,
        report: &mut Report,
    ) {
        for change in changes {
            self.apply_change(change, precedence, report);
        }
    }

    /// Serves what took the place of another, and no longer what was removed.
    pub(super) fn apply_change(
        &mut self,
        change: Change,
        precedence: Precedence,
        report: &mut Report,
    ) {
        let now = self.now();
        if let Some(new) = &change.new {
            staples::restore(self, new, now);
        }
        self.served.apply(&change, precedence, now);
        if let Some(gauges) = &mut self.gauges {
            gauges.apply(&change);
        }
        if let Some(new) = &change.new
            && precedence != Precedence::OnDemand
        {
            self.on_demand.recheck_covered(new.names());
        }
        report.add(change);
    }
}
