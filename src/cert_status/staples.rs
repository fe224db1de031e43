//! When which OCSP responder is asked about which certificate.
//!
//! A response is replaced at half of its life. A responder that does not respond rests, whatever is due
//! there; and no responder is asked more than a few things at a time, so that a great many certificates
//! cost no spike, here or there.

mod entry;
mod pace;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::entry::{Entry, Stage};
use self::pace::{FIRST_PAUSE, host, is_known, jitter, pause_after, refresh_at};
use super::alert::{self, Notice};
use super::query::{NO_ISSUER, Outcome};
use crate::certificate::{Fingerprint, TlsCertificate};
use crate::clock::UnixTime;

/// How many requests to one responder are under way at a time.
const AT_ONCE: usize = 4;

/// The longest pause after a failure, in seconds.
const LONGEST_PAUSE: i64 = 3600;

/// The longest rest of a responder that does not respond.
const LONGEST_REST: i64 = 120;

/// When a revoked certificate is looked at again: its CA may have been mistaken.
const REVOKED_PAUSE: i64 = 6 * 3600;

/// Every certificate that names a responder, or requires a response.
#[derive(Default)]
pub(crate) struct Staples {
    entries: HashMap<Fingerprint, Entry>,
    responders: HashMap<Box<str>, Responder>,
    /// How many of the certificates require a response.
    required: usize,
    rng: fastrand::Rng,
}

#[derive(Default)]
struct Responder {
    asking: usize,
    failures: u32,
    failing_since: UnixTime,
    rests_until: UnixTime,
}

/// What has changed.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) notices: Vec<Notice>,
    /// Certificates that require a response and have got one or lost it.
    pub(crate) served: Vec<Arc<TlsCertificate>>,
}

/// How many certificates have a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) good: i64,
    pub(crate) missing: i64,
    pub(crate) revoked: i64,
    /// When the first response ends.
    pub(crate) first_end: Option<UnixTime>,
}

impl Staples {
    /// Takes note of all certificates there are now. Returns those that are gone.
    pub(crate) fn survey(
        &mut self,
        certificates: &[Arc<TlsCertificate>],
        now: UnixTime,
        changes: &mut Changes,
    ) -> Vec<Fingerprint> {
        let mut present = HashSet::with_capacity(certificates.len());
        self.required = 0;
        for certificate in certificates {
            let Some(status) = certificate.status() else {
                continue;
            };
            let sources = status.sources();
            if sources.responder.is_none() && !sources.requires_staple {
                continue;
            }
            self.required += usize::from(sources.requires_staple);
            let fingerprint = certificate.fingerprint();
            present.insert(fingerprint);
            match self.entries.get_mut(&fingerprint) {
                Some(entry) if Arc::ptr_eq(&entry.certificate, certificate) => {}
                Some(entry) => {
                    // Read again from its files, or with another chain.
                    let known = entry.certificate.status().map(|one| one.known());
                    if let (Some(known), None) = (known, status.known().staple) {
                        status.update(|now| *now = known);
                    }
                    entry.certificate = Arc::clone(certificate);
                    if entry.stage == Stage::Waiting && entry.failures > 0 {
                        entry.next = now;
                    }
                }
                None => {
                    let entry = Entry::new(certificate, now);
                    self.entries.insert(fingerprint, entry);
                }
            }
        }
        let gone = self.entries.keys().filter(|one| !present.contains(one));
        let gone: Vec<_> = gone.copied().collect();
        for fingerprint in &gone {
            let entry = self.entries.remove(fingerprint);
            changes.notices.extend(entry.and_then(Entry::farewell));
        }
        gone
    }

    /// Forgets all certificates, which get no response from now on.
    pub(crate) fn clear(&mut self, changes: &mut Changes) {
        for (_, entry) in self.entries.drain() {
            if let Some(status) = entry.certificate.status() {
                status.update(|known| known.staple = None);
            }
            changes.notices.extend(entry.farewell());
        }
    }

