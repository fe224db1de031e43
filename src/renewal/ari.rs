//! When CAs advise to renew the present certificates (RFC 9773), and when each is next queried.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;

use super::ari_query::{AriQuery, AriResult};
use super::cert_events::CertEvents;
use super::{LOOK_AGAIN, Renewals};
use crate::certificate::Validity;
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::issuer::spec::CertSpec;
use crate::schedule::{Advice, advice};
use crate::storage::keys;

/// After how many seconds a query without a result is considered lost.
const LOST: i64 = 600;

/// The renewal info of all present certificates.
#[derive(Default)]
pub(super) struct Ari {
    /// Whether CAs are asked at all.
    is_on: bool,
    queue: BTreeSet<(UnixTime, Arc<CertSpec>)>,
    known: HashMap<Arc<CertSpec>, AriState>,
}

#[derive(Default)]
struct AriState {
    /// When the CA is asked next, as it is in the queue.
    ask_at: Option<UnixTime>,
    advice: Option<Advice>,
    /// Whether the advice is on the present certificate.
    is_current: bool,
}

impl Ari {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Has the CA asked about a certificate that is new here.
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
}

impl Renewals {
    /// Has CAs asked for advice or not, as the configuration says.
    pub(crate) fn set_ari(&mut self, is_on: bool, now: UnixTime) {
        if std::mem::replace(&mut self.ari.is_on, is_on) == is_on {
            return;
        }
        for (spec, entry) in &self.entries {
            if is_on && entry.certificate.is_some() {
                self.ari.schedule_query(spec, now);
            } else {
                self.ari.forget_spec(spec);
                self.queues.set_advised_time(spec, None);
            }
        }
    }

    /// The certificates of which CAs are to be asked now, at most so many; each counts as asked.
    pub(crate) fn ari_queries(
        &mut self,
        issuers: &IndexMap<Arc<str>, Configured>,
        now: UnixTime,
        most: usize,
    ) -> Vec<AriQuery> {
        let mut ari_queries = Vec::new();
        for spec in self.ari.due_specs(now, most) {
            let query = self.build_query(&spec, issuers, now);
            // Of others nothing is to be asked before there is another certificate.
            let again = query.as_ref().map(|_| now.saturating_add(LOST));
            self.ari.requeue(&spec, again);
            ari_queries.extend(query);
        }
        ari_queries
    }

    fn build_query(
        &mut self,
        spec: &Arc<CertSpec>,
        issuers: &IndexMap<Arc<str>, Configured>,
        now: UnixTime,
    ) -> Option<AriQuery> {
        let entry = self.entries.get(spec).filter(|entry| !entry.is_foreign)?;
        let certificate = Arc::clone(entry.certificate.as_ref()?);
        // Nobody is asked about those that are over (RFC 9773, section 4.3.3).
        if certificate.validity(now) == Validity::Expired {
            return None;
        }
        let subject = entry.subject.clone();
        let (name, configured) = issuers.get_key_value(certificate.source().label())?;
        let issuer = match configured {
            Configured::Acme(_) | Configured::Own => self.open_issuer(name, configured),
            Configured::LocalCa { .. } => return None,
        };
        Some(AriQuery {
            spec: Arc::clone(spec),
            id: certificate.renewal_id()?,
            place: keys::renewal_info(issuer.ca(), &subject).ok()?,
            certificate,
            issuer,
            known: self.ari.known.get(spec)?.advice.clone(),
        })
    }

    /// When a CA is to be asked next.
    pub(crate) fn next_ari_query(&self) -> Option<UnixTime> {
        self.ari.queue.first().map(|(at, _)| *at)
    }

    /// Applies the renewal info of a CA: the plan follows it from now on.
    pub(crate) fn apply_ari_result(&mut self, answer: AriResult, now: UnixTime) {
        let AriResult {
            spec,
            fingerprint,
            advice,
            is_news,
        } = answer;
        let entry = self.entries.get(&spec);
        let Some(certificate) = entry.and_then(|entry| entry.certificate.as_ref()) else {
            return;
        };
        // Another has come meanwhile, of which the CA is asked anew.
        if !self.ari.is_on || certificate.fingerprint() != fingerprint {
            return;
        }
        let Some(advice) = advice else {
            let again = now.saturating_add(LOOK_AGAIN);
            self.ari.requeue(&spec, Some(again));
            return;
        };
        let at = advice.renew_at(&certificate.lifetime());
        self.queues.set_advised_time(&spec, at);
        if let (true, Some(window), Some(at)) = (is_news, &advice.window, at) {
            let cert_events = CertEvents {
                deps: &self.deps,
                spec: &spec,
                now,
            };
            cert_events.emit_advised(certificate, window, at);
        }
        self.ari.requeue(&spec, Some(advice.ask_at));
        if let Some(known) = self.ari.known.get_mut(&spec) {
            (known.advice, known.is_current) = (Some(advice), true);
        }
    }

    /// The CA's advice, where that is why the certificate is renewed.
    pub(super) fn followed_window(
        &self,
        spec: &Arc<CertSpec>,
        now: UnixTime,
    ) -> Option<advice::Window> {
        let certificate = self.entries.get(spec)?.certificate.as_ref()?;
        let advice = self.ari.advice(spec)?;
        let at = advice.renew_at(&certificate.lifetime())?;
        let is_followed = at <= now && !certificate.is_due(self.queues.window(), now);
        advice.window.clone().filter(|_| is_followed)
    }
}
