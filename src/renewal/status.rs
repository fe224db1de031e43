//! The status of the certificates that CAs are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use super::cert_events;
use super::issuers::IssuerLimit;
use super::{ManagedCert, Renewals};
use crate::certificate::sni::Precedence;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::issuer::spec::CertSpec;
use crate::schedule::advice::Window;
use crate::schedule::{CertState, FailureClass, RenewedBy, Retry};

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
    /// When something is done about it.
    pub next: Option<UnixTime>,
    /// When its CA advises to renew it.
    pub advice: Option<Window>,
    /// The limit of a CA for which nobody is asked for it until that ends.
    pub held: Option<IssuerLimit>,
    /// Whether it is in the storage.
    pub is_stored: bool,
    /// Why the storage does not say what it has of it, with the place.
    pub unread: Option<Arc<str>>,
    /// Whether clients have asked for it, and not the configuration.
    pub is_on_demand: bool,
}

/// A certificate whose validity is watched over.
#[derive(Clone, Debug)]
pub struct MonitoredCert {
    pub certificate: Arc<TlsCertificate>,
    /// Who replaces it before its end.
    pub renewed_by: RenewedBy,
    /// The failures to replace it.
    pub retry: Option<Retry>,
}

/// How far a start is that has to wait for certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupStatus {
    /// All are there.
    Complete,
    /// One cannot be had, and why.
    Failed(String),
    /// Some are being obtained.
    Pending,
}

impl Renewals {
    /// Every certificate, with how its renewal goes; none that is to end.
    pub(crate) fn monitored_certs(&self) -> impl Iterator<Item = MonitoredCert> {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.is_unwanted);
        entries.filter_map(|(spec, entry)| {
            let retry = self.queues.retry(spec).cloned();
            let renewed_by = RenewedBy::Renewed {
                window: self.queues.window(),
                failures: retry.as_ref().map_or(0, |retry| retry.failures),
            };
            Some(MonitoredCert {
                certificate: Arc::clone(entry.certificate.as_ref()?),
                renewed_by,
                retry,
            })
        })
    }

    /// Everything that issuers are asked for.
    pub(crate) fn views(&self, now: UnixTime) -> impl Iterator<Item = ManagedView> {
        self.entries.iter().map(move |(spec, entry)| {
            let state = self.queues.state(spec, now);
            let (held, next) = match self.limiting(spec, entry, now) {
                Some((held, next)) => (Some(held), next),
                None => (None, self.queues.next_attempt(spec)),
            };
            ManagedView {
                names: spec.names.clone(),
                issuers: spec.issuers.clone(),
                certificate: entry.certificate.clone(),
                state,
                is_revoked: entry.is_revoked,
                retry: self.queues.retry(spec).cloned(),
                next,
                held,
                advice: self.ari.advice(spec).and_then(|it| it.window.clone()),
                is_on_demand: spec.precedence == Precedence::OnDemand,
                is_stored: self.is_stored(entry),
                unread: entry.unread.clone(),
            }
        })
    }

    /// Whether the certificate of `entry` is in the storage.
    fn is_stored(&self, entry: &ManagedCert) -> bool {
        entry.certificate.as_ref().is_some_and(|certificate| {
            let open = self.open.get(certificate.source().label());
            open.is_none_or(|(_, issuer)| !self.deps.is_waiting(issuer.ca(), &entry.subject))
        })
    }

    /// What limit of a CA keeps a certificate waiting, and until when: none where it is being
    /// obtained, or is not due before that ends.
    fn limiting(
        &self,
        spec: &Arc<CertSpec>,
        entry: &ManagedCert,
        now: UnixTime,
    ) -> Option<(IssuerLimit, Option<UnixTime>)> {
        let state = self.queues.state(spec, now);
        if state == CertState::Obtaining {
            return None;
        }
        let (held, next) = self.active_limit(spec, entry, now)?;
        let planned = self.queues.next_attempt(spec);
        let is_later = planned.is_some_and(|planned| planned >= held.wait.until);
        let is_due = state != CertState::Valid || !is_later;
        is_due.then_some((held, next))
    }

    /// Whether all certificates are there that the configuration asks for.
    pub(crate) fn startup_status(&self, now: UnixTime) -> StartupStatus {
        let mut state = StartupStatus::Complete;
        for (spec, entry) in self.configured() {
            if entry.certificate.is_some() && !entry.is_stale {
                continue;
            }
            let is_asked = self.queues.state(spec, now) == CertState::Obtaining;
            let next = self.queues.next_attempt(spec);
            let retry = self.queues.retry(spec);
            let retry = retry.filter(|_| !is_asked && next.is_none_or(|next| next > now));
            let held = self.limiting(spec, entry, now);
            let why = held.map(|(held, _)| held.to_string());
            let Some(why) = why.or_else(|| retry.map(cert_events::last_failure)) else {
                state = StartupStatus::Pending;
                continue;
            };
            let domain = spec.domain();
            return StartupStatus::Failed(format!("there is no certificate for {domain}: {why}"));
        }
        state
    }

    /// What the configuration asks for.
    fn configured(&self) -> impl Iterator<Item = (&Arc<CertSpec>, &ManagedCert)> {
        let entries = self.entries.iter();
        entries.filter(|(spec, _)| spec.precedence != Precedence::OnDemand)
    }

    /// The configured names that have no certificate, or none that was valid since the start, each
    /// with the reason.
    pub(crate) fn uncovered_names(&self, now: UnixTime) -> HashMap<&Pattern, Arc<str>> {
        let mut lacking = HashMap::new();
        for (spec, entry) in self.configured() {
            let what = match &entry.certificate {
                None => "there is none yet",
                Some(certificate)
                    if entry.is_stale && certificate.validity(now) == Validity::Expired =>
                {
                    "the current one has expired"
                }
                Some(_) => continue,
            };
            let why: Arc<str> = match &entry.unread {
                Some(why) => format!("the storage may have one but cannot be read: {why}"),
                None => format!("{what}; {}", self.pending_reason(spec, entry, now)),
            }
            .into();
            lacking.extend(spec.names.iter().map(|name| (name, Arc::clone(&why))));
        }
        lacking
    }

    /// How far it is with a certificate that is lacking.
    fn pending_reason(&self, spec: &Arc<CertSpec>, entry: &ManagedCert, now: UnixTime) -> String {
        if let Some(issuer) = entry.current_issuer.issuer() {
            return format!("{issuer} is being asked");
        }
        let held = self.limiting(spec, entry, now).map(|(held, _)| held);
        match (held, self.queues.retry(spec)) {
            // The failure is that very limit.
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
}
