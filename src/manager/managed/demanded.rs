//! Certificates that clients have asked for, among all that CAs are asked for.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::job::Tools;
use super::super::needs::Need;
use super::super::report::Change;
use super::super::told::Teller;
use super::authorities::accounts;
use super::opening::Read;
use super::{Entry, Managed};
use crate::certificate::sni::Precedence;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::{UnixTime, rfc3339};
use crate::schedule::{CertState, Facts, FailureClass, Retries, Retry};

/// For how many seconds a client is let wait for what is put off.
const PATIENCE: i64 = 60;

/// How long it takes at least, in seconds, until it is asked again whether a certificate is wanted
/// that was not, and the share of what remains of it after which that is done.
const ASK_AGAIN: i64 = 60;
const REST: i64 = 10;

/// How a name stands that clients have asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manager) enum Stand {
    /// It has a certificate that is valid.
    Served,
    /// One is being obtained, or soon is.
    Coming,
    /// None comes soon.
    PutOff(PutOff),
    /// Nobody is asked for it.
    Unknown,
}

/// Why a name gets no certificate for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manager) struct PutOff {
    pub(in crate::manager) why: String,
    pub(in crate::manager) next: Option<UnixTime>,
    /// Whether nothing but another client's asking is a reason to try again.
    pub(in crate::manager) is_of_name: bool,
}

