//! What is remembered of failures, and of which account at which CA.

use std::sync::Arc;

use super::super::health::Use;
use super::super::job::{Authority, Job, Outcome, Tools};
use super::super::stored;
use super::verdict;
use crate::certificate::TlsCertificate;
use crate::schedule::{Failure, FailureClass, Retries, Retry};
use crate::storage::{Lease, StorageError, blocking};

impl Job {
    /// What is known after these failures, which is stored before anybody learns of it: a restart
    /// must not forget what others know. Each belongs to the account that it happened with.
    pub(super) async fn failed(
        &self,
        failures: Vec<(&Authority, Failure)>,
        mut retries: Retries,
        lease: &Arc<Lease>,
        tools: &Tools,
    ) -> Outcome {
        let mut new = Vec::new();
        for (authority, failure) in &failures {
            let account = authority.account_id();
            let previous = retries.get(&account);
            let retry = self.retry_after(previous, failure, Some(authority.name()), tools);
            retries.set(&account, retry.clone());
            if let Authority::Remote(_) = authority {
                new.push((account, retry));
            }
        }
        self.keep(new, lease, tools).await;
        let is_paused = |failure: &Failure| failure.class == FailureClass::Paused;
        let is_paused = failures.iter().any(|(_, failure)| is_paused(failure));
        if failures.is_empty() {
            let (_, failure) = verdict::sum(Vec::new());
            return self.failed_by_itself(failure, tools);
        }
        let failures = failures.into_iter();
        let failures = failures.map(|(failed, failure)| (failed.name(), failure));
        let (issuer, failure) = verdict::sum(failures.collect());
        let accounts = self.issuers.iter().map(Authority::account_id);
        Outcome::Failed {
            failure,
            issuer,
            retry: Box::new(retries.sum(accounts).unwrap_or_default()),
            retries,
            is_of_none: false,
            is_paused,
        }
    }

    /// What comes of a failure that is no issuer's: nobody was asked. It is not stored, since it
    /// costs nobody anything to meet it again.
    pub(super) fn failed_by_itself(&self, failure: Failure, tools: &Tools) -> Outcome {
        let first = self.issuers.first();
        Outcome::Failed {
            retry: Box::new(self.retry_after(self.retry.as_ref(), &failure, None, tools)),
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
        tools: &Tools,
    ) -> Retry {
        let life = self.present.as_deref().map(TlsCertificate::lifetime);
        let (now, rng) = (tools.clock.now(), &mut fastrand::Rng::new());
        Retry::after(previous, failure, issuer, life.as_ref(), now, rng)
    }

    /// Keeps failures, by the accounts that they happened with.
    async fn keep(&self, new: Vec<(String, Retry)>, lease: &Arc<Lease>, tools: &Tools) {
        let (lease, subject) = (Arc::clone(lease), self.subject.clone());
        let kept = blocking(&tools.storage, move |storage| {
            for (account, retry) in new {
                stored::store_retry(storage, &lease, &account, &subject, &retry)?;
            }
            Ok(())
        });
        self.note_kept(kept.await, tools);
    }

    /// Forgets the failures with all issuers that could be asked.
    pub(super) async fn forget_failures(&self, lease: &Arc<Lease>, tools: &Tools) {
        let (lease, subject) = (Arc::clone(lease), self.subject.clone());
        let accounts: Vec<_> = self.issuers.iter().map(Authority::account_id).collect();
        let kept = blocking(&tools.storage, move |storage| {
            stored::forget_retries(storage, &lease, &accounts, &subject)
        });
        self.note_kept(kept.await, tools);
    }

    fn note_kept(&self, kept: Result<(), StorageError>, tools: &Tools) {
        match kept {
            Ok(()) => tools.health.works(Use::Writing),
            // The peer that took over keeps its own.
            Err(StorageError::Lost { .. }) => {}
            Err(error) => tools.health.failed(Use::Writing, &error),
        }
    }
}
