//! The status of the certificates that CAs are asked for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::ari::Ari;
use super::cert_events;
use super::deps::Deps;
use super::issuers::{IssuerLimit, Issuers, backed_off, intent};
use super::managed_cert::{ManagedCert, ManagedCerts};
use super::queue::RenewalQueues;
use crate::certificate::sni::Precedence;
use crate::certificate::{RenewalFacts, TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::issuer::spec::CertSpec;
use crate::schedule::advice::Window;
use crate::schedule::{CertState, FailureClass, RenewedBy, Retry, Wait, is_overdue};

/// How long a client waits for a certificate that is put off.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status of a certificate that CAs are asked for.
#[derive(Clone, Debug)]
pub struct ManagedView {
    pub names: Vec<Pattern>,
    /// Names of issuers, in the order in which they are asked.
    pub issuers: Vec<Arc<str>>,
    pub certificate: Option<Arc<TlsCertificate>>,
    pub state: CertState,
    /// Whether the certificate was revoked, and is served until another is there.
    pub is_revoked: bool,
    /// The failures since the last success.
    pub retry: Option<Retry>,
    /// When the next attempt is.
    pub next: Option<UnixTime>,
    /// When its CA advises to renew it.
    pub advice: Option<Window>,
    /// The limit of a CA that keeps it from being ordered.
    pub held: Option<IssuerLimit>,
    /// Whether it is in the storage.
    pub is_stored: bool,
    /// Why the storage cannot be read, with the place.
    pub unread: Option<Arc<str>>,
    /// Whether clients have asked for it, rather than the configuration.
    pub is_on_demand: bool,
    /// What its validity is judged by.
    pub facts: RenewalFacts,
}

/// A certificate that is not there yet.
#[derive(Clone, Debug)]
pub struct PendingCert {
    /// Why, for people.
    pub why: Arc<str>,
    /// Whether an attempt has failed, or something delays the first one.
    pub has_failed: bool,
}

/// A certificate whose validity is monitored.
#[derive(Clone, Debug)]
pub struct MonitoredCert {
    pub certificate: Arc<TlsCertificate>,
    pub facts: RenewalFacts,
    /// The failures to replace it.
    pub retry: Option<Retry>,
    /// Why it has not been replaced, if that should have happened by now.
    pub delay: Option<String>,
    /// Whether it is not to be replaced: its end is no alarm.
    pub is_dropped: bool,
}

impl MonitoredCert {
    /// One that no CA is asked for.
    pub fn new(certificate: Arc<TlsCertificate>, facts: RenewalFacts) -> Self {
        Self {
            certificate,
            facts,
            retry: None,
            delay: None,
            is_dropped: false,
        }
    }
}

/// The status of a start that waits for certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupStatus {
    /// There are all certificates.
    Complete,
    /// One cannot be obtained, and why.
    Failed(String),
    /// Some are being obtained.
    Pending,
}

/// The status of a name that clients have asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameStatus {
    /// It has a certificate that is valid.
    Served,
    /// One is being obtained, or will be soon.
    Pending,
    /// It gets none soon.
    Deferred(Deferred),
    /// No issuer is asked for it.
    Unknown,
}

/// Why a name gets no certificate now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deferred {
    pub(crate) why: String,
    pub(crate) next: Option<UnixTime>,
    /// Whether it is retried only when another client asks for it.
    pub(crate) is_of_name: bool,
}

impl Deferred {
    /// Why a name that has failed before is put off; `None` once it may be retried.
    pub(crate) fn from_retry(retry: &Retry, now: UnixTime) -> Option<Self> {
        (!retry.is_due(now)).then(|| Self {
            why: retry.message.clone(),
            next: retry.next,
            is_of_name: is_of_name(retry.class),
        })
    }
}

/// Whether a failure says that the name does not lead here, or may have no certificate. Other
/// failures pass by themselves.
fn is_of_name(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::Validation | FailureClass::Refused | FailureClass::Vetoed
    )
}

/// What the status of everything is read from.
pub(super) struct Status<'a> {
    pub(super) deps: &'a Deps,
    pub(super) issuers: &'a Issuers,
    pub(super) certs: &'a ManagedCerts,
    pub(super) queues: &'a RenewalQueues,
    pub(super) ari: &'a Ari,
    pub(super) now: UnixTime,
}

