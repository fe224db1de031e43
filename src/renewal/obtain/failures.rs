//! The failures of an attempt: merged into one for people, stored by the accounts that they
//! happened with.

use std::sync::Arc;

use super::super::deps::Deps;
use super::super::job::{Job, JobIssuer, Outcome};
use crate::cert_store;
use crate::cert_store::Use;
use crate::certificate::TlsCertificate;
use crate::schedule::{Failure, FailureClass, Retries, Retry};
use crate::storage::{Lease, StorageError, blocking};

/// The outcome of these failures. They are stored before anybody learns of them: a restart must not
/// forget what others know. Each belongs to the account that it happened with.
pub(super) async fn record_failures(
    job: &Job,
    failures: Vec<(&JobIssuer, Failure)>,
    mut retries: Retries,
    lease: &Arc<Lease>,
    deps: &Deps,
) -> Outcome {
    let mut new = Vec::new();
    for (job_issuer, failure) in &failures {
        let account = job_issuer.account_id();
        let previous = retries.get(&account);
        let retry = retry_after(job, previous, failure, Some(job_issuer.name()), deps);
        retries.set(&account, retry.clone());
        if let JobIssuer::Remote(_) = job_issuer {
            new.push((account, retry));
        }
    }
    store_retries(job, new, lease, deps).await;
    let is_paused = |failure: &Failure| failure.class == FailureClass::Paused;
    let is_paused = failures.iter().any(|(_, failure)| is_paused(failure));
    if failures.is_empty() {
        let (_, failure) = merge(Vec::new());
        return failed_without_issuer(job, failure, deps);
    }
    let failures = failures.into_iter();
    let failures = failures.map(|(failed, failure)| (failed.name(), failure));
    let (issuer, failure) = merge(failures.collect());
    let accounts = job.issuers.iter().map(JobIssuer::account_id);
    Outcome::Failed {
        failure,
        issuer,
        retry: Box::new(retries.combined(accounts).unwrap_or_default()),
        retries,
        is_of_none: false,
        is_paused,
    }
}

/// The outcome of a failure that is no issuer's: none was asked. It is not stored, since running
/// into it again costs nothing.
pub(super) fn failed_without_issuer(job: &Job, failure: Failure, deps: &Deps) -> Outcome {
    let first = job.issuers.first();
    Outcome::Failed {
        retry: Box::new(retry_after(job, job.retry.as_ref(), &failure, None, deps)),
        is_of_none: true,
        failure,
        issuer: first.map_or_else(|| "".into(), |first| Arc::clone(first.name())),
        retries: job.retries.clone(),
        is_paused: false,
    }
}

fn retry_after(
    job: &Job,
    previous: Option<&Retry>,
    failure: &Failure,
    issuer: Option<&str>,
    deps: &Deps,
) -> Retry {
    let life = job.present.as_deref().map(TlsCertificate::lifetime);
    let (now, rng) = (deps.clock.now(), &mut fastrand::Rng::new());
    Retry::after(previous, failure, issuer, life.as_ref(), now, rng)
}

/// Stores failures, by the accounts that they happened with.
async fn store_retries(job: &Job, new: Vec<(String, Retry)>, lease: &Arc<Lease>, deps: &Deps) {
    let (lease, subject) = (Arc::clone(lease), job.subject.clone());
    let kept = blocking(&deps.storage, move |storage| {
        for (account, retry) in new {
            cert_store::store_retry(storage, &lease, &account, &subject, &retry)?;
        }
        Ok(())
    });
    report_storage(kept.await, deps);
}

/// Forgets the failures with all issuers that could be asked.
pub(super) async fn forget_failures(job: &Job, lease: &Arc<Lease>, deps: &Deps) {
    let (lease, subject) = (Arc::clone(lease), job.subject.clone());
    let accounts: Vec<_> = job.issuers.iter().map(JobIssuer::account_id).collect();
    let kept = blocking(&deps.storage, move |storage| {
        cert_store::forget_retries(storage, &lease, &accounts, &subject)
    });
    report_storage(kept.await, deps);
}

fn report_storage(kept: Result<(), StorageError>, deps: &Deps) {
    match kept {
        Ok(()) => deps.health.record_success(Use::Writing),
        // The instance that took over stores its own.
        Err(StorageError::Lost { .. }) => {}
        Err(error) => deps.health.record_failure(Use::Writing, &error),
    }
}

/// The failures of all issuers as one. The issuer that can be asked again first decides the class,
/// and is returned with it. The page of a CA that has paused is shown in any case.
fn merge(failures: Vec<(&Arc<str>, Failure)>) -> (Arc<str>, Failure) {
    let several = failures.len() > 1;
    let messages: Vec<_> = failures
        .iter()
        .map(|(issuer, failure)| {
            if several {
                format!("{issuer}: {failure}")
            } else {
                failure.to_string()
            }
        })
        .collect();
    let message = messages.join("; ");
    let paused = failures
        .iter()
        .find(|(_, failure)| failure.class == FailureClass::Paused);
    let url = paused.and_then(|(_, failure)| failure.url.clone());
    let soonest = failures
        .into_iter()
        .min_by_key(|(_, failure)| patience(failure.class));
    match soonest {
        Some((issuer, failure)) => {
            let url = url.or_else(|| failure.url.clone());
            let failure = Failure {
                message,
                url,
                ..failure
            };
            (Arc::clone(issuer), failure)
        }
        None => {
            let why = "no issuer is available";
            ("".into(), Failure::new(FailureClass::Configuration, why))
        }
    }
}

/// Which of several failures of one attempt decides when the next attempt is: the one that may be
/// over first.
fn patience(class: FailureClass) -> u8 {
    match class {
        FailureClass::Storage => 0,
        FailureClass::Network => 1,
        FailureClass::Validation => 2,
        FailureClass::Internal => 3,
        FailureClass::RateLimited | FailureClass::Clock => 4,
        FailureClass::Refused | FailureClass::Vetoed => 5,
        FailureClass::Configuration => 6,
        FailureClass::Paused => 7,
    }
}
