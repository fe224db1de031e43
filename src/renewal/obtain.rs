//! Obtains one certificate: asks its issuers in turn, checks what they issue, stores it.
//!
//! [`Job::run`] runs beside the manager and does not touch it. Its result goes to
//! [`super::Renewals::apply_result`], and the manager alone decides what is served. Everything is
//! stored under the certificate's lock.

mod candidates;
mod check;
mod events;
mod failures;

use std::sync::Arc;

pub(super) use self::candidates::replaced_at;
pub(super) use self::check::covers;
use super::deps::Deps;
use super::job::{Job, JobIssuer, JobResult, Outcome};
use crate::cert_store::Use;
use crate::cert_store::{self, CertRecord, StoredError};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::event::Event;
use crate::issuer::{Issuer, Request};
use crate::schedule::{Failure, FailureClass, Retries, Retry};
use crate::storage::{Lease, StorageError, blocking, keys, release};

/// What the storage has of a certificate once its lock is held.
#[derive(Default)]
struct Stored {
    certificates: Vec<TlsCertificate>,
    retries: Retries,
}

impl Job {
    /// Obtains the certificate, or finds out why not.
    pub async fn run(self, deps: &Deps) -> JobResult {
        let outcome = match self.ask_policy(deps).await {
            Some(outcome) => outcome,
            None => self.obtain(deps).await,
        };
        JobResult {
            guard: self.guard,
            outcome,
        }
    }

    /// The outcome where the policy has to be asked first and says no. One that does not respond
    /// takes no certificate away, and gives none.
    async fn ask_policy(&self, deps: &Deps) -> Option<Outcome> {
        let policy = self.policy.as_ref()?;
        let name = self.guard.spec.on_demand_name()?;
        match policy.still_allows(name).await {
            Some(true) => None,
            Some(false) => Some(Outcome::Unwanted),
            None if self.has_one => None,
            None => {
                let why = "cannot tell whether it may have one: 'ask' does not respond";
                let failure = Failure::new(FailureClass::Network, why);
                Some(failures::failed_without_issuer(self, failure, deps))
            }
        }
    }

    /// The failure where a hook objects to asking CAs. A local CA needs nobody's leave.
    async fn ask_hook(
        &self,
        candidates: &[&JobIssuer],
        event: &Event,
        deps: &Deps,
    ) -> Option<Failure> {
        let mut candidates = candidates.iter();
        if !candidates.any(|candidate| matches!(candidate, JobIssuer::Remote(_))) {
            return None;
        }
        let hook = deps.hook.get()?;
        let why = hook.object(event, &self.guard.spec.names).await?;
        Some(Failure::new(FailureClass::Vetoed, why))
    }

    async fn obtain(&self, deps: &Deps) -> Outcome {
        let lease = match self.take_lease(deps).await {
            Ok(Some(lease)) => Arc::new(lease),
            Ok(None) => return Outcome::Elsewhere,
            Err(error) => {
                deps.health.record_failure(Use::Writing, &error);
                // If the storage says that it has no certificate, one that cannot be stored is
                // better than none.
                let lease = Arc::new(Lease::unstored());
                if self.can_wait(deps.clock.now()) {
                    let failure = Failure::new(FailureClass::Storage, error.to_string());
                    return failures::failed_without_issuer(self, failure, deps);
                }
                lease
            }
        };
        let outcome = self.obtain_under(&lease, deps).await;
        release(&deps.storage, lease).await;
        outcome
    }