impl<'a> Status<'a> {
    /// The certificate of `spec`, with how its renewal goes; `None` if there is none.
    pub(super) fn monitored_cert(&self, spec: &Arc<CertSpec>) -> Option<MonitoredCert> {
        let entry = self.certs.get(spec)?;
        let certificate = Arc::clone(entry.certificate()?);
        let facts = self.facts(spec, entry);
        let life = certificate.lifetime();
        let is_late = |expected| is_overdue(&life, expected, self.now);
        Some(MonitoredCert {
            delay: facts
                .expected
                .is_some_and(is_late)
                .then(|| self.pending_reason(spec, entry)),
            retry: self.queues.retry(spec).cloned(),
            is_dropped: entry.is_dropped,
            certificate,
            facts,
        })
    }

    fn facts(&self, spec: &Arc<CertSpec>, entry: &ManagedCert) -> RenewalFacts {
        RenewalFacts {
            renewed_by: RenewedBy::Renewed {
                window: self.queues.window(),
                failures: self.queues.retry(spec).map_or(0, |retry| retry.failures),
            },
            expected: self.queues.planned_at(spec).filter(|_| !entry.is_dropped),
            is_revoked: entry.is_revoked(),
            expects_must_staple: entry.certificate().is_some_and(|one| {
                let issuer = self.issuers.get(one.source().label());
                issuer.is_some_and(|issuer| issuer.asks_for_must_staple())
            }),
        }
    }

    /// Every certificate, for people.
    pub(super) fn views(self) -> impl Iterator<Item = ManagedView> {
        self.certs.iter().map(move |(spec, entry)| {
            let (held, next) = match self.limiting(spec, entry) {
                Some((held, next)) => (Some(held), next),
                None => (None, self.queues.next_attempt(spec)),
            };
            ManagedView {
                names: spec.names.clone(),
                issuers: spec.issuers.clone(),
                certificate: entry.certificate().cloned(),
                state: self.queues.state(spec, self.now),
                is_revoked: entry.is_revoked(),
                retry: self.queues.retry(spec).cloned(),
                next,
                held,
                advice: self.ari.advice(spec).and_then(|it| it.window.clone()),
                is_on_demand: spec.precedence == Precedence::OnDemand,
                is_stored: self.is_stored(entry),
                unread: entry.stored.unreadable().cloned(),
                facts: self.facts(spec, entry),
            }
        })
    }

    /// Whether the certificate of `entry` is in the storage.
    fn is_stored(&self, entry: &ManagedCert) -> bool {
        entry.certificate().is_some_and(|certificate| {
            let issuer = self.issuers.get(certificate.source().label());
            issuer.is_none_or(|issuer| !self.deps.is_waiting(issuer.ca(), &entry.subject))
        })
    }

    /// The limit of a CA that keeps a certificate from being ordered, and when an issuer can be
    /// asked again; `None` if one can be asked now, or only failures stand against it.
    fn active_limit(
        &self,
        spec: &CertSpec,
        entry: &ManagedCert,
    ) -> Option<(IssuerLimit, Option<UnixTime>)> {
        let now = self.now;
        let (mut soonest, mut next): (Option<IssuerLimit>, Option<UnixTime>) = (None, None);
        let accounts = self.issuers.accounts(&spec.issuers);
        for (name, account) in spec.issuers.iter().zip(accounts) {
            let limit = self.issuers.get(name).and_then(|issuer| {
                issuer.held(&intent(spec, entry, issuer, self.ari.is_on(), now))
            });
            let free = match (&limit, backed_off(&account, entry, now)) {
                (None, None) => return None,
                (Some(wait), None) => Some(wait.until),
                (None, Some(next)) => next,
                (Some(wait), Some(next)) => next.map(|next| next.max(wait.until)),
            };
            next = next.into_iter().chain(free).min();
            let is_sooner = |wait: &Wait| {
                let soonest = soonest.as_ref();
                soonest.is_none_or(|one| wait.until < one.wait.until)
            };
            if let Some(wait) = limit.filter(is_sooner) {
                let issuer = Arc::clone(name);
                soonest = Some(IssuerLimit { issuer, wait });
            }
        }
        soonest.map(|held| (held, next))
    }

    /// The limit of a CA that keeps a certificate waiting, and until when; `None` where it is being
    /// obtained, or is not due before the limit ends.
    fn limiting(
        &self,
        spec: &Arc<CertSpec>,
        entry: &ManagedCert,
    ) -> Option<(IssuerLimit, Option<UnixTime>)> {
        let state = self.queues.state(spec, self.now);
        if state == CertState::Obtaining {
            return None;
        }
        let (held, next) = self.active_limit(spec, entry)?;
        let planned = self.queues.next_attempt(spec);
        let is_later = planned.is_some_and(|planned| planned >= held.wait.until);
        let is_due = state != CertState::Valid || !is_later;
        is_due.then_some((held, next))
    }

