//! Work on one certificate: ask its issuers in turn, check what comes, store it.
//!
//! [`Job::work`] runs beside the manager and touches nothing of it; what came of it is handed back
//! to [`super::TlsManager::settle`], which alone decides what is served. All that is stored is
//! stored under the certificate's lock.

mod candidates;
mod check;
mod failures;
mod tell;
mod verdict;
mod wanted;

use std::sync::Arc;

pub(super) use self::candidates::replaced_at;
pub(super) use self::check::covers;
use super::health::Use;
use super::job::{Authority, Done, Job, Outcome, Tools, waiting};
use super::stored::{self, Parcel, StoredError};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::issuer::{Issuer, Request};
use crate::schedule::{Failure, FailureClass, Retries, Retry};
use crate::storage::{Lease, Storage, StorageError, blocking, keys};

/// What the storage has of a certificate once its lock is held.
#[derive(Default)]
struct Shelf {
    certificates: Vec<TlsCertificate>,
    retries: Retries,
}

impl Job {
    /// Obtains the certificate, or finds out why not.
    pub async fn work(self, tools: &Tools) -> Done {
        let outcome = match self.unwanted(tools).await {
            Some(outcome) => outcome,
            None => self.carry_out(tools).await,
        };
        Done {
            ticket: self.ticket,
            outcome,
        }
    }

    async fn carry_out(&self, tools: &Tools) -> Outcome {
        let lease = match self.lease(tools).await {
            Ok(Some(lease)) => Arc::new(lease),
            Ok(None) => return Outcome::Elsewhere,
            Err(error) => {
                tools.health.failed(Use::Writing, &error);
                // Better a certificate that is not kept than none, where the storage says that it
                // has none.
                let lease = Arc::new(Lease::unstored());
                if self.can_wait(tools.clock.now()) {
                    let failure = Failure::new(FailureClass::Storage, error.to_string());
                    return self.failed_by_itself(failure, tools);
                }
                lease
            }
        };
        let outcome = self.carry_out_under(&lease, tools).await;
        // Its end is a matter of files too.
        let end = move |_: &dyn Storage| {
            drop(lease);
            Ok(())
        };
        let _ = blocking(&tools.storage, end).await;
        outcome
    }

    async fn carry_out_under(&self, lease: &Arc<Lease>, tools: &Tools) -> Outcome {
        let now = tools.clock.now();
        let shelf = match self.look(tools).await {
            Ok(shelf) => shelf,
            Err(error) => {
                tools.health.failed(Use::Reading, &error);
                // Another instance may have stored it, or this one before it was started again. What
                // is served and soon ends is renewed all the same.
                if self.present.is_none() || self.can_wait(now) {
                    return Outcome::Unread(error.to_string());
                }
                Shelf::default()
            }
        };
        // What another instance has failed at counts as much as what this one has.
        let mut retries = self.retries.clone();
        retries.learn(shelf.retries);
        if let Some(certificate) = self.newest(shelf.certificates, now) {
            return Outcome::Found(Arc::new(certificate));
        }
        let candidates = self.candidates(&retries, tools.clock.now()).await;
        if candidates.is_empty() && !self.issuers.is_empty() {
            return Outcome::PutOff {
                retries,
                until: None,
            };
        }
        self.tell_of_begin(&candidates, tools);
        let mut failures: Vec<(&Authority, Failure)> = Vec::new();
        let mut until = None;
        for (place, authority) in candidates.into_iter().enumerate() {
            // Another order may have met a limit while the one before was asked.
            if place > 0 && self.is_held(authority, tools.clock.now()) {
                continue;
            }
            self.ticket.asking.note(Some(authority.name()));
            let asked = self.ask(authority, &retries, lease, tools).await;
            self.ticket.asking.note(None);
            match asked {
                Ok(outcome) => {
                    for (failed, failure) in failures {
                        self.tell_of_failed(tools, failed.name(), authority.name(), &failure);
                    }
                    return outcome;
                }
                // The CA was not asked.
                Err(Failure {
                    held: Some(wait), ..
                }) => until = until.into_iter().chain([wait.until]).min(),
                Err(failure) => failures.push((authority, failure)),
            }
        }
        if failures.is_empty() && !self.issuers.is_empty() {
            return Outcome::PutOff { retries, until };
        }
        self.failed(failures, retries, lease, tools).await
    }

    /// Whether it does no harm to leave the certificate as it is for now.
    fn can_wait(&self, now: UnixTime) -> bool {
        let present = self.present.as_ref();
        present.is_some_and(|present| !present.is_due(self.window / 2.0, now))
    }

    async fn lease(&self, tools: &Tools) -> Result<Option<Lease>, StorageError> {
        let key = keys::lock(&self.subject)?;
        blocking(&tools.storage, move |storage| storage.try_lock(&key)).await
    }

    /// What the storage has: a peer may have been at work, or this instance before it was killed.
    async fn look(&self, tools: &Tools) -> Result<Shelf, StorageError> {
        let (loader, subject) = (Arc::clone(&tools.loader), self.subject.clone());
        let names = self.ticket.need.names.clone();
        let issuers: Vec<_> = self
            .issuers
            .iter()
            .filter_map(|authority| match authority {
                Authority::Remote(issuer) => Some(Arc::clone(issuer)),
                Authority::Local(_) => None,
            })
            .collect();
        let hold = tools.clone();
        let looked = blocking(&tools.storage, move |storage| {
            let mut shelf = Shelf {
                retries: stored::load_retries(storage, &subject, &issuers)?,
                ..Shelf::default()
            };
            for issuer in issuers {
                let place = (&*subject, &*names);
                match stored::find(storage, &loader, issuer.ca(), place, issuer.name()) {
                    Ok(found) => {
                        let held = |(one, at): (_, String)| hold.hold(one, issuer.ca(), &at);
                        shelf.certificates.extend(found.map(held));
                    }
                    // It is about to be replaced.
                    Err(StoredError::Damaged { .. }) => {}
                    Err(StoredError::Storage(error)) => return Err(error),
                }
            }
            Ok(shelf)
        });
        let shelf = looked.await?;
        tools.health.works(Use::Reading);
        Ok(shelf)
    }

