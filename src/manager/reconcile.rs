//! Brings what issuers are asked for up to what the configuration wants, once per pass, and
//! publishes.

use std::collections::HashSet;
use std::sync::Arc;

use super::report::Report;
use super::{TlsManager, desired};
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::Pattern;
use crate::issuer::spec::{CertSpec, is_remote};

impl TlsManager {
    /// Brings everything else up to what the files are now, and publishes.
    pub(super) fn finish_pass(&mut self, mut report: Report, now: UnixTime) -> Report {
        let Some(config) = self.config.clone() else {
            return report;
        };
        for change in self.cert_files.end_vanished(now) {
            self.apply_change(change, Precedence::Configured, &mut report);
        }
        if self.is_loading {
            // What files do not cover is not known yet, so nobody is asked for it.
            self.publish(&config, now, &mut report);
            report.loading = Some(self.cert_files.scan_progress());
        } else {
            self.local_certs.maintain_cas(&mut report.problems);
            self.drop_superseded(&config, now, &mut report);
            let issued = self.reconcile_specs(&config, now, &mut report);
            self.local_certs.report_not_yet_valid(&mut report.problems);
            if std::mem::take(&mut self.is_new) && !self.dry {
                self.serve_stored_substitutes(now, &mut report);
                if config.renewal.required_at_start {
                    self.renewals.retry_missing(now);
                }
            }
            self.publish(&config, now, &mut report);
            self.report_uncovered_hosts(&config, &issued, &mut report);
        }
        let mut wrong = std::mem::take(&mut report.problems);
        self.cert_files
            .report_problems(now, &mut report.problems, &mut report.warnings);
        report.problems.append(&mut wrong);
        report.watch = Arc::clone(self.cert_files.watched_paths());
        report.certificates = self.cert_files.loaded()
            + self.local_certs.len()
            + self.renewals.certificates().count()
            + self.superseded.len();
        self.mark_new_problems(&mut report);
        report
    }

    /// Sees that all that issuers are asked for is there, and nothing else. Returns the names.
    fn reconcile_specs(
        &mut self,
        config: &Config,
        now: UnixTime,
        report: &mut Report,
    ) -> HashSet<Pattern> {
        let window = config.renewal.window;
        self.renewals.set_ari(config.renewal.ari, now);
        let mut specs: HashSet<CertSpec> = HashSet::new();
        let managed = desired::from_certificates(config);
        let mut hosts = std::mem::take(&mut self.hosts);
        for step in 0..2 {
            let asked = match step {
                0 => managed.clone(),
                // What was issued in the first step may cover a site.
                _ => {
                    let has = |spec: &CertSpec| {
                        self.renewals.has_certificate(spec) || self.local_certs.has(spec)
                    };
                    hosts.update_uncovered(&mut self.candidates, now);
                    desired::from_sites(&hosts, &managed, &self.candidates, has, now)
                }
            };
            let (remote, local) = asked
                .iter()
                .cloned()
                .partition::<Vec<_>, _>(|(spec, _)| is_remote(spec, config));
            report.to_obtain += remote.len();
            let problems = &mut report.problems;
            let mut served =
                self.local_certs
                    .issue_certificates(&local, &config.issuers, window, now, problems);
            let remote: Vec<_> = remote.into_iter().map(|(spec, _)| spec).collect();
            if !self.dry {
                served.extend(
                    self.renewals
                        .ensure_planned(&remote, &config.issuers, window, now),
                );
            }
            for (spec, change) in served {
                self.apply_change(change, spec.precedence, report);
            }
            specs.extend(asked.into_iter().map(|(spec, _)| spec));
        }
        self.hosts = hosts;
        for change in self.renewals.retain(|spec| specs.contains(spec)) {
            self.supersede(change, config, now, report);
        }
        for change in self.local_certs.retain(|spec| specs.contains(spec)) {
            self.apply_change(change, Precedence::Fallback, report);
        }
        specs.into_iter().flat_map(|spec| spec.names).collect()
    }
}
