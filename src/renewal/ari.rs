//! When CAs advise to renew the present certificates (RFC 9773), and when each is next queried.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::LOOK_AGAIN;
use super::ari_query::{AriQuery, AriResult};
use super::issuers::Issuers;
use super::managed_cert::{ManagedCert, ManagedCerts};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::issuer::spec::CertSpec;
use crate::schedule::{Advice, advice};
use crate::storage::keys;

/// After how long a query without a result is considered lost.
const LOST: Duration = Duration::from_secs(600);

/// The renewal info of all present certificates.
#[derive(Default)]
pub(super) struct Ari {
    /// Whether CAs are queried at all.
    is_on: bool,
    queue: BTreeSet<(UnixTime, Arc<CertSpec>)>,
    known: HashMap<Arc<CertSpec>, AriState>,
}

#[derive(Default)]
struct AriState {
    /// When the CA is queried next, as in the queue.
    ask_at: Option<UnixTime>,
    advice: Option<Advice>,
    /// Whether the advice is about the present certificate.
    is_current: bool,
}

impl Ari {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Turns the queries on or off. Whether that is a change.
    pub(super) fn set_on(&mut self, is_on: bool) -> bool {
        std::mem::replace(&mut self.is_on, is_on) != is_on
    }

    /// Plans a query about a new certificate.
    pub(super) fn schedule_query(&mut self, spec: &Arc<CertSpec>, now: UnixTime) {
        if self.is_on {
            self.known.entry(Arc::clone(spec)).or_default().is_current = false;
            self.requeue(spec, Some(now));
        }
    }

    pub(super) fn forget_spec(&mut self, spec: &Arc<CertSpec>) {
        self.requeue(spec, None);
        self.known.remove(spec);
    }

    /// The advice on the present certificate.
    pub(super) fn advice(&self, spec: &Arc<CertSpec>) -> Option<&Advice> {
        let known = self.known.get(spec).filter(|known| known.is_current);
        known?.advice.as_ref()
    }

    fn requeue(&mut self, spec: &Arc<CertSpec>, at: Option<UnixTime>) {
        let Some(known) = self.known.get_mut(spec) else {
            return;
        };
        let before = std::mem::replace(&mut known.ask_at, at);
        if let Some(before) = before {
            self.queue.remove(&(before, Arc::clone(spec)));
        }
        if let Some(at) = at {
            self.queue.insert((at, Arc::clone(spec)));
        }
    }

    fn due_specs(&self, now: UnixTime, most: usize) -> Vec<Arc<CertSpec>> {
        let due = self.queue.iter().take_while(|(at, _)| *at <= now);
        due.take(most).map(|(_, spec)| Arc::clone(spec)).collect()
    }

    /// When a CA is to be asked next.
    pub(super) fn next_query(&self) -> Option<UnixTime> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The certificates whose CAs are to be asked now, at most so many; each counts as asked.
    pub(super) fn begin_queries(
        &mut self,
        certs: &ManagedCerts,
        issuers: &mut Issuers,
        now: UnixTime,
        most: usize,
    ) -> Vec<AriQuery> {
        let mut queries = Vec::new();
        for spec in self.due_specs(now, most) {
            let entry = certs.get(&spec);
            let query = entry.and_then(|entry| self.build_query(&spec, entry, issuers, now));
            // The others are not queried before there is another certificate.
            let again = query.as_ref().map(|_| now + LOST);
            self.requeue(&spec, again);
            queries.extend(query);
        }
        queries
    }

    fn build_query(
        &self,
        spec: &Arc<CertSpec>,
        entry: &ManagedCert,
        issuers: &mut Issuers,
        now: UnixTime,
    ) -> Option<AriQuery> {
        let certificate = entry.own_certificate()?;
        // CAs are not asked about certificates that have expired (RFC 9773, section 4.3.3).
        if certificate.validity(now) == Validity::Expired {
            return None;
        }
        let issuer = issuers.open(certificate.source().label())?;
        Some(AriQuery {
            spec: Arc::clone(spec),
            id: certificate.renewal_id()?,
            place: keys::renewal_info(issuer.ca(), &entry.subject).ok()?,
            certificate: Arc::clone(certificate),
            issuer,
            known: self.known.get(spec)?.advice.clone(),
        })
    }

    /// Applies the renewal info of a CA, if it is about the `present` certificate. Returns what the
    /// plan is to follow.
    pub(super) fn apply_result(
        &mut self,
        result: AriResult,
        present: &TlsCertificate,
        now: UnixTime,
    ) -> Option<Advised> {
        let AriResult {
            spec,
            fingerprint,
            advice,
            is_news,
        } = result;
        // Another certificate was installed meanwhile, which has a query of its own.
        if !self.is_on || present.fingerprint() != fingerprint {
            return None;
        }
        let Some(advice) = advice else {
            self.requeue(&spec, Some(now + LOOK_AGAIN));
            return None;
        };
        self.requeue(&spec, Some(advice.ask_at));
        let advised = Advised {
            at: advice.renew_at(&present.lifetime()),
            news: advice.window.clone().filter(|_| is_news),
        };
        if let Some(known) = self.known.get_mut(&spec) {
            (known.advice, known.is_current) = (Some(advice), true);
        }
        Some(advised)
    }

    /// The CA's advice, if that is why the certificate is renewed, and not the last `window` of its
    /// life.
    pub(super) fn followed_window(
        &self,
        spec: &Arc<CertSpec>,
        entry: &ManagedCert,
        window: f64,
        now: UnixTime,
    ) -> Option<advice::Window> {
        let certificate = entry.certificate()?;
        let advice = self.advice(spec)?;
        let at = advice.renew_at(&certificate.lifetime())?;
        let is_followed = at <= now && !certificate.is_due(window, now);
        advice.window.clone().filter(|_| is_followed)
    }
}

/// The part of a CA's advice that the plan follows.
pub(super) struct Advised {
    /// When to renew the certificate.
    pub(super) at: Option<UnixTime>,
    /// The window, if it is news for people.
    pub(super) news: Option<advice::Window>,
}
