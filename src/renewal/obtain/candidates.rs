//! Which issuers of a list can be asked now.

use std::sync::Arc;

use super::super::job::{Job, JobIssuer};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::issuer::Issuer;
use crate::schedule::{Intent, Retries};

/// The issuers that can be asked now: those with which nothing has failed lately, and that no limit
/// holds.
pub(super) async fn candidates<'a>(
    job: &'a Job,
    retries: &Retries,
    now: UnixTime,
) -> Vec<&'a JobIssuer> {
    let mut candidates = Vec::new();
    for job_issuer in &job.issuers {
        if !job.is_asked && !retries.is_due(&job_issuer.account_id(), now) {
            continue;
        }
        if let JobIssuer::Remote(issuer) = job_issuer {
            issuer.refresh_limits().await;
        }
        if !is_held(job, job_issuer, now) {
            candidates.push(job_issuer);
        }
    }
    candidates
}

/// Whether a limit of the CA stands against asking it. Our own pace is waited for.
pub(super) fn is_held(job: &Job, job_issuer: &JobIssuer, now: UnixTime) -> bool {
    let JobIssuer::Remote(issuer) = job_issuer else {
        return false;
    };
    let intent = Intent {
        names: &job.guard.spec.names,
        replaces: replaced(job, issuer, now).is_some(),
    };
    issuer.held(&intent).is_some()
}

/// How `issuer` knows the certificate to be replaced, where that came from it and still counts.
pub(super) fn replaced(job: &Job, issuer: &Arc<dyn Issuer>, now: UnixTime) -> Option<String> {
    let present = job.present.as_ref().filter(|_| job.tells_replaced)?;
    replaced_at(present, job.is_revoked, issuer, now)
}

/// How `issuer` knows `present`, where that came from it and still counts.
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
