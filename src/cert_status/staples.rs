//! When which OCSP responder is asked about which certificate.
//!
//! A response is replaced at half of its life. A responder that does not respond rests, whatever is due
//! there; and no responder is asked more than a few things at a time, so that a great many certificates
//! cost no spike, here or there. Certificates wait in the order of their times: while nothing is due,
//! their number costs nothing.

mod believed;
mod entry;
mod pace;
mod queue;
mod reports;
mod responders;
mod tally;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::believed::believed;
use self::entry::{Entry, Stage};
use self::pace::{FIRST_PAUSE, jitter, pause_after, refresh_at, refresh_stored_at};
use self::queue::Queue;
use self::reports::Reports;
use self::responders::Responders;
pub(crate) use self::tally::Count;
use self::tally::Tally;
use super::alert::{self, Notice};
use super::query::{NO_ISSUER, Outcome};
use crate::certificate::status::KnownStatus;
use crate::certificate::{Fingerprint, TlsCertificate};
use crate::clock::UnixTime;
use crate::schedule::{Deadlines, Passed};

/// The longest pause after a failure, in seconds.
const LONGEST_PAUSE: i64 = 3600;

/// When a revoked certificate is looked at again: its CA may have been mistaken.
const REVOKED_PAUSE: i64 = 6 * 3600;

/// How many certificates are looked at in one go, once all have to be: some milliseconds.
const MOST_VISITED: usize = 4096;

/// Every certificate that names a responder, or requires a response.
#[derive(Default)]
pub(crate) struct Staples {
    entries: HashMap<Fingerprint, Entry>,
    responders: Responders,
    /// Those whose stored responses are to be read.
    unread: Queue,
    /// When time changes something about which.
    deadlines: Deadlines<Fingerprint>,
    /// Those that time may have changed something about.
    to_visit: Vec<Fingerprint>,
    last: UnixTime,
    reports: Reports,
    tally: Tally,
    rng: fastrand::Rng,
}