impl PutOff {
    /// Why a name is put off that has failed before; `None` where that is over.
    pub(in crate::manager) fn of(retry: &Retry, now: UnixTime) -> Option<Self> {
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

impl Managed {
    /// Takes up a certificate that a client has asked for, with what the storage has of it.
    pub(in crate::manager) fn adopt(
        &mut self,
        need: &Arc<Need>,
        subject: String,
        read: Read,
        now: UnixTime,
    ) -> Option<Change> {
        let certificate = read.certificate.map(Arc::new);
        let facts = Facts {
            life: certificate.as_deref().map(TlsCertificate::lifetime),
            retry: read.retries.sum(accounts(&need.issuers, &self.open)),
        };
        let entry = Entry {
            retries: read.retries,
            certificate: certificate.clone(),
            is_read: true,
            subject,
            ..Entry::default()
        };
        self.entries.insert(Arc::clone(need), entry);
        self.plans.set(need, facts, now);
        let new = certificate?;
        self.advised.ask(need, now);
        Some(Change {
            old: None,
            new: Some(new),
        })
    }

    /// Why a name is put off that these issuers may be asked for, by what the storage has of its
    /// failures; `None` where one of them can be asked.
    pub(in crate::manager) fn put_off(
        &self,
        retries: &Retries,
        issuers: &[Arc<str>],
        now: UnixTime,
    ) -> Option<PutOff> {
        let retry = retries.sum(accounts(issuers, &self.open))?;
        PutOff::of(&retry, now)
    }

    /// Forgets a certificate that clients have asked for.
    pub(in crate::manager) fn let_go(&mut self, need: &Arc<Need>) -> Option<Change> {
        self.plans.remove(need);
        self.advised.forget(need);
        let entry = self.entries.remove(need)?;
        Some(Change {
            old: Some(entry.certificate?),
            new: None,
        })
    }

    /// Asks others for a certificate from now on. The one at hand is good until it is due.
    pub(in crate::manager) fn ask_others(
        &mut self,
        need: &Arc<Need>,
        instead: &Arc<Need>,
        now: UnixTime,
    ) {
        let Some(entry) = self.entries.remove(need) else {
            return;
        };
        let facts = Facts {
            life: entry.certificate.as_deref().map(TlsCertificate::lifetime),
            retry: entry.retries.sum(accounts(&instead.issuers, &self.open)),
        };
        self.plans.remove(need);
        self.advised.forget(need);
        let has_one = entry.certificate.is_some();
        let label = entry.certificate.as_ref().map(|one| one.source().label());
        let is_replaced = |issuer: &Arc<str>| entry.is_foreign && label == Some(&**issuer);
        let is_urgent = instead.issuers.iter().any(is_replaced);
        self.entries.insert(Arc::clone(instead), entry);
        self.plans.set(instead, facts, now);
        if is_urgent {
            self.plans.request(instead, now);
        }
        if has_one {
            self.advised.ask(instead, now);
        }
    }

    /// Does not renew a certificate for now, since it is no longer wanted.
    pub(super) fn unwanted(&mut self, need: &Arc<Need>, now: UnixTime) {
        let Some(entry) = self.entries.get_mut(need) else {
            return;
        };
        let end = entry.certificate.as_ref().map(|one| one.not_after());
        if let (Some(end), false) = (end, std::mem::replace(&mut entry.is_unwanted, true)) {
            let what = format!(
                "is not renewed, since it is no longer wanted; it is served until {}",
                rfc3339(end)
            );
            teller(&self.tools, need, now).dropped(&what, Some(end));
        }
        let left = end.map_or(0, |end| end.saturating_sub(now)).max(1);
        let pause = (left / REST).max(ASK_AGAIN).min(left);
        self.plans.defer(need, now.saturating_add(pause));
    }

    /// Whether a certificate is not wanted, and none is left.
    pub(in crate::manager) fn is_over(&self, need: &Need, now: UnixTime) -> bool {
        let entry = self.entries.get(need).filter(|entry| entry.is_unwanted);
        entry.is_some_and(|entry| {
            let certificate = entry.certificate.as_ref();
            certificate.is_none_or(|one| one.validity(now) == Validity::Expired)
        })
    }

    /// Does nothing more about a certificate that is over. It may be gone from the storage by now.
    pub(in crate::manager) fn rest(&mut self, need: &Arc<Need>) {
        self.plans.remove(need);
        self.advised.forget(need);
    }

    /// Obtains a certificate again that is over.
    pub(in crate::manager) fn want_again(&mut self, need: &Arc<Need>, now: UnixTime) {
        if !self.is_over(need, now) {
            return;
        }
        let retry = self.plans.retry(need).cloned();
        if let Some(entry) = self.entries.get_mut(need) {
            entry.is_unwanted = false;
            let life = entry.certificate.as_deref().map(TlsCertificate::lifetime);
            self.plans.set(need, Facts { life, retry }, now);
        }
    }

    /// Goes on with `certificate`, which is stored, in the place of one that is over.
    pub(in crate::manager) fn goes_on(
        &mut self,
        need: &Arc<Need>,
        certificate: TlsCertificate,
        now: UnixTime,
    ) -> Option<Change> {
        // Else it is being worked on, and found by that.
        let entry = self.entries.get_mut(need).filter(|it| it.is_unwanted)?;
        entry.is_unwanted = false;
        let is_newer =
            |present: &Arc<TlsCertificate>| certificate.not_after() > present.not_after();
        let change = entry.certificate.as_ref().is_none_or(is_newer).then(|| {
            let new = Arc::new(certificate);
            teller(&self.tools, need, now).loaded(&new);
            (entry.is_stale, entry.is_foreign, entry.is_revoked) = (false, false, false);
            Change {
                old: entry.certificate.replace(Arc::clone(&new)),
                new: Some(new),
            }
        });
        let life = entry.certificate.as_deref().map(TlsCertificate::lifetime);
        self.plans.set(need, Facts { life, retry: None }, now);
        self.advised.ask(need, now);
        change
    }

    /// How a name stands that clients have asked for.
    pub(in crate::manager) fn stand(&self, need: &Arc<Need>, now: UnixTime) -> Stand {
        let Some(entry) = self.entries.get(need) else {
            return Stand::Unknown;
        };
        let certificate = entry.certificate.as_ref();
        if certificate.is_some_and(|one| one.validity(now) == Validity::Valid) {
            return Stand::Served;
        }
        if self.plans.state(need, now) == CertState::Obtaining {
            return Stand::Coming;
        }
        let put_off = |why: String, next| {
            Stand::PutOff(PutOff {
                why,
                next,
                is_of_name: false,
            })
        };
        if entry.is_unwanted {
            return put_off("it is no longer wanted".to_owned(), None);
        }
        let retry = self.plans.retry(need);
        if let Some(put_off) = retry.and_then(|retry| PutOff::of(retry, now)) {
            return Stand::PutOff(put_off);
        }
        let longest = now.saturating_add(PATIENCE);
        if let Some((held, next)) = self.held(need, entry, now)
            && next.is_none_or(|next| next > longest)
        {
            return put_off(held.to_string(), next);
        }
        match self.plans.paced(need, now) {
            Some(until) if until > longest => {
                let why = format!("it waits for its turn until {}", rfc3339(until));
                put_off(why, Some(until))
            }
            _ => Stand::Coming,
        }
    }

    /// By what the storage knows the certificates that the configuration asks for.
    pub(in crate::manager) fn configured_subjects(&self) -> HashSet<&str> {
        let entries = self.entries.iter();
        let configured = entries.filter(|(need, _)| need.standing != Precedence::OnDemand);
        configured
            .map(|(_, entry)| entry.subject.as_str())
            .collect()
    }
}

/// Tells of a certificate.
pub(in crate::manager) fn teller<'a>(
    tools: &'a Tools,
    need: &'a Need,
    now: UnixTime,
) -> Teller<'a> {
    Teller { tools, need, now }
}
