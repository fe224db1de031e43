//! When CAs advise to renew the certificates at hand (RFC 9773), and of which they are asked next.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;

use super::super::inquiry::{Answer, Inquiry};
use super::super::needs::Need;
use super::super::told::Teller;
use super::{LOOK_AGAIN, Managed};
use crate::certificate::Validity;
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::schedule::{Advice, advice};
use crate::storage::keys;

/// After how many seconds an inquiry is taken for lost that has not come back.
const LOST: i64 = 600;

/// What is known of all certificates at hand.
#[derive(Default)]
pub(super) struct Advised {
    /// Whether CAs are asked at all.
    is_on: bool,
    queue: BTreeSet<(UnixTime, Arc<Need>)>,
    known: HashMap<Arc<Need>, Known>,
}

#[derive(Default)]
struct Known {
    /// When the CA is asked next, as it is in the queue.
    ask_at: Option<UnixTime>,
    advice: Option<Advice>,
    /// Whether the advice is on the certificate at hand.
    is_current: bool,
}

impl Advised {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Has the CA asked about a certificate that is new here.
    pub(super) fn ask(&mut self, need: &Arc<Need>, now: UnixTime) {
        if self.is_on {
            self.known.entry(Arc::clone(need)).or_default().is_current = false;
            self.queue(need, Some(now));
        }
    }

    pub(super) fn forget(&mut self, need: &Arc<Need>) {
        self.queue(need, None);
        self.known.remove(need);
    }

    /// The advice on the certificate at hand.
    pub(super) fn advice(&self, need: &Arc<Need>) -> Option<&Advice> {
        let known = self.known.get(need).filter(|known| known.is_current);
        known?.advice.as_ref()
    }

    fn queue(&mut self, need: &Arc<Need>, at: Option<UnixTime>) {
        let Some(known) = self.known.get_mut(need) else {
            return;
        };
        let before = std::mem::replace(&mut known.ask_at, at);
        if let Some(before) = before {
            self.queue.remove(&(before, Arc::clone(need)));
        }
        if let Some(at) = at {
            self.queue.insert((at, Arc::clone(need)));
        }
    }

    fn due(&self, now: UnixTime, most: usize) -> Vec<Arc<Need>> {
        let due = self.queue.iter().take_while(|(at, _)| *at <= now);
        due.take(most).map(|(_, need)| Arc::clone(need)).collect()
    }
}

impl Managed {
    /// Has CAs asked for advice or not, as the configuration says.
    pub(in crate::manager) fn set_ari(&mut self, is_on: bool, now: UnixTime) {
        if std::mem::replace(&mut self.advised.is_on, is_on) == is_on {
            return;
        }
        for (need, entry) in &self.entries {
            if is_on && entry.certificate.is_some() {
                self.advised.ask(need, now);
            } else {
                self.advised.forget(need);
                self.plans.advise(need, None);
            }
        }
    }

    /// The certificates of which CAs are to be asked now, at most so many; each counts as asked.
    pub(in crate::manager) fn inquiries(
        &mut self,
        issuers: &IndexMap<Arc<str>, Configured>,
        now: UnixTime,
        most: usize,
    ) -> Vec<Inquiry> {
        let mut inquiries = Vec::new();
        for need in self.advised.due(now, most) {
            let inquiry = self.inquiry(&need, issuers, now);
            // Of others nothing is to be asked before there is another certificate.
            let again = inquiry.as_ref().map(|_| now.saturating_add(LOST));
            self.advised.queue(&need, again);
            inquiries.extend(inquiry);
        }
        inquiries
    }

    fn inquiry(
        &mut self,
        need: &Arc<Need>,
        issuers: &IndexMap<Arc<str>, Configured>,
        now: UnixTime,
    ) -> Option<Inquiry> {
        let entry = self.entries.get(need).filter(|entry| !entry.is_foreign)?;
        let certificate = Arc::clone(entry.certificate.as_ref()?);
        // Nobody is asked about those that are over (RFC 9773, section 4.3.3).
        if certificate.validity(now) == Validity::Expired {
            return None;
        }
        let subject = entry.subject.clone();
        let (name, configured) = issuers.get_key_value(certificate.source().label())?;
        let Configured::Acme(acme) = configured else {
            return None;
        };
        let issuer = self.issuer(name, acme);
        Some(Inquiry {
            need: Arc::clone(need),
            id: certificate.renewal_id()?,
            place: keys::renewal_info(issuer.ca(), &subject).ok()?,
            certificate,
            issuer,
            known: self.advised.known.get(need)?.advice.clone(),
        })
    }

    /// When a CA is to be asked next.
    pub(in crate::manager) fn next_inquiry(&self) -> Option<UnixTime> {
        self.advised.queue.first().map(|(at, _)| *at)
    }

    /// Takes what a CA advises: the plan follows it from now on.
    pub(in crate::manager) fn advise(&mut self, answer: Answer, now: UnixTime) {
        let Answer {
            need,
            fingerprint,
            advice,
            is_news,
        } = answer;
        let entry = self.entries.get(&need);
        let Some(certificate) = entry.and_then(|entry| entry.certificate.as_ref()) else {
            return;
        };
        // Another has come meanwhile, of which the CA is asked anew.
        if !self.advised.is_on || certificate.fingerprint() != fingerprint {
            return;
        }
        let Some(advice) = advice else {
            let again = now.saturating_add(LOOK_AGAIN);
            self.advised.queue(&need, Some(again));
            return;
        };
        let at = advice.renew_at(&certificate.lifetime());
        self.plans.advise(&need, at);
        if let (true, Some(window), Some(at)) = (is_news, &advice.window, at) {
            let teller = Teller {
                tools: &self.tools,
                need: &need,
                now,
            };
            teller.advised(certificate, window, at);
        }
        self.advised.queue(&need, Some(advice.ask_at));
        if let Some(known) = self.advised.known.get_mut(&need) {
            (known.advice, known.is_current) = (Some(advice), true);
        }
    }

    /// The CA's advice, where that is why the certificate is renewed.
    pub(super) fn followed(&self, need: &Arc<Need>, now: UnixTime) -> Option<advice::Window> {
        let certificate = self.entries.get(need)?.certificate.as_ref()?;
        let advice = self.advised.advice(need)?;
        let at = advice.renew_at(&certificate.lifetime())?;
        let is_followed = at <= now && !certificate.is_due(self.plans.window(), now);
        advice.window.clone().filter(|_| is_followed)
    }
}
