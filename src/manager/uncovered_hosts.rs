//! Which hosts of sites have no certificate, and why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::desired_hosts::DesiredHosts;
use super::local_certs::LocalCerts;
use super::report::{Report, UncoveredHost};
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::certificate::{Source, Validity};
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::Pattern;
use crate::on_demand;
use crate::problem::Problem;
use crate::renewal::PendingCert;

/// What decides whether a host is covered, at the end of a pass.
pub(super) struct Coverage<'a> {
    pub(super) config: &'a Config,
    pub(super) map: &'a SniMap,
    /// The patterns whose certificates wait for OCSP responses.
    pub(super) waiting: &'a ahash::HashSet<Pattern>,
    /// The names of all certificates that issuers are asked for.
    pub(super) desired: &'a HashSet<Pattern>,
    /// The names whose certificates are being obtained, with the reason why there are none.
    pub(super) pending: HashMap<&'a Pattern, PendingCert>,
    pub(super) local_certs: &'a LocalCerts,
    /// A dry run issues nothing, but could.
    pub(super) is_dry: bool,
    pub(super) now: UnixTime,
}

/// Why a host is not covered.
enum Reason {
    /// Its certificate is being obtained. Events report it, once per attempt.
    Pending(PendingCert),
    /// Clients refuse its certificate.
    NotYetValid(String),
    /// Its certificate is not served without an OCSP response. Events report it.
    NoStaple,
    /// Its issuer has not issued a certificate.
    IssuerFails,
    /// Nothing is configured for it.
    NotConfigured,
}

impl Coverage<'_> {
    /// Reports the hosts that have no certificate.
    pub(super) fn report_uncovered(&self, hosts: &DesiredHosts, report: &mut Report) {
        let mut seen = HashSet::new();
        let waiting = hosts.covered_by(self.waiting).into_iter();
        for host in waiting.filter(|host| self.served(host).is_none()) {
            if seen.insert(host) {
                report.missing.push(UncoveredHost {
                    host: host.clone(),
                    why: Reason::NoStaple.message(host),
                    is_reported: true,
                    is_awaited: false,
                });
            }
        }
        for (site, host) in hosts.uncovered() {
            if !seen.insert(host) {
                continue;
            }
            let Some(reason) = self.uncovered(host) else {
                continue;
            };
            let why = reason.message(host);
            if matches!(reason, Reason::IssuerFails | Reason::NotConfigured) {
                let problem = Problem::new(&site.origin, None, why.to_string());
                report.warnings.push(problem);
            }
            let is_awaited = matches!(&reason, Reason::Pending(one) if !one.has_failed);
            report.missing.push(UncoveredHost {
                host: host.clone(),
                why,
                is_reported: matches!(reason, Reason::Pending(_) | Reason::NotYetValid(_)),
                is_awaited,
            });
        }
        report.warnings.extend(self.missing_default());
    }

    /// Why `host` is not covered; `None` where it is.
    fn uncovered(&self, host: &Pattern) -> Option<Reason> {
        if self.is_dry && self.desired.contains(host) {
            return None;
        }
        if let Some(pending) = self.pending.get(host) {
            return (!self.serves_valid(host)).then(|| Reason::Pending(pending.clone()));
        }
        if let Some(why) = self.not_yet_valid(host) {
            return Some(Reason::NotYetValid(why));
        }
        if self.served(host).is_some() || self.is_on_demand(host) {
            return None;
        }
        Some(match self.desired.contains(host) {
            true => Reason::IssuerFails,
            false => Reason::NotConfigured,
        })
    }

    /// The problem that no certificate covers the configured default name.
    fn missing_default(&self) -> Option<Problem> {
        let name = self.config.tls.default_certificate.as_ref()?;
        let pattern = Pattern::from(name.clone());
        let could_be = || self.desired.contains(&pattern) || self.is_on_demand(&pattern);
        if self.map.default_set().is_some() || self.is_dry && could_be() {
            return None;
        }
        let message = format!(
            "no certificate covers {name}; clients without SNI get none: add one under \
             'certificates', or choose another name"
        );
        let origin = &self.config.places.default_certificate;
        Some(Problem::new(origin, None, message))
    }

    /// Whether clients may ask for a certificate for `host`.
    fn is_on_demand(&self, host: &Pattern) -> bool {
        let on_demand = self.config.on_demand.as_ref();
        on_demand.is_some_and(|on_demand| on_demand::covers(on_demand, host))
    }

    /// What is served for `host`.
    fn served(&self, host: &Pattern) -> Option<&Arc<CertificateSet>> {
        match host {
            Pattern::Exact(name) => self.map.lookup(name.as_str()),
            other => self.map.get(other),
        }
    }

    /// Whether a valid certificate is served for `host`.
    fn serves_valid(&self, host: &Pattern) -> bool {
        self.served(host).is_some_and(|set| {
            let mut certificates = set.by_kind.iter();
            certificates.any(|one| one.validity(self.now) == Validity::Valid)
        })
    }

    /// Why clients refuse what a local CA has issued for `host`.
    fn not_yet_valid(&self, host: &Pattern) -> Option<String> {
        let mut certificates = self.served(host)?.by_kind.iter();
        certificates.find_map(|certificate| match certificate.source() {
            Source::Issuer(issuer) => self.local_certs.not_yet_valid(issuer),
            _ => None,
        })
    }
}

impl Reason {
    fn message(&self, host: &Pattern) -> Arc<str> {
        match self {
            Self::Pending(pending) => Arc::clone(&pending.why),
            Self::NotYetValid(why) => why.as_str().into(),
            Self::NoStaple => format!(
                "the certificate for {host} requires an OCSP response (Must-Staple), and there is \
                 none yet; see 'snigate certs show {host}'"
            )
            .into(),
            Self::IssuerFails => {
                format!("{host} has no certificate because its issuer is failing").into()
            }
            Self::NotConfigured => format!(
                "no certificate covers {host}, and no issuer is configured for it; add a \
                 certificate under 'certificates' or an issuer, or set 'tls: off'"
            )
            .into(),
        }
    }
}
