//! Which hosts of sites have no certificate, and why.

use std::collections::HashSet;
use std::sync::Arc;

use super::TlsManager;
use super::report::{Report, UncoveredHost};
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::certificate::{Source, Validity};
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::Pattern;
use crate::on_demand;
use crate::problem::Problem;

impl TlsManager {
    /// Reports hosts that have no certificate.
    pub(super) fn report_uncovered_hosts(
        &mut self,
        config: &Config,
        issued: &HashSet<Pattern>,
        report: &mut Report,
    ) {
        // What was issued meanwhile has no part in it.
        self.hosts
            .update_uncovered(&mut self.candidates, self.last_pass);
        let on_demand = |host: &Pattern| {
            let config = config.on_demand.as_ref();
            config.is_some_and(|config| on_demand::covers(config, host))
        };
        let has_one = |host: &Pattern| served(&self.map, host).is_some() || on_demand(host);
        let lacking = self.renewals.uncovered_names(self.last_pass);
        let mut seen = HashSet::new();
        for (site, host) in self.hosts.uncovered() {
            // A dry run issues nothing, but could.
            if !seen.insert(host) || self.dry && issued.contains(host) {
                continue;
            }
            if let Some(why) = lacking.get(host) {
                // Events report it, once per attempt.
                if !serves_valid(&self.map, host, self.last_pass) {
                    report.missing.push(UncoveredHost {
                        host: host.clone(),
                        why: Arc::clone(why),
                    });
                }
                continue;
            }
            if let Some(why) = self.not_yet_valid_for(host) {
                report.missing.push(UncoveredHost {
                    host: host.clone(),
                    why: why.into(),
                });
                continue;
            }
            if has_one(host) {
                continue;
            }
            let why = if issued.contains(host) {
                format!("{host} has no certificate because its issuer is failing")
            } else {
                format!(
                    "no certificate covers {host}, and no issuer is configured for it; add a \
                     certificate under 'certificates' or an issuer, or set 'tls: off'"
                )
            };
            report
                .problems
                .push(Problem::new(&site.origin, None, why.clone()));
            report.missing.push(UncoveredHost {
                host: host.clone(),
                why: why.into(),
            });
        }
        if let Some(name) = &config.tls.default_certificate {
            let pattern = Pattern::from(name.clone());
            if self.map.default_set().is_none()
                && !(self.dry && (issued.contains(&pattern) || on_demand(&pattern)))
            {
                report.problems.push(Problem::new(
                    &config.places.default_certificate,
                    None,
                    format!(
                        "no certificate covers {name}; clients without SNI get none: add one under \
                         'certificates', or choose another name"
                    ),
                ));
            }
        }
    }
}

impl TlsManager {
    /// Marks what the last pass did not report.
    pub(super) fn mark_new_problems(&mut self, report: &mut Report) {
        let before = std::mem::take(&mut self.reported);
        for problem in report.problems.iter_mut().chain(&mut report.warnings) {
            let text = problem.to_string();
            problem.is_new = !before.contains(&text);
            self.reported.insert(text);
        }
    }

    /// Why clients refuse what the local CA of this name issues; `None` where they need not.
    pub fn not_yet_valid(&self, issuer: &str) -> Option<String> {
        self.local_certs.not_yet_valid(issuer)
    }

    /// Why clients refuse what is served for `host`, where that is of a local CA.
    fn not_yet_valid_for(&self, host: &Pattern) -> Option<String> {
        let set = served(&self.map, host)?;
        let mut sources = set.by_kind.iter().map(|certificate| certificate.source());
        sources.find_map(|source| match source {
            Source::Issuer(issuer) => self.local_certs.not_yet_valid(issuer),
            _ => None,
        })
    }
}

/// What is served for `host`.
fn served<'a>(map: &'a SniMap, host: &Pattern) -> Option<&'a Arc<CertificateSet>> {
    match host {
        Pattern::Exact(name) => map.lookup(name.as_str()),
        other => map.get(other),
    }
}

/// Whether a certificate that is valid at `now` is served for `host`.
fn serves_valid(map: &SniMap, host: &Pattern, now: UnixTime) -> bool {
    served(map, host).is_some_and(|set| {
        let mut certificates = set.by_kind.iter();
        certificates.any(|certificate| certificate.validity(now) == Validity::Valid)
    })
}
