//! Replaces certificates that have been revoked.

use std::collections::HashSet;

use super::Renewals;
use crate::certificate::Fingerprint;
use crate::clock::UnixTime;
use crate::schedule::CertState;

impl Renewals {
    /// Whether the certificate with this fingerprint is one that CAs are asked for.
    pub(crate) fn manages(&self, fingerprint: &str) -> bool {
        let mut certificates = self.certificates();
        certificates.any(|one| one.fingerprint().to_string() == fingerprint)
    }

    /// A person has had this revoked: another is asked for now, whatever the schedule and the
    /// back-off say. Whether any is.
    pub(crate) fn replace_revoked(&mut self, fingerprint: Fingerprint, now: UnixTime) -> bool {
        let mut is_known = false;
        for (spec, entry) in &mut self.entries {
            let present = entry.certificate.as_ref().map(|one| one.fingerprint());
            if present != Some(fingerprint) {
                continue;
            }
            is_known = true;
            (entry.is_revoked, entry.is_asked) = (true, true);
            self.queues.request_now(spec, now);
        }
        is_known
    }

    /// Others, or this instance before it was started anew, have had these revoked.
    pub(crate) fn mark_revoked(&mut self, revoked: &HashSet<String>, now: UnixTime) {
        if revoked.is_empty() {
            return;
        }
        for (spec, entry) in &mut self.entries {
            let Some(present) = entry.certificate.as_ref().filter(|_| !entry.is_revoked) else {
                continue;
            };
            if !revoked.contains(&present.fingerprint().to_string()) {
                continue;
            }
            tracing::warn!(domain = %spec.domain(), "the current certificate was revoked");
            entry.is_revoked = true;
            if self.queues.state(spec, now) == CertState::Obtaining {
                continue;
            }
            // What has failed before a restart waits on.
            let retry = self.queues.retry(spec).cloned();
            self.queues.request_now(spec, now);
            if let Some(retry) = retry {
                self.queues.set_retry(spec, retry);
            }
        }
    }
}