    /// One of `stored` that is better than the present certificate.
    fn newest(&self, stored: Vec<TlsCertificate>, now: UnixTime) -> Option<TlsCertificate> {
        let end = self.present.as_ref().map(|present| present.not_after());
        stored.into_iter().find(|stored| {
            covers(stored, &self.ticket.need.names)
                && stored.validity(now) == Validity::Valid
                && !stored.is_due(self.window, now)
                && (end.is_none_or(|end| stored.not_after() > end) || self.takes_the_place(stored))
        })
    }

    /// Whether a peer has stored this in the place of the present one, which was revoked.
    fn takes_the_place(&self, stored: &TlsCertificate) -> bool {
        let mut present = self.present.iter().filter(|_| self.is_revoked);
        present.any(|present| present.fingerprint() != stored.fingerprint())
    }

    async fn ask(
        &self,
        authority: &Authority,
        retries: &Retries,
        lease: &Arc<Lease>,
        tools: &Tools,
    ) -> Result<Outcome, Failure> {
        let names = &self.ticket.need.names;
        let certificate = match authority {
            Authority::Local(ca) => {
                // No I/O, and a fraction of a millisecond.
                let made = ca.issue(names);
                made.map_err(|error| internal(authority, &error))?
            }
            Authority::Remote(issuer) => {
                let previous_key = self.previous_key(tools).await;
                let request = Request {
                    names: names.clone(),
                    subject: self.subject.clone(),
                    failures: retries.get(issuer.account_id()).map_or(0, telling),
                    failed_validations: retries
                        .get(issuer.account_id())
                        .map_or(0, |retry| retry.failed_validations(tools.clock.now())),
                    is_asked: self.is_asked,
                    previous_key,
                    replaces: self.replaces(issuer, tools.clock.now()),
                    dns: self.ticket.need.dns.clone(),
                    lease: Arc::clone(lease),
                };
                let issued = issuer.issue(&request).await?;
                let certificate = match self.check(issuer, &issued, tools).await {
                    Ok(certificate) => certificate,
                    Err(failure) => {
                        issuer.refused(&request, &failure).await;
                        return Err(failure);
                    }
                };
                if self.store(issuer, &certificate, lease, tools).await {
                    issuer.settled(&request).await;
                    tools.hold(certificate, issuer.ca(), &self.subject)
                } else {
                    certificate
                }
            }
        };
        if self.retry.is_some() || *retries != Retries::default() {
            self.forget_failures(lease, tools).await;
        }
        Ok(Outcome::Issued {
            certificate: Arc::new(certificate),
            issuer: Arc::clone(authority.name()),
        })
    }

    /// Stores a new certificate, now or as soon as that can be. Whether it is stored.
    async fn store(
        &self,
        issuer: &Arc<dyn Issuer>,
        certificate: &TlsCertificate,
        lease: &Arc<Lease>,
        tools: &Tools,
    ) -> bool {
        let now = tools.clock.now();
        let packed = Parcel::pack(certificate, issuer.ca(), &self.subject, issuer.name(), now);
        let parcel = match packed {
            Ok(parcel) => Arc::new(parcel),
            Err(error) => {
                tracing::error!(domain = %self.domain(), %error, "a certificate cannot be stored");
                return false;
            }
        };
        // First of all, so that it is there whatever becomes of this.
        let (name, late) = (waiting(issuer.ca(), &self.subject), Arc::clone(&parcel));
        let lock = self.subject.clone();
        tools.backlog.put(&name, move |storage| {
            match storage.try_lock(&keys::lock(&lock)?)? {
                Some(lease) => late.store_late(storage, &lease).map(|()| true),
                None => Ok(false),
            }
        });
        let lease = Arc::clone(lease);
        let stored = blocking(&tools.storage, move |storage| parcel.store(storage, &lease));
        match stored.await {
            Ok(()) => {
                tools.backlog.forget(&name);
                tools.health.works(Use::Writing);
                true
            }
            Err(error @ StorageError::Lost { .. }) => {
                // The peer that took over stores its own.
                tools.backlog.forget(&name);
                tracing::warn!(domain = %self.domain(), %error, "a new certificate is not stored");
                false
            }
            Err(error) => {
                tools.health.failed(Use::Writing, &error);
                false
            }
        }
    }
}

/// How many of the failures say something of the certificate, and not of a day on which nothing
/// worked.
fn telling(retry: &Retry) -> u32 {
    let passing = [
        FailureClass::RateLimited,
        FailureClass::Storage,
        FailureClass::Clock,
    ];
    let classes = retry.classes.iter();
    let telling = classes.filter(|(class, _)| !passing.contains(class));
    telling.map(|(_, count)| count).sum()
}

fn internal(issuer: &Authority, error: &dyn std::fmt::Display) -> Failure {
    let message = format!("issuer {}: {error}", issuer.name());
    Failure::new(FailureClass::Internal, message)
}
