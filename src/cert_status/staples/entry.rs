//! What is known of one certificate whose response is kept current.

use std::sync::Arc;

use super::super::alert::Notice;
use super::Changes;
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::event::Severity;

/// One certificate.
pub(super) struct Entry {
    pub(super) certificate: Arc<TlsCertificate>,
    pub(super) stage: Stage,
    /// When it is asked about again.
    pub(super) next: UnixTime,
    pub(super) failures: u32,
    /// When the first of them was.
    pub(super) failing_since: UnixTime,
    /// How urgent the last report was.
    pub(super) told: Option<Severity>,
    /// Whether it requires a response and was last seen to have one.
    pub(super) is_served: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The storage may have a response.
    Unread,
    Waiting,
    Asking,
}

impl Entry {
    pub(super) fn new(certificate: &Arc<TlsCertificate>, now: UnixTime) -> Self {
        let is_served = certificate
            .status()
            .is_some_and(|status| status.sources().requires_staple && status.staple(now).is_some());
        Self {
            certificate: Arc::clone(certificate),
            stage: Stage::Unread,
            next: now,
            failures: 0,
            failing_since: now,
            told: None,
            is_served,
        }
    }

    pub(super) fn responder(&self) -> Option<&str> {
        self.certificate.status()?.sources().responder.as_deref()
    }

    pub(super) fn is_required(&self) -> bool {
        let status = self.certificate.status();
        status.is_some_and(|status| status.sources().requires_staple)
    }

    pub(super) fn fail(&mut self, fault: &str, now: UnixTime, next: UnixTime) {
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures = self.failures.saturating_add(1);
        self.next = next;
        if let Some(status) = self.certificate.status() {
            status.update(|known| known.fault = Some(fault.into()));
        }
    }

    /// What is reported when nothing more is asked about the certificate.
    pub(super) fn farewell(self) -> Option<Notice> {
        self.told.map(|_| Notice::Gone(self.certificate))
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
}
