//! One pass over all certificates that are served, in slices of a few milliseconds.
//!
//! It goes through the published map, which needs no lock. What only the manager knows, how the
//! renewals of CAs' certificates go, is read under its lock, for some hundred certificates at a
//! time. Everything here blocks, and runs off the runtime's threads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::HashSet;

use super::super::{Engine, Judgement};
use super::watch::Topic;
use crate::certificate::finding::{STATES, WITHHELD, findings};
use crate::certificate::sni::SniMap;
use crate::certificate::{Finding, Reason, RenewalFacts, Source, TlsCertificate};
use crate::clock::UnixTime;
use crate::event::Severity;
use crate::host::Pattern;
use crate::issuer::spec::CertSpec;
use crate::manager::withheld;
use crate::renewal::MonitoredCert;
use crate::schedule::RenewedBy;

/// How long a slice takes at most, and a little more.
const SLICE: Duration = Duration::from_millis(3);

/// How many certificates of CAs are looked up under one lock.
const LOCKED: usize = 128;

/// A pass under way.
pub(super) struct Pass {
    pub(super) map: Arc<SniMap>,
    pub(super) now: UnixTime,
    judgement: Judgement,
    /// What is left of the certificates that CAs are asked for.
    specs: Vec<Arc<CertSpec>>,
    /// What is left of those that are not served for want of an OCSP response.
    waiting: Vec<Arc<TlsCertificate>>,
    /// All of those, by their addresses.
    withheld: HashSet<usize>,
    /// The next slice of the map.
    slice: usize,
    /// The certificates that were judged, by their addresses: the map holds them.
    seen: HashSet<usize>,
    counts: BTreeMap<&'static str, usize>,
    /// How many hosts have no certificate, without those whose first one is being obtained.
    uncovered: usize,
    pub(super) found: HashMap<Topic, Found>,
    /// The shortest life among them, in seconds.
    shortest: Option<i64>,
    /// How long the slices took so far.
    pub(super) cost: Duration,
}

/// What was found.
pub(super) struct Found {
    pub(super) finding: Finding,
    pub(super) subject: Subject,
}

/// What it was found of.
pub(super) enum Subject {
    Certificate(Arc<MonitoredCert>),
    /// A host without a certificate, and why.
    Host(Arc<str>),
}

impl Found {
    /// Whether its event has been emitted: that a certificate is revoked, by whoever has found out.
    pub(super) fn is_reported_already(&self) -> bool {
        match &self.subject {
            Subject::Certificate(one) if self.finding.reason == Reason::Revoked => {
                let status = one.certificate.status();
                status.is_some_and(|status| status.known().is_revoked())
            }
            _ => false,
        }
    }
}

impl Pass {
    pub(super) fn begin(engine: &Engine) -> Self {
        let begun = Instant::now();
        let manager = engine.lock();
        let specs = manager.renewals().specs();
        let uncovered = manager.missing().iter().filter(|one| !one.is_reported);
        let uncovered = uncovered.map(|one| {
            let finding = Finding::flaw(Reason::NameNotCovered, Severity::Error);
            let subject = Subject::Host(Arc::clone(&one.why));
            let topic = (one.host.clone(), finding.reason);
            (topic, Found { finding, subject })
        });
        let found = uncovered.collect();
        let missing = manager.missing().iter();
        let uncovered = missing.filter(|one| !one.is_awaited).count();
        let shortest = manager.cert_files().shortest_life();
        let now = engine.clock.now();
        let waiting = withheld(&manager).into_iter();
        let waiting: Vec<_> = waiting.map(|one| one.certificate).collect();
        drop(manager);
        Self {
            map: engine.map.load_full(),
            now,
            judgement: engine.judgement(),
            specs,
            withheld: waiting.iter().map(address).collect(),
            waiting,
            slice: 0,
            seen: HashSet::default(),
            counts: STATES.iter().map(|state| (*state, 0)).collect(),
            uncovered,
            found,
            shortest,
            cost: begun.elapsed(),
        }
    }