/// What has changed.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) notices: Vec<Notice>,
    /// Certificates that require a response and have got one or lost it.
    pub(crate) served: Vec<Arc<TlsCertificate>>,
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
        let mut other = Vec::new();
        for certificate in certificates {
            let Some(status) = certificate.status() else {
                continue;
            };
            let sources = status.sources();
            if sources.responder.is_none() && !sources.requires_staple {
                continue;
            }
            let fingerprint = certificate.fingerprint();
            let is_first = present.insert(fingerprint);
            match self.entries.get_mut(&fingerprint) {
                Some(entry) if is_first => {
                    if entry.take_over(certificate, now) {
                        other.push(fingerprint);
                    }
                }
                Some(entry) => entry.add_copy(certificate),
                None => {
                    let entry = Entry::new(certificate, now);
                    self.unread.push(fingerprint, entry.is_required());
                    self.entries.insert(fingerprint, entry);
                    other.push(fingerprint);
                }
            }
        }
        for fingerprint in other {
            self.visit(fingerprint, now, changes);
        }
        let gone = self.entries.keys().filter(|one| !present.contains(one));
        let gone: Vec<_> = gone.copied().collect();
        for fingerprint in &gone {
            if let Some(entry) = self.entries.remove(fingerprint) {
                self.dismiss(&entry, changes);
            }
        }
        gone
    }

    /// Forgets all certificates: these, which are all there are now, get no response from now on.
    pub(crate) fn clear(&mut self, certificates: &[Arc<TlsCertificate>], changes: &mut Changes) {
        for (_, entry) in std::mem::take(&mut self.entries) {
            self.dismiss(&entry, changes);
        }
        // One may have got a stored response since it was last looked at all.
        for status in certificates.iter().filter_map(|one| one.status()) {
            let known = status.known();
            if known.staple.is_some() || known.fault.is_some() {
                status.update(|known| (known.staple, known.fault) = (None, None));
            }
        }
        self.unread = Queue::default();
        self.to_visit = Vec::new();
        self.responders.clear();
    }

    /// The fingerprints of the certificates.
    pub(crate) fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.entries.keys().copied()
    }

    /// How many certificates have a response.
    pub(crate) fn count(&self) -> Count {
        self.tally.count()
    }

    /// What is known of `certificate`; nothing where it is gone.
    pub(crate) fn known(&self, certificate: &TlsCertificate) -> KnownStatus {
        let entry = self.entries.get(&certificate.fingerprint());
        entry.map(Entry::known).unwrap_or_default()
    }

    /// Takes some certificates, `most` at most, whose responses the storage may have; those that are not
    /// served without one first. To be followed by [`Self::note_read`].
    pub(crate) fn take_unread(&mut self, most: usize) -> Vec<Arc<TlsCertificate>> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(fingerprint) = self.unread.pop()
        {
            let entry = self.entries.get(&fingerprint);
            let entry = entry.filter(|entry| entry.stage == Stage::Unread);
            taken.extend(entry.map(|entry| Arc::clone(&entry.certificate)));
        }
        taken
    }

    /// Plans these certificates, whose stored responses were read.
    pub(crate) fn note_read(
        &mut self,
        read: &[Arc<TlsCertificate>],
        now: UnixTime,
        changes: &mut Changes,
    ) {
        for certificate in read {
            let fingerprint = certificate.fingerprint();
            let Some(entry) = self.entries.get_mut(&fingerprint) else {
                continue;
            };
            entry.share();
            if entry.stage == Stage::Unread {
                entry.stage = Stage::Waiting;
                let staple = entry.certificate.status().and_then(|one| one.staple(now));
                entry.next = match staple {
                    Some(staple) => refresh_stored_at(&staple, &mut self.rng),
                    None => now,
                };
            }
            self.visit(fingerprint, now, changes);
        }
    }

    /// Takes certificates about which a responder is to be asked now, `room` at most. The outcome goes
    /// to [`Self::apply`].
    pub(crate) fn take_due(&mut self, room: usize, now: UnixTime) -> Vec<Arc<TlsCertificate>> {
        let mut taken = Vec::new();
        let entries = &mut self.entries;
        self.responders.take(room, now, |fingerprint| {
            let entry = entries.get_mut(&fingerprint);
            let Some(entry) = entry.filter(|entry| entry.stage == Stage::Due) else {
                return false;
            };
            entry.stage = Stage::Asking;
            taken.push(Arc::clone(&entry.certificate));
            true
        });
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
        self.note_responder(certificate, is_reached, now, changes);
        let fingerprint = certificate.fingerprint();
        let Some(entry) = self.entries.get_mut(&fingerprint) else {
            return false;
        };
        entry.stage = Stage::Waiting;
        let known = entry.known();
        let mut is_over = false;
        let mut is_news = false;
        match believed(outcome, &known, now) {
            Outcome::Good(staple) => {
                entry.failures = 0;
                entry.next = refresh_at(&staple, now, &mut self.rng);
                entry.update(|known| {
                    known.staple = Some(Arc::clone(&staple));
                    known.fault = None;
                    known.revoked.by_responder = None;
                });
                is_over = true;
            }
            Outcome::Revoked { since, .. } => {
                entry.next = now + jitter(REVOKED_PAUSE, &mut self.rng);
                entry.failures = 0;
                entry.update(|known| {
                    known.staple = None;
                    known.fault = Some("it is revoked".into());
                    known.revoked.by_responder = Some(since);
                });
                // What is reported from now on is the revocation.
                (is_over, is_news) = (true, !known.is_revoked());
            }
            Outcome::Unknown(fault) | Outcome::Failed(fault) | Outcome::Unreachable(fault) => {
                let since = match entry.failures {
                    0 => now,
                    _ => entry.failing_since,
                };
                let pause = pause_after(since, now, LONGEST_PAUSE);
                // In time before the present one ends.
                let staple = known.staple.filter(|staple| now < staple.next_update);
                let left = staple.map_or(i64::MAX, |staple| staple.next_update - now);
                let pause = pause.min(left / 4).max(FIRST_PAUSE);
                entry.fail(&fault, now, now + jitter(pause, &mut self.rng));
            }
        }
        if is_over && entry.told.take().is_some() && self.reports.end(certificate) {
            let certificate = Arc::clone(&entry.certificate);
            changes.notices.push(Notice::Recovered(certificate));
        }
        self.visit(fingerprint, now, changes);
        is_news
    }

    /// Takes note that somebody else has changed what is known of a certificate.
    pub(crate) fn note_change(
        &mut self,
        fingerprint: Fingerprint,
        now: UnixTime,
        changes: &mut Changes,
    ) {
        self.visit(fingerprint, now, changes);
    }

    /// Finds what time has changed: what is due, what is to be reported, and which certificates are no
    /// longer served. With very many to look at, some are left for the next call.
    pub(crate) fn pass_time(&mut self, now: UnixTime, changes: &mut Changes) {
        if now < self.last {
            self.set_back(now);
        }
        self.last = now;
        match self.deadlines.pass_time(now) {
            Passed::These(some) => some
                .into_iter()
                .for_each(|one| self.visit(one, now, changes)),
            Passed::Unknown => self.to_visit = self.entries.keys().copied().collect(),
        }
        let rest = self.to_visit.len().saturating_sub(MOST_VISITED);
        for fingerprint in self.to_visit.split_off(rest) {
            self.visit(fingerprint, now, changes);
        }
    }

    /// When something is to be done next, whatever comes in before.
    pub(crate) fn next(&self, now: UnixTime) -> Option<UnixTime> {
        let rest = (!self.to_visit.is_empty()).then_some(now);
        let due = self.responders.next(now);
        let deadline = Some(self.deadlines.next());
        [rest, due, deadline].into_iter().flatten().min()
    }

    /// Notes that one request to the responder of `certificate` has ended.
    fn note_responder(
        &mut self,
        certificate: &TlsCertificate,
        is_reached: bool,
        now: UnixTime,
        changes: &mut Changes,
    ) {
        let status = certificate.status();
        let Some(url) = status.and_then(|status| status.sources().responder.as_deref()) else {
            return;
        };
        let rng = &mut self.rng;
        let failures = self.responders.note_end(url, is_reached, now, rng);
        if failures == 1 || failures == alert::FAILURES {
            // What waits there has failed as often.
            for fingerprint in self.responders.due(url) {
                self.visit(fingerprint, now, changes);
            }
        }
    }

    /// Sees what is to be done about a certificate at `now`, and when something is again.
    fn visit(&mut self, fingerprint: Fingerprint, now: UnixTime, changes: &mut Changes) {
        let Some(entry) = self.entries.get_mut(&fingerprint) else {
            return;
        };
        if entry.stage == Stage::Waiting && entry.next <= now {
            match (entry.responder(), entry.certificate.issuer()) {
                (None, _) => entry.fail("it names no OCSP responder", now, now + LONGEST_PAUSE),
                (_, None) => entry.fail(NO_ISSUER, now, now + LONGEST_PAUSE),
                (Some(url), Some(_)) => {
                    self.responders.push(url, fingerprint, entry.is_required());
                    entry.stage = Stage::Due;
                }
            }
        }
        let mut failures = entry.failures;
        if entry.stage == Stage::Due {
            let of_responder = entry.responder().map(|url| self.responders.failures(url));
            failures = failures.max(of_responder.unwrap_or_default());
        }
        let known = entry.known();
        if failures > 0 {
            if entry.failures == 0 && known.fault.is_none() {
                entry.update(|known| known.fault = Some("its responder does not respond".into()));
            }
            let severity = alert::severity(&known, entry.is_required(), failures, now);
            if severity.is_some() && entry.told < severity {
                if entry.told.is_none() {
                    self.reports.begin(&entry.certificate);
                }
                entry.told = severity;
                let certificate = Arc::clone(&entry.certificate);
                let notice = severity.map(|severity| Notice::Failed(certificate, severity));
                changes.notices.extend(notice);
            }
        }
        entry.note_served(now, changes);
        let counts_as = Some(entry.counts_as(now));
        self.tally.change(entry.counted, counts_as);
        entry.counted = counts_as;
        let next = (entry.stage == Stage::Waiting).then_some(entry.next);
        let turns = known.staple.iter().flat_map(|staple| alert::turns(staple));
        for time in turns.chain(next) {
            self.deadlines.add(time, fingerprint);
        }
    }

    /// Ends all that is known of a certificate that is gone.
    fn dismiss(&mut self, entry: &Entry, changes: &mut Changes) {
        self.tally.change(entry.counted, None);
        if entry.told.is_some() && self.reports.end(&entry.certificate) {
            let certificate = Arc::clone(&entry.certificate);
            changes.notices.push(Notice::Dismissed(certificate));
        }
    }

    /// Plans anew what was planned by a clock that was ahead.
    fn set_back(&mut self, now: UnixTime) {
        for entry in self.entries.values_mut() {
            let staple = entry.certificate.status().and_then(|one| one.staple(now));
            let latest = match staple {
                Some(staple) if staple.this_update <= now => {
                    refresh_at(&staple, now, &mut self.rng)
                }
                _ if entry.known().is_revoked() => now + REVOKED_PAUSE,
                _ => now + jitter(FIRST_PAUSE, &mut self.rng),
            };
            entry.next = entry.next.min(latest);
            entry.failing_since = entry.failing_since.min(now);
        }
        self.responders.set_back(now);
    }
}