    async fn obtain_under(&self, lease: &Arc<Lease>, deps: &Deps) -> Outcome {
        let now = deps.clock.now();
        let stored = match self.load_stored(deps).await {
            Ok(stored) => stored,
            Err(error) => {
                deps.health.record_failure(Use::Reading, &error);
                // Another instance may have stored one, or this one before a restart. A certificate
                // that expires soon is renewed all the same.
                if self.present.is_none() || self.can_wait(now) {
                    return Outcome::Unread(error.to_string());
                }
                Stored::default()
            }
        };
        // Failures of other instances count as much as our own.
        let mut retries = self.retries.clone();
        retries.merge_from(stored.retries);
        if let Some(certificate) = self.newest(stored.certificates, now) {
            return Outcome::Found(Arc::new(certificate));
        }
        let candidates = candidates::candidates(self, &retries, deps.clock.now()).await;
        if candidates.is_empty() && !self.issuers.is_empty() {
            return Outcome::Deferred {
                retries,
                until: None,
            };
        }
        let event = events::obtaining(self, &candidates, deps);
        if let Some(failure) = self.ask_hook(&candidates, &event, deps).await {
            return failures::failed_without_issuer(self, failure, deps);
        }
        deps.events.emit(event);
        let mut failures: Vec<(&JobIssuer, Failure)> = Vec::new();
        let mut until = None;
        for (place, job_issuer) in candidates.into_iter().enumerate() {
            // Another order may have hit a limit while the issuer before was asked.
            if place > 0 && candidates::is_held(self, job_issuer, deps.clock.now()) {
                continue;
            }
            self.guard.current_issuer.set(Some(job_issuer.name()));
            let asked = self.order_from(job_issuer, &retries, lease, deps).await;
            self.guard.current_issuer.set(None);
            match asked {
                Ok(outcome) => {
                    for (failed, failure) in failures {
                        events::emit_replaced(
                            self,
                            deps,
                            failed.name(),
                            job_issuer.name(),
                            &failure,
                        );
                    }
                    return outcome;
                }
                // The CA was not asked.
                Err(Failure {
                    held: Some(wait), ..
                }) => until = until.into_iter().chain([wait.until]).min(),
                Err(failure) => failures.push((job_issuer, failure)),
            }
        }
        if failures.is_empty() && !self.issuers.is_empty() {
            return Outcome::Deferred { retries, until };
        }
        failures::record_failures(self, failures, retries, lease, deps).await
    }

    /// Whether the renewal can wait without harm.
    fn can_wait(&self, now: UnixTime) -> bool {
        let present = self.present.as_ref();
        present.is_some_and(|present| !present.is_due(self.window / 2.0, now))
    }

    async fn take_lease(&self, deps: &Deps) -> Result<Option<Lease>, StorageError> {
        let key = keys::lock(&self.subject)?;
        blocking(&deps.storage, move |storage| storage.try_lock(&key)).await
    }

    /// Loads what the storage has: another instance may have stored it, or this one before it was
    /// killed.
    async fn load_stored(&self, deps: &Deps) -> Result<Stored, StorageError> {
        let (loader, subject) = (Arc::clone(&deps.loader), self.subject.clone());
        let names = self.guard.spec.names.clone();
        let issuers: Vec<_> = self
            .issuers
            .iter()
            .filter_map(|job_issuer| match job_issuer {
                JobIssuer::Remote(issuer) => Some(Arc::clone(issuer)),
                JobIssuer::Local(_) => None,
            })
            .collect();
        let hold = deps.clone();
        let looked = blocking(&deps.storage, move |storage| {
            let mut stored = Stored {
                retries: cert_store::load_retries(storage, &subject, &issuers)?,
                ..Stored::default()
            };
            for issuer in issuers {
                let place = (&*subject, &*names);
                match cert_store::find_certificate(
                    storage,
                    &loader,
                    issuer.ca(),
                    place,
                    issuer.name(),
                ) {
                    Ok(found) => {
                        let held =
                            |(one, at): (_, String)| hold.place_in_memory(one, issuer.ca(), &at);
                        stored.certificates.extend(found.map(held));
                    }
                    // It is about to be replaced.
                    Err(StoredError::Damaged { .. }) => {}
                    Err(StoredError::Storage(error)) => return Err(error),
                }
            }
            Ok(stored)
        });
        let stored = looked.await?;
        deps.health.record_success(Use::Reading);
        Ok(stored)
    }

    /// One of `stored` that is better than the present certificate.
    fn newest(&self, stored: Vec<TlsCertificate>, now: UnixTime) -> Option<TlsCertificate> {
        let end = self.present.as_ref().map(|present| present.not_after());
        stored.into_iter().find(|stored| {
            covers(stored, &self.guard.spec.names)
                && stored.validity(now) == Validity::Valid
                && !stored.is_due(self.window, now)
                && (end.is_none_or(|end| stored.not_after() > end) || self.takes_the_place(stored))
        })
    }

    /// Whether another instance has stored this in place of the present one, which was revoked.
    fn takes_the_place(&self, stored: &TlsCertificate) -> bool {
        let mut present = self.present.iter().filter(|_| self.is_revoked);
        present.any(|present| present.fingerprint() != stored.fingerprint())
    }

