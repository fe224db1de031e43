//! What is known of one certificate whose response is kept current.

use std::sync::Arc;

use super::Changes;
use super::tally::Counted;
use crate::certificate::TlsCertificate;
use crate::certificate::status::KnownStatus;
use crate::clock::UnixTime;
use crate::event::Severity;

/// One certificate.
pub(super) struct Entry {
    pub(super) certificate: Arc<TlsCertificate>,
    /// The same certificate, loaded from other files too.
    copies: Vec<Arc<TlsCertificate>>,
    pub(super) stage: Stage,
    /// When it is asked about again.
    pub(super) next: UnixTime,
    pub(super) failures: u32,
    /// When the first of them was.
    pub(super) failing_since: UnixTime,
    /// How urgent the last report was.
    pub(super) told: Option<Severity>,
    /// Whether it requires a response and was last seen to have one.
    is_served: bool,
    pub(super) counted: Option<Counted>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The storage may have a response.
    Unread,
    Waiting,
    /// Its responder is to be asked.
    Due,
    Asking,
}

impl Entry {
    pub(super) fn new(certificate: &Arc<TlsCertificate>, now: UnixTime) -> Self {
        let status = certificate.status();
        let is_required = status.is_some_and(|status| status.sources().requires_staple);
        Self {
            certificate: Arc::clone(certificate),
            copies: Vec::new(),
            stage: Stage::Unread,
            next: now,
            failures: 0,
            failing_since: now,
            told: None,
            is_served: is_required && !certificate.lacks_staple(now),
            counted: None,
        }
    }

    pub(super) fn responder(&self) -> Option<&str> {
        self.certificate.status()?.sources().responder.as_deref()
    }

    pub(super) fn is_required(&self) -> bool {
        let status = self.certificate.status();
        status.is_some_and(|status| status.sources().requires_staple)
    }

    pub(super) fn known(&self) -> KnownStatus {
        let status = self.certificate.status();
        status.map(|status| status.known()).unwrap_or_default()
    }

    /// Notes what is known from now on, with each copy.
    pub(super) fn update(&self, change: impl Fn(&mut KnownStatus)) {
        for one in self.copies.iter().chain([&self.certificate]) {
            if let Some(status) = one.status() {
                status.update(&change);
            }
        }
    }

    /// Takes `certificate` for the one before, which it is: read again from its files, or with another
    /// chain. Its copies are to be added again. Whether it is another object.
    pub(super) fn take_over(&mut self, certificate: &Arc<TlsCertificate>, now: UnixTime) -> bool {
        self.copies.clear();
        if Arc::ptr_eq(&self.certificate, certificate) {
            return false;
        }
        let known = self.known();
        self.certificate = Arc::clone(certificate);
        let own = self.known().staple;
        self.update(|status| {
            *status = known.clone();
            status.staple = known.staple.clone().or_else(|| own.clone());
        });
        if self.stage == Stage::Waiting && self.failures > 0 {
            self.next = now;
        }
        true
    }

    /// Takes note of another object that is this certificate.
    pub(super) fn add_copy(&mut self, copy: &Arc<TlsCertificate>) {
        if Arc::ptr_eq(copy, &self.certificate) {
            return;
        }
        if let Some(status) = copy.status() {
            let known = self.known();
            if !status.known().is_same_as(&known) {
                status.update(|status| *status = known);
            }
        }
        self.copies.push(Arc::clone(copy));
    }

    /// Has each copy know what is known of the certificate.
    pub(super) fn share(&self) {
        if !self.copies.is_empty() {
            let known = self.known();
            self.update(|status| *status = known.clone());
        }
    }

    pub(super) fn fail(&mut self, fault: &str, now: UnixTime, next: UnixTime) {
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures = self.failures.saturating_add(1);
        self.next = next;
        self.update(|known| known.fault = Some(fault.into()));
    }

    /// Notes whether a certificate that requires a response has one.
    pub(super) fn note_served(&mut self, now: UnixTime, changes: &mut Changes) {
        if !self.is_required() {
            return;
        }
        let is_served = !self.certificate.lacks_staple(now);
        if is_served != self.is_served {
            self.is_served = is_served;
            changes.served.push(Arc::clone(&self.certificate));
        }
    }

    /// What it counts as at `now`.
    pub(super) fn counts_as(&self, now: UnixTime) -> Counted {
        let status = self.certificate.status();
        match status.and_then(|status| status.staple(now)) {
            Some(staple) => Counted::Good(staple.next_update),
            None if self.known().is_revoked() => Counted::Revoked,
            None => Counted::Missing,
        }
    }
}
