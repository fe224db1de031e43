//! What is remembered of failures, and for which account at which CA.

use std::sync::Arc;

use super::super::job::{Deps, Job, JobIssuer, Outcome};
use super::merge_failures;
use crate::cert_store;
use crate::cert_store::Use;
use crate::certificate::TlsCertificate;
use crate::schedule::{Failure, FailureClass, Retries, Retry};
use crate::storage::{Lease, StorageError, blocking};

impl Job {
    /// What is known after these failures, which is stored before anybody learns of it: a restart
    /// must not forget what others know. Each belongs to the account that it happened with.
    pub(super) async fn record_failures(
        &self,
        failures: Vec<(&JobIssuer, Failure)>,
        mut retries: Retries,
        lease: &Arc<Lease>,
        deps: &Deps,
    ) -> Outcome {
        let mut new = Vec::new();
        for (job_issuer, failure) in &failures {
            let account = job_issuer.account_id();
            let previous = retries.get(&account);
            let retry = self.retry_after(previous, failure, Some(job_issuer.name()), deps);
            retries.set(&account, retry.clone());
            if let JobIssuer::Remote(_) = job_issuer {
                new.push((account, retry));
            }
        }
        self.store_retries(new, lease, deps).await;
        let is_paused = |failure: &Failure| failure.class == FailureClass::Paused;
        let is_paused = failures.iter().any(|(_, failure)| is_paused(failure));
        if failures.is_empty() {
            let (_, failure) = merge_failures::merge(Vec::new());
            return self.failed_without_issuer(failure, deps);
        }
        let failures = failures.into_iter();
        let failures = failures.map(|(failed, failure)| (failed.name(), failure));
        let (issuer, failure) = merge_failures::merge(failures.collect());
        let accounts = self.issuers.iter().map(JobIssuer::account_id);
        Outcome::Failed {
            failure,
            issuer,
            retry: Box::new(retries.combined(accounts).unwrap_or_default()),
            retries,
            is_of_none: false,
            is_paused,
        }
    }

    /// What comes of a failure that is no issuer's: nobody was asked. It is not stored, since it
    /// costs nobody anything to meet it again.
    pub(super) fn failed_without_issuer(&self, failure: Failure, deps: &Deps) -> Outcome {
        let first = self.issuers.first();
        Outcome::Failed {
            retry: Box::new(self.retry_after(self.retry.as_ref(), &failure, None, deps)),
            is_of_none: true,
            failure,
            issuer: first.map_or_else(|| "".into(), |first| Arc::clone(first.name())),
            retries: self.retries.clone(),
            is_paused: false,
        }
    }

    fn retry_after(
        &self,
        previous: Option<&Retry>,
        failure: &Failure,
        issuer: Option<&str>,
        deps: &Deps,
    ) -> Retry {
        let life = self.present.as_deref().map(TlsCertificate::lifetime);
        let (now, rng) = (deps.clock.now(), &mut fastrand::Rng::new());
        Retry::after(previous, failure, issuer, life.as_ref(), now, rng)
    }

    /// Keeps failures, by the accounts that they happened with.
    async fn store_retries(&self, new: Vec<(String, Retry)>, lease: &Arc<Lease>, deps: &Deps) {
        let (lease, subject) = (Arc::clone(lease), self.subject.clone());
        let kept = blocking(&deps.storage, move |storage| {
            for (account, retry) in new {
                cert_store::store_retry(storage, &lease, &account, &subject, &retry)?;
            }
            Ok(())
        });
        self.report_storage(kept.await, deps);
    }

    /// Forgets the failures with all issuers that could be asked.
    pub(super) async fn forget_failures(&self, lease: &Arc<Lease>, deps: &Deps) {
        let (lease, subject) = (Arc::clone(lease), self.subject.clone());
        let accounts: Vec<_> = self.issuers.iter().map(JobIssuer::account_id).collect();
        let kept = blocking(&deps.storage, move |storage| {
            cert_store::forget_retries(storage, &lease, &accounts, &subject)
        });
        self.report_storage(kept.await, deps);
    }

    fn report_storage(&self, kept: Result<(), StorageError>, deps: &Deps) {
        match kept {
            Ok(()) => deps.health.record_success(Use::Writing),
            // The peer that took over keeps its own.
            Err(StorageError::Lost { .. }) => {}
            Err(error) => deps.health.record_failure(Use::Writing, &error),
        }
    }
}