    /// Continues for some milliseconds. Whether there is more to do.
    pub(super) fn run_slice(&mut self, engine: &Engine) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < SLICE
            && (self.judge_managed(engine) || self.judge_served() || self.judge_waiting())
        {}
        self.cost += begun.elapsed();
        !self.specs.is_empty() || self.slice < self.map.slices() || !self.waiting.is_empty()
    }

    /// How many certificates are in each state, and how many hosts have none.
    pub(super) fn show_states(&self, engine: &Engine) {
        let counts = self.counts.iter().map(|(state, count)| (*state, *count));
        engine.states.show(counts, self.uncovered);
    }

    /// How many certificates were judged.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// The shortest life among all certificates.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.shortest?).unwrap_or_default();
        Some(Duration::from_secs(seconds))
    }

    /// Judges some of the certificates that CAs are asked for. Whether there were any.
    fn judge_managed(&mut self, engine: &Engine) -> bool {
        let some = self.specs.len().saturating_sub(LOCKED);
        let some = self.specs.split_off(some);
        if some.is_empty() {
            return false;
        }
        let manager = engine.lock();
        let renewals = manager.renewals();
        let monitored = some
            .iter()
            .filter_map(|spec| renewals.monitored_cert(spec, self.now));
        let monitored: Vec<_> = monitored.collect();
        drop(manager);
        for one in monitored {
            if self.is_new(&one.certificate) {
                let found = match one.is_dropped {
                    true => Vec::new(),
                    false => self.judge(&one.certificate, &one.facts),
                };
                self.record(one, found);
            }
        }
        true
    }

    /// Judges the certificates of a slice of the map. Whether there was one.
    fn judge_served(&mut self) -> bool {
        let map = Arc::clone(&self.map);
        if self.slice >= map.slices() {
            return false;
        }
        for certificate in map.slice(self.slice).flat_map(|set| &set.by_kind) {
            if !self.is_new(certificate) {
                continue;
            }
            let facts = self.facts(certificate);
            let found = self.judge(certificate, &facts);
            if found.is_empty() {
                self.count("valid");
            } else {
                self.record(MonitoredCert::new(Arc::clone(certificate), facts), found);
            }
        }
        self.slice += 1;
        true
    }

    /// Judges a certificate that is not served for want of an OCSP response. Whether there was one. That
    /// it is revoked is the reason, and is over once another one is served.
    fn judge_waiting(&mut self) -> bool {
        let Some(certificate) = self.waiting.pop() else {
            return false;
        };
        if self.is_new(&certificate) {
            let facts = self.facts(&certificate);
            let mut found = self.judge(&certificate, &facts);
            found.retain(|finding| finding.reason == Reason::Revoked);
            self.record(MonitoredCert::new(certificate, facts), found);
        }
        true
    }

    /// Whether a certificate was not judged before.
    fn is_new(&mut self, certificate: &Arc<TlsCertificate>) -> bool {
        self.seen.insert(address(certificate))
    }

    /// What is known of the renewal of a certificate that no job obtains.
    fn facts(&self, certificate: &TlsCertificate) -> RenewalFacts {
        match certificate.source() {
            Source::Issuer(_) => {
                let window = self.judgement.window;
                RenewalFacts {
                    renewed_by: RenewedBy::Renewed {
                        window,
                        failures: 0,
                    },
                    expected: Some(certificate.lifetime().due_at(window)),
                    is_revoked: false,
                    expects_must_staple: false,
                }
            }
            Source::Directory(_) | Source::File(_) | Source::Program => RenewalFacts::BY_HAND,
        }
    }

    fn judge(&mut self, certificate: &TlsCertificate, facts: &RenewalFacts) -> Vec<Finding> {
        let length = certificate.lifetime().length();
        self.shortest = self.shortest.into_iter().chain([length]).min();
        findings(certificate, facts, self.judgement.warn, self.now)
    }

    /// Records what was found of a certificate, the gravest first.
    fn record(&mut self, certificate: MonitoredCert, findings: Vec<Finding>) {
        let is_withheld = self.withheld.contains(&address(&certificate.certificate));
        let state = findings.first().map_or("valid", Finding::state);
        self.count(match state {
            // Clients refuse it, whether it has a response or not.
            "expired" | "not_yet_valid" | "revoked" => state,
            _ if is_withheld => WITHHELD,
            _ => state,
        });
        self.note(certificate, findings);
    }

    fn note(&mut self, certificate: MonitoredCert, findings: Vec<Finding>) {
        let names = certificate.certificate.names();
        let Some(name) = names.first().filter(|_| !findings.is_empty()).cloned() else {
            return;
        };
        let certificate = Arc::new(certificate);
        for finding in findings {
            let found = Found {
                finding,
                subject: Subject::Certificate(Arc::clone(&certificate)),
            };
            self.record_gravest(name.clone(), found);
        }
    }

    /// Of several certificates with the same first name, the worst counts.
    fn record_gravest(&mut self, name: Pattern, found: Found) {
        let topic = (name, found.finding.reason);
        let is_graver = |known: &Found| found.finding.severity > known.finding.severity;
        if self.found.get(&topic).is_none_or(is_graver) {
            self.found.insert(topic, found);
        }
    }

    fn count(&mut self, state: &'static str) {
        *self.counts.entry(state).or_default() += 1;
    }
}

/// What identifies a certificate that is held.
fn address(certificate: &Arc<TlsCertificate>) -> usize {
    Arc::as_ptr(certificate).addr()
}
