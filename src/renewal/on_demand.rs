//! The on-demand names among the certificates that CAs are asked for.

use std::collections::HashSet;
use std::sync::Arc;

use super::cert_events::CertEvents;
use super::issuers::accounts;
use super::job::Deps;
use super::load::StoredState;
use super::{ManagedCert, Renewals};
use crate::certificate::Change;
use crate::certificate::sni::Precedence;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::{UnixTime, rfc3339};
use crate::issuer::spec::CertSpec;
use crate::schedule::{CertState, Facts, FailureClass, Retries, Retry};

/// For how many seconds a client is let wait for what is put off.
const PATIENCE: i64 = 60;

/// How long it takes at least, in seconds, until it is asked again whether a certificate is wanted
/// that was not, and the share of what remains of it after which that is done.
const ASK_AGAIN: i64 = 60;
const REST: i64 = 10;

/// The status of a name that clients have asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameStatus {
    /// It has a certificate that is valid.
    Served,
    /// One is being obtained, or soon is.
    Pending,
    /// None comes soon.
    Deferred(Deferred),
    /// Nobody is asked for it.
    Unknown,
}

/// Why a name gets no certificate for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deferred {
    pub(crate) why: String,
    pub(crate) next: Option<UnixTime>,
    /// Whether nothing but another client's asking is a reason to try again.
    pub(crate) is_of_name: bool,
}

impl Deferred {
    /// Why a name is put off that has failed before; `None` where that is over.
    pub(crate) fn from_retry(retry: &Retry, now: UnixTime) -> Option<Self> {
        (!retry.is_due(now)).then(|| Self {
            why: retry.message.clone(),
            next: retry.next,
            is_of_name: is_of_name(retry.class),
        })
    }
}

/// Whether a failure says that the name does not lead here, or may have no certificate. Others are
/// those of a day, and mend themselves.
fn is_of_name(class: FailureClass) -> bool {
    matches!(class, FailureClass::Validation | FailureClass::Refused)
}

impl Renewals {
    /// Takes up a certificate that a client has asked for, with what the storage has of it.
    pub(crate) fn adopt_spec(
        &mut self,
        spec: &Arc<CertSpec>,
        subject: String,
        read: StoredState,
        now: UnixTime,
    ) -> Option<Change> {
        let certificate = read.certificate.map(Arc::new);
        let facts = Facts {
            life: certificate.as_deref().map(TlsCertificate::lifetime),
            retry: read.retries.combined(accounts(&spec.issuers, &self.open)),
        };
        let entry = ManagedCert {
            retries: read.retries,
            certificate: certificate.clone(),
            is_read: true,
            subject,
            ..ManagedCert::default()
        };
        self.entries.insert(Arc::clone(spec), entry);
        self.queues.set(spec, facts, now);
        let new = certificate?;
        self.ari.schedule_query(spec, now);
        Some(Change {
            old: None,
            new: Some(new),
        })
    }

    /// Why a name is put off that these issuers may be asked for, by what the storage has of its
    /// failures; `None` where one of them can be asked.
    pub(crate) fn deferral(
        &self,
        retries: &Retries,
        issuers: &[Arc<str>],
        now: UnixTime,
    ) -> Option<Deferred> {
        let retry = retries.combined(accounts(issuers, &self.open))?;
        Deferred::from_retry(&retry, now)
    }

    /// Forgets a certificate that clients have asked for.
    pub(crate) fn release_spec(&mut self, spec: &Arc<CertSpec>) -> Option<Change> {
        self.queues.remove(spec);
        self.ari.forget_spec(spec);
        let entry = self.entries.remove(spec)?;
        Some(Change {
            old: Some(entry.certificate?),
            new: None,
        })
    }

    /// Asks others for a certificate from now on. The one at hand is good until it is due.
    pub(crate) fn change_issuers(
        &mut self,
        spec: &Arc<CertSpec>,
        instead: &Arc<CertSpec>,
        now: UnixTime,
    ) {
        let Some(entry) = self.entries.remove(spec) else {
            return;
        };
        let facts = Facts {
            life: entry.certificate.as_deref().map(TlsCertificate::lifetime),
            retry: entry
                .retries
                .combined(accounts(&instead.issuers, &self.open)),
        };
        self.queues.remove(spec);
        self.ari.forget_spec(spec);
        let has_one = entry.certificate.is_some();
        let label = entry.certificate.as_ref().map(|one| one.source().label());
        let is_replaced = |issuer: &Arc<str>| entry.is_foreign && label == Some(&**issuer);
        let is_urgent = instead.issuers.iter().any(is_replaced);
        self.entries.insert(Arc::clone(instead), entry);
        self.queues.set(instead, facts, now);
        if is_urgent {
            self.queues.request_now(instead, now);
        }
        if has_one {
            self.ari.schedule_query(instead, now);
        }
    }

