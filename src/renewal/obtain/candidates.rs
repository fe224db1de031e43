//! Which issuers of a list can be asked now.

use std::sync::Arc;

use super::super::job::{Job, JobIssuer};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::issuer::Issuer;
use crate::schedule::{Intent, Retries};

impl Job {
    /// The issuers that can be asked now: those at which nothing has failed of late, and of which no
    /// limit stands against it.
    pub(super) async fn candidates(&self, retries: &Retries, now: UnixTime) -> Vec<&JobIssuer> {
        let mut candidates = Vec::new();
        for job_issuer in &self.issuers {
            if !self.is_asked && !retries.is_due(&job_issuer.account_id(), now) {
                continue;
            }
            if let JobIssuer::Remote(issuer) = job_issuer {
                issuer.refresh_limits().await;
            }
            if !self.is_held(job_issuer, now) {
                candidates.push(job_issuer);
            }
        }
        candidates
    }

    /// Whether a limit of the CA stands against asking; our own pace is waited for.
    pub(super) fn is_held(&self, job_issuer: &JobIssuer, now: UnixTime) -> bool {
        match job_issuer {
            JobIssuer::Remote(issuer) => issuer.held(&self.intent(issuer, now)).is_some(),
            JobIssuer::Local(_) => false,
        }
    }

    /// What an order at `issuer` would be.
    fn intent(&self, issuer: &Arc<dyn Issuer>, now: UnixTime) -> Intent<'_> {
        Intent {
            names: &self.guard.spec.names,
            replaces: self.replaces(issuer, now).is_some(),
        }
    }

    /// How `issuer` knows the certificate to be replaced, where it is of the same and still counts.
    pub(super) fn replaces(&self, issuer: &Arc<dyn Issuer>, now: UnixTime) -> Option<String> {
        let present = self.present.as_ref().filter(|_| self.tells_replaced)?;
        replaced_at(present, self.is_revoked, issuer, now)
    }
}

/// How `issuer` knows `present`, where it is of the same and still counts.
pub(crate) fn replaced_at(
    present: &TlsCertificate,
    is_revoked: bool,
    issuer: &Arc<dyn Issuer>,
    now: UnixTime,
) -> Option<String> {
    let is_same = present.source().label() == &**issuer.name();
    let counts = !is_revoked && present.validity(now) != Validity::Expired;
    (is_same && counts).then(|| present.renewal_id()).flatten()
}