    /// The fingerprints of the certificates.
    pub(crate) fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.entries.keys().copied()
    }

    /// Some certificates, `most` at most, whose responses the storage may have; those that are not
    /// served without one first. To be followed by [`Self::note_read`].
    pub(crate) fn take_unread(&mut self, most: usize) -> Vec<Arc<TlsCertificate>> {
        let unread = || {
            let all = self.entries.values();
            all.filter(|entry| entry.stage == Stage::Unread)
        };
        let required = unread().filter(|entry| entry.is_required());
        let others = unread().filter(|entry| !entry.is_required());
        let taken = required.chain(others).take(most);
        taken.map(|entry| Arc::clone(&entry.certificate)).collect()
    }

    /// Plans these certificates, whose stored responses were read.
    pub(crate) fn note_read(
        &mut self,
        read: &[Arc<TlsCertificate>],
        now: UnixTime,
        changes: &mut Changes,
    ) {
        for certificate in read {
            let Some(entry) = self.entries.get_mut(&certificate.fingerprint()) else {
                continue;
            };
            entry.stage = Stage::Waiting;
            let staple = entry.certificate.status().and_then(|one| one.staple(now));
            entry.next = match staple {
                Some(staple) => refresh_at(&staple, now, &mut self.rng),
                None => now,
            };
            entry.note_served(now, changes);
        }
    }

    /// Takes certificates about which a responder is to be asked now, `room` at most. The outcome goes
    /// to [`Self::apply`].
    pub(crate) fn take_due(&mut self, room: usize, now: UnixTime) -> Vec<Arc<TlsCertificate>> {
        let mut taken = Vec::new();
        // Those that are not served come first.
        let passes: &[bool] = match self.required {
            0 => &[false],
            _ => &[true, false],
        };
        for only_required in passes {
            for entry in self.entries.values_mut() {
                if taken.len() >= room {
                    return taken;
                }
                let is_due = entry.stage == Stage::Waiting && entry.next <= now;
                if !is_due || *only_required && !entry.is_required() {
                    continue;
                }
                let Some(url) = entry.responder() else {
                    entry.fail("it names no OCSP responder", now, now + LONGEST_PAUSE);
                    continue;
                };
                if entry.certificate.issuer().is_none() {
                    entry.fail(NO_ISSUER, now, now + LONGEST_PAUSE);
                    continue;
                }
                let host = host(url);
                if !self.responders.contains_key(host) {
                    self.responders.insert(host.into(), Responder::default());
                }
                let Some(responder) = self.responders.get_mut(host) else {
                    continue;
                };
                if responder.asking >= AT_ONCE || responder.rests_until > now {
                    continue;
                }
                responder.asking += 1;
                entry.stage = Stage::Asking;
                taken.push(Arc::clone(&entry.certificate));
            }
        }
        taken
    }

    /// Applies what came of asking about `certificate`. Whether it was found to be revoked, which is
    /// news.
    pub(crate) fn apply(
        &mut self,
        certificate: &Arc<TlsCertificate>,
        outcome: Outcome,
        now: UnixTime,
        changes: &mut Changes,
    ) -> bool {
        let is_reached = !matches!(outcome, Outcome::Unreachable(_));
        self.note_responder(certificate, is_reached, now);
        let Some(entry) = self.entries.get_mut(&certificate.fingerprint()) else {
            return false;
        };
        entry.stage = Stage::Waiting;
        let Some(status) = entry.certificate.status().cloned() else {
            return false;
        };
        let outcome = match outcome {
            Outcome::Good(staple) if is_known(&status, &staple, now) => {
                Outcome::Failed("the responder has no newer response".to_owned())
            }
            other => other,
        };
        match outcome {
            Outcome::Good(staple) => {
                entry.failures = 0;
                entry.next = refresh_at(&staple, now, &mut self.rng);
                status.update(|known| {
                    known.staple = Some(staple);
                    known.fault = None;
                });
                if entry.told.take().is_some() {
                    let certificate = Arc::clone(&entry.certificate);
                    changes.notices.push(Notice::Recovered(certificate));
                }
                entry.note_served(now, changes);
                false
            }
            Outcome::Revoked(_) => {
                entry.next = now + jitter(REVOKED_PAUSE, &mut self.rng);
                entry.failures = 0;
                let is_news = !status.known().is_revoked;
                status.update(|known| {
                    known.staple = None;
                    known.fault = Some("it is revoked".into());
                    known.is_revoked = true;
                });
                entry.note_served(now, changes);
                is_news
            }
            Outcome::Unknown(fault) | Outcome::Failed(fault) | Outcome::Unreachable(fault) => {
                let since = match entry.failures {
                    0 => now,
                    _ => entry.failing_since,
                };
                let pause = pause_after(since, now, LONGEST_PAUSE);
                // In time before the present one ends.
                let staple = status.staple(now);
                let left = staple.map_or(i64::MAX, |staple| staple.next_update - now);
                let pause = pause.min(left / 4).max(FIRST_PAUSE);
                entry.fail(&fault, now, now + jitter(pause, &mut self.rng));
                false
            }
        }
    }

    /// Notes that one request to the responder of `certificate` has ended.
    fn note_responder(&mut self, certificate: &TlsCertificate, is_reached: bool, now: UnixTime) {
        let status = certificate.status();
        let url = status.and_then(|status| status.sources().responder.as_deref());
        let Some(responder) = url.and_then(|url| self.responders.get_mut(host(url))) else {
            return;
        };
        responder.asking = responder.asking.saturating_sub(1);
        if is_reached {
            responder.failures = 0;
        } else {
            if responder.failures == 0 {
                responder.failing_since = now;
            }
            let rest = pause_after(responder.failing_since, now, LONGEST_REST);
            responder.failures = responder.failures.saturating_add(1);
            responder.rests_until = now + jitter(rest, &mut self.rng);
        }
    }

    /// Finds what time has changed: what is to be reported, and which certificates are no longer served.
    pub(crate) fn pass_time(&mut self, now: UnixTime, changes: &mut Changes) {
        let responders = &self.responders;
        for entry in self.entries.values_mut() {
            if entry.is_served {
                entry.note_served(now, changes);
            }
            let responder = entry.responder().and_then(|url| responders.get(host(url)));
            let mut failures = entry.failures;
            if let Some(responder) = responder
                && entry.next <= now
            {
                // What waits for a responder that rests has failed as often.
                failures = failures.max(responder.failures);
            }
            if failures == 0 {
                continue;
            }
            let Some(status) = entry.certificate.status() else {
                continue;
            };
            if entry.failures == 0 && status.known().fault.is_none() {
                status.update(|known| known.fault = Some("its responder does not respond".into()));
            }
            let is_required = status.sources().requires_staple;
            let severity = alert::severity(&status.known(), is_required, failures, now);
            if let Some(severity) = severity
                && entry.told < Some(severity)
            {
                entry.told = Some(severity);
                let certificate = Arc::clone(&entry.certificate);
                changes.notices.push(Notice::Failed(certificate, severity));
            }
        }
    }

    /// When something is to be done next, whatever comes in before.
    pub(crate) fn next(&self, now: UnixTime) -> Option<UnixTime> {
        let waiting = self.entries.values();
        let waiting = waiting.filter(|entry| entry.stage == Stage::Waiting);
        let next = waiting.map(|entry| {
            let url = entry.responder();
            let responder = url.and_then(|url| self.responders.get(host(url)));
            let rest = responder.map_or(UnixTime::MIN, |one| one.rests_until);
            // One that is busy is asked again when a request ends.
            entry.next.max(rest).max(now)
        });
        next.min()
    }

    /// How many certificates have a response at `now`.
    pub(crate) fn count(&self, now: UnixTime) -> Count {
        let mut count = Count::default();
        for entry in self.entries.values() {
            let Some(status) = entry.certificate.status() else {
                continue;
            };
            match status.staple(now) {
                Some(staple) => {
                    count.good += 1;
                    let first = count.first_end.unwrap_or(UnixTime::MAX);
                    count.first_end = Some(first.min(staple.next_update));
                }
                None if status.known().is_revoked => count.revoked += 1,
                None => count.missing += 1,
            }
        }
        count
    }
}