    async fn order_from(
        &self,
        job_issuer: &JobIssuer,
        retries: &Retries,
        lease: &Arc<Lease>,
        deps: &Deps,
    ) -> Result<Outcome, Failure> {
        let names = &self.guard.spec.names;
        let certificate = match job_issuer {
            JobIssuer::Local(ca) => {
                // This does no I/O and takes a fraction of a millisecond.
                let made = ca.issue(names);
                made.map_err(|error| internal_failure(job_issuer, &error))?
            }
            JobIssuer::Remote(issuer) => {
                let previous_key = check::previous_key(self, deps).await;
                let request = Request {
                    names: names.clone(),
                    subject: self.subject.clone(),
                    failures: retries.get(issuer.account_id()).map_or(0, count_telling),
                    failed_validations: retries
                        .get(issuer.account_id())
                        .map_or(0, |retry| retry.failed_validations(deps.clock.now())),
                    is_asked: self.is_asked,
                    previous_key,
                    replaces: candidates::replaced(self, issuer, deps.clock.now()),
                    dns: self.guard.spec.dns.clone(),
                    lease: Arc::clone(lease),
                };
                let issued = issuer.issue(&request).await?;
                let certificate = match check::check_issued(self, issuer, &issued, deps).await {
                    Ok(certificate) => certificate,
                    Err(failure) => {
                        issuer.on_rejected(&request, &failure).await;
                        return Err(failure);
                    }
                };
                if self
                    .store_certificate(issuer, &certificate, lease, deps)
                    .await
                {
                    issuer.on_stored(&request).await;
                    deps.place_in_memory(certificate, issuer.ca(), &self.subject)
                } else {
                    certificate
                }
            }
        };
        if self.retry.is_some() || *retries != Retries::default() {
            failures::forget_failures(self, lease, deps).await;
        }
        Ok(Outcome::Issued {
            certificate: Arc::new(certificate),
            issuer: Arc::clone(job_issuer.name()),
        })
    }

    /// Stores a new certificate, now or as soon as possible. Whether it is stored.
    async fn store_certificate(
        &self,
        issuer: &Arc<dyn Issuer>,
        certificate: &TlsCertificate,
        lease: &Arc<Lease>,
        deps: &Deps,
    ) -> bool {
        let now = deps.clock.now();
        let encoded =
            CertRecord::encode(certificate, issuer.ca(), &self.subject, issuer.name(), now);
        let record = match encoded {
            Ok(record) => Arc::new(record),
            Err(error) => {
                tracing::error!(domain = %self.domain(), %error, "cannot store a certificate");
                return false;
            }
        };
        // Queued first, so that it gets stored even if this fails.
        let (name, late) = (
            cert_store::pending_name(issuer.ca(), &self.subject),
            Arc::clone(&record),
        );
        let lock = self.subject.clone();
        deps.pending_writes.put_write(&name, move |storage| {
            match storage.try_lock(&keys::lock(&lock)?)? {
                Some(lease) => late.store_late(storage, &lease).map(|()| true),
                None => Ok(false),
            }
        });
        let lease = Arc::clone(lease);
        let stored = blocking(&deps.storage, move |storage| record.store(storage, &lease));
        match stored.await {
            Ok(()) => {
                deps.pending_writes.forget_write(&name);
                deps.health.record_success(Use::Writing);
                true
            }
            Err(error @ StorageError::Lost { .. }) => {
                // The instance that took over stores its own.
                deps.pending_writes.forget_write(&name);
                tracing::warn!(domain = %self.domain(), %error, "cannot store a new certificate");
                false
            }
            Err(error) => {
                deps.health.record_failure(Use::Writing, &error);
                false
            }
        }
    }
}

/// How many of the failures say something about the certificate, and not about a passing trouble.
fn count_telling(retry: &Retry) -> u32 {
    let passing = [
        FailureClass::RateLimited,
        FailureClass::Storage,
        FailureClass::Clock,
    ];
    let classes = retry.classes.iter();
    let telling = classes.filter(|(class, _)| !passing.contains(class));
    telling.map(|(_, count)| count).sum()
}

fn internal_failure(issuer: &JobIssuer, error: &dyn std::fmt::Display) -> Failure {
    let message = format!("issuer {}: {error}", issuer.name());
    Failure::new(FailureClass::Internal, message)
}