    /// Whether there are all certificates that the configuration asks for.
    pub(super) fn startup_status(&self) -> StartupStatus {
        let mut status = StartupStatus::Complete;
        for (spec, entry) in self.configured().filter(|(_, entry)| entry.is_missing()) {
            let is_asked = self.queues.state(spec, self.now) == CertState::Obtaining;
            let next = self.queues.next_attempt(spec);
            let retry = self.queues.retry(spec);
            let retry = retry.filter(|_| !is_asked && next.is_none_or(|next| next > self.now));
            let held = self.limiting(spec, entry);
            let why = held.map(|(held, _)| held.to_string());
            let Some(why) = why.or_else(|| retry.map(cert_events::last_failure)) else {
                status = StartupStatus::Pending;
                continue;
            };
            let domain = spec.domain();
            return StartupStatus::Failed(format!("there is no certificate for {domain}: {why}"));
        }
        status
    }

    /// The certificates that the configuration asks for.
    fn configured(&self) -> impl Iterator<Item = (&'a Arc<CertSpec>, &'a ManagedCert)> {
        let certs = self.certs.iter();
        certs.filter(|(spec, _)| spec.precedence != Precedence::OnDemand)
    }

    /// The storage keys' segments of the certificates that the configuration asks for.
    pub(super) fn configured_subjects(&self) -> HashSet<&'a str> {
        let configured = self.configured();
        configured.map(|(_, entry)| &*entry.subject).collect()
    }

    /// The configured names that have no certificate, or none that was valid since the start, each
    /// with the reason.
    pub(super) fn uncovered_names(&self) -> HashMap<&'a Pattern, PendingCert> {
        let mut uncovered = HashMap::new();
        for (spec, entry) in self.configured().filter(|(_, entry)| entry.is_missing()) {
            let what = match entry.certificate() {
                None => "there is none yet",
                Some(one) if one.validity(self.now) == Validity::Expired => {
                    "the current one has expired"
                }
                Some(_) => continue,
            };
            let unreadable = entry.stored.unreadable();
            let why = match unreadable {
                Some(why) => format!("the storage may have one but cannot be read: {why}"),
                None => format!("{what}; {}", self.pending_reason(spec, entry)),
            };
            let pending = PendingCert {
                why: why.into(),
                has_failed: unreadable.is_some()
                    || self.queues.retry(spec).is_some()
                    || self.limiting(spec, entry).is_some(),
            };
            uncovered.extend(spec.names.iter().map(|name| (name, pending.clone())));
        }
        uncovered
    }

    /// Why a certificate is not there yet, or the next one.
    fn pending_reason(&self, spec: &Arc<CertSpec>, entry: &ManagedCert) -> String {
        if let Some(issuer) = entry.current_issuer.issuer() {
            return format!("{issuer} is being asked");
        }
        let held = self.limiting(spec, entry).map(|(held, _)| held);
        match (held, self.queues.retry(spec)) {
            // The failure is this very limit.
            (Some(held), Some(retry)) if retry.class == FailureClass::RateLimited => {
                format!("{held} (attempt {})", retry.failures)
            }
            (Some(held), Some(retry)) => format!("{held}; {}", cert_events::last_failure(retry)),
            (Some(held), None) => held.to_string(),
            (None, Some(retry)) => cert_events::last_failure(retry),
            (None, None) => format!(
                "it is waiting for its turn at {}",
                spec.issuers.join(", else ")
            ),
        }
    }

    /// The status of a name that clients have asked for.
    pub(super) fn name_status(&self, spec: &Arc<CertSpec>) -> NameStatus {
        let now = self.now;
        let Some(entry) = self.certs.get(spec) else {
            return NameStatus::Unknown;
        };
        let certificate = entry.certificate();
        if certificate.is_some_and(|one| one.validity(now) == Validity::Valid) {
            return NameStatus::Served;
        }
        if self.queues.state(spec, now) == CertState::Obtaining {
            return NameStatus::Pending;
        }
        let deferred = |why: String, next| {
            NameStatus::Deferred(Deferred {
                why,
                next,
                is_of_name: false,
            })
        };
        if entry.is_dropped {
            return deferred("it is no longer allowed".to_owned(), None);
        }
        let retry = self.queues.retry(spec);
        if let Some(deferred) = retry.and_then(|retry| Deferred::from_retry(retry, now)) {
            return NameStatus::Deferred(deferred);
        }
        let longest = now + PATIENCE;
        if let Some((held, next)) = self.active_limit(spec, entry)
            && next.is_none_or(|next| next > longest)
        {
            return deferred(held.to_string(), next);
        }
        match self.queues.paced(spec, now) {
            Some(until) if until > longest => {
                let why = format!("it is waiting for its turn until {}", until);
                deferred(why, Some(until))
            }
            _ => NameStatus::Pending,
        }
    }
}