    /// Does not renew a certificate for now, since it is no longer wanted.
    pub(super) fn postpone_unwanted(&mut self, spec: &Arc<CertSpec>, now: UnixTime) {
        let Some(entry) = self.entries.get_mut(spec) else {
            return;
        };
        let end = entry.certificate.as_ref().map(|one| one.not_after());
        if let (Some(end), false) = (end, std::mem::replace(&mut entry.is_unwanted, true)) {
            let what = format!(
                "will not be renewed because it is no longer allowed; it is served until {}",
                rfc3339(end)
            );
            cert_events(&self.deps, spec, now).emit_dropped(&what, Some(end));
        }
        let left = end.map_or(0, |end| end.saturating_sub(now)).max(1);
        let pause = (left / REST).max(ASK_AGAIN).min(left);
        self.queues.defer(spec, now.saturating_add(pause));
    }

    /// Whether a certificate is not wanted, and none is left.
    pub(crate) fn is_over(&self, spec: &CertSpec, now: UnixTime) -> bool {
        let entry = self.entries.get(spec).filter(|entry| entry.is_unwanted);
        entry.is_some_and(|entry| {
            let certificate = entry.certificate.as_ref();
            certificate.is_none_or(|one| one.validity(now) == Validity::Expired)
        })
    }

    /// Does nothing more about a certificate that is over. It may be gone from the storage by now.
    pub(crate) fn stop_renewal(&mut self, spec: &Arc<CertSpec>) {
        self.queues.remove(spec);
        self.ari.forget_spec(spec);
    }

    /// Obtains a certificate again that is over.
    pub(crate) fn resume_renewal(&mut self, spec: &Arc<CertSpec>, now: UnixTime) {
        if !self.is_over(spec, now) {
            return;
        }
        let retry = self.queues.retry(spec).cloned();
        if let Some(entry) = self.entries.get_mut(spec) {
            entry.is_unwanted = false;
            let life = entry.certificate.as_deref().map(TlsCertificate::lifetime);
            self.queues.set(spec, Facts { life, retry }, now);
        }
    }

    /// Goes on with `certificate`, which is stored, in the place of one that is over.
    pub(crate) fn install_renewed(
        &mut self,
        spec: &Arc<CertSpec>,
        certificate: TlsCertificate,
        now: UnixTime,
    ) -> Option<Change> {
        // Else it is being worked on, and found by that.
        let entry = self.entries.get_mut(spec).filter(|it| it.is_unwanted)?;
        entry.is_unwanted = false;
        let is_newer =
            |present: &Arc<TlsCertificate>| certificate.not_after() > present.not_after();
        let change = entry.certificate.as_ref().is_none_or(is_newer).then(|| {
            let new = Arc::new(certificate);
            cert_events(&self.deps, spec, now).emit_loaded(&new);
            (entry.is_stale, entry.is_foreign, entry.is_revoked) = (false, false, false);
            Change {
                old: entry.certificate.replace(Arc::clone(&new)),
                new: Some(new),
            }
        });
        let life = entry.certificate.as_deref().map(TlsCertificate::lifetime);
        self.queues.set(spec, Facts { life, retry: None }, now);
        self.ari.schedule_query(spec, now);
        change
    }

    /// The status of a name that clients have asked for.
    pub(crate) fn name_status(&self, spec: &Arc<CertSpec>, now: UnixTime) -> NameStatus {
        let Some(entry) = self.entries.get(spec) else {
            return NameStatus::Unknown;
        };
        let certificate = entry.certificate.as_ref();
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
        if entry.is_unwanted {
            return deferred("it is no longer allowed".to_owned(), None);
        }
        let retry = self.queues.retry(spec);
        if let Some(deferred) = retry.and_then(|retry| Deferred::from_retry(retry, now)) {
            return NameStatus::Deferred(deferred);
        }
        let longest = now.saturating_add(PATIENCE);
        if let Some((held, next)) = self.active_limit(spec, entry, now)
            && next.is_none_or(|next| next > longest)
        {
            return deferred(held.to_string(), next);
        }
        match self.queues.paced(spec, now) {
            Some(until) if until > longest => {
                let why = format!("it is waiting for its turn until {}", rfc3339(until));
                deferred(why, Some(until))
            }
            _ => NameStatus::Pending,
        }
    }

    /// By what the storage knows the certificates that the configuration asks for.
    pub(crate) fn configured_subjects(&self) -> HashSet<&str> {
        let entries = self.entries.iter();
        let configured = entries.filter(|(spec, _)| spec.precedence != Precedence::OnDemand);
        configured
            .map(|(_, entry)| entry.subject.as_str())
            .collect()
    }
}

/// Emits the events of a certificate.
pub(crate) fn cert_events<'a>(deps: &'a Deps, spec: &'a CertSpec, now: UnixTime) -> CertEvents<'a> {
    CertEvents { deps, spec, now }
}
