//! Work on one certificate: ask its issuers in turn, check what comes, store it.
//!
//! [`Job::work`] runs beside the manager and touches nothing of it; what came of it is handed back
//! to [`super::TlsManager::settle`], which alone decides what is served. All that is stored is
//! stored under the certificate's lock.

mod check;
mod tell;
mod verdict;
mod wanted;

use std::sync::Arc;

pub(super) use self::check::covers;
use super::health::Use;
use super::job::{Authority, Done, Job, Outcome, Tools, waiting};
use super::stored::{self, Parcel, StoredError};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::issuer::{Issuer, Request};
use crate::schedule::{Failure, FailureClass, Hold, Retry};
use crate::storage::{Lease, Storage, StorageError, blocking, keys};

/// What the storage has of a certificate once its lock is held.
#[derive(Default)]
struct Shelf {
    certificates: Vec<TlsCertificate>,
    retry: Option<Retry>,
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
                    return self
                        .failed(vec![(&self.first(), failure)], &lease, tools)
                        .await;
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
        let peers = shelf.retry.filter(|stored| {
            let own = self.retry.as_ref();
            own.is_none_or(|own| stored.last > own.last)
        });
        if let Some(certificate) = self.newest(shelf.certificates, now) {
            return Outcome::Found(Arc::new(certificate));
        }
        if let Some(retry) = &peers
            && !self.is_asked
            && retry.next.is_none_or(|next| next > now)
        {
            return Outcome::BackedOff(retry.clone());
        }
        let mut failures = Vec::new();
        let mut is_told = false;
        for (place, authority) in self.issuers.iter().enumerate() {
            // The first has said yes before this began.
            if place > 0 && self.is_held(authority) {
                continue;
            }
            if !is_told {
                self.tell_of_begin(tools);
                is_told = true;
            }
            match self.ask(authority, lease, tools).await {
                Ok(outcome) => {
                    for (issuer, failure) in failures {
                        self.tell_of_failed(tools, issuer, authority.name(), &failure);
                    }
                    return outcome;
                }
                Err(failure) => failures.push((authority.name(), failure)),
            }
        }
        self.failed(failures, lease, tools).await
    }

    /// Whether a limit of the CA stands against asking; our own pace is waited for.
    fn is_held(&self, authority: &Authority) -> bool {
        let Authority::Remote(issuer) = authority else {
            return false;
        };
        let wait = issuer.ready(&self.ticket.need.names).err();
        wait.is_some_and(|wait| wait.hold != Hold::Pace)
    }

    /// What is known after these failures, which is stored before anybody learns of it: a restart
    /// must not forget what others know.
    async fn failed(
        &self,
        failures: Vec<(&Arc<str>, Failure)>,
        lease: &Arc<Lease>,
        tools: &Tools,
    ) -> Outcome {
        let is_paused = |failure: &Failure| failure.class == FailureClass::Paused;
        let paused = failures.iter().filter(|(_, failure)| is_paused(failure));
        let paused = paused.map(|(issuer, _)| Arc::clone(issuer)).collect();
        let (issuer, failure) = verdict::sum(failures);
        let life = self.present.as_deref().map(TlsCertificate::lifetime);
        let retry = Retry::after(
            self.retry.as_ref(),
            &failure,
            Some(&issuer),
            life.as_ref(),
            tools.clock.now(),
            &mut fastrand::Rng::new(),
        );
        self.keep(Some(retry.clone()), lease, tools).await;
        Outcome::Failed {
            failure,
            issuer,
            retry,
            paused,
        }
    }

    /// Keeps, or with `None` forgets, the failures.
    async fn keep(&self, retry: Option<Retry>, lease: &Arc<Lease>, tools: &Tools) {
        let (lease, subject) = (Arc::clone(lease), self.subject.clone());
        let kept = blocking(&tools.storage, move |storage| {
            stored::store_retry(storage, &lease, &subject, retry.as_ref())
        });
        match kept.await {
            Ok(()) => tools.health.works(Use::Writing),
            // The peer that took over keeps its own.
            Err(StorageError::Lost { .. }) => {}
            Err(error) => tools.health.failed(Use::Writing, &error),
        }
    }

    /// Whether it does no harm to leave the certificate as it is for now.
    fn can_wait(&self, now: UnixTime) -> bool {
        let present = self.present.as_ref();
        present.is_some_and(|present| !present.is_due(self.window / 2.0, now))
    }

    fn first(&self) -> Arc<str> {
        let first = self
            .issuers
            .first()
            .map(|authority| Arc::clone(authority.name()));
        first.unwrap_or_else(|| "".into())
    }

    async fn lease(&self, tools: &Tools) -> Result<Option<Lease>, StorageError> {
        let key = keys::lock(&self.subject)?;
        blocking(&tools.storage, move |storage| storage.try_lock(&key)).await
    }

    /// What the storage has: a peer may have been at work, or this instance before it was killed.
    async fn look(&self, tools: &Tools) -> Result<Shelf, StorageError> {
        let (loader, subject) = (Arc::clone(&tools.loader), self.subject.clone());
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
                retry: stored::load_retry(storage, &subject)?,
                ..Shelf::default()
            };
            for issuer in issuers {
                match stored::load(storage, &loader, issuer.ca(), &subject, issuer.name()) {
                    Ok(certificate) => {
                        let held = |one| hold.hold(one, issuer.ca(), &subject);
                        shelf.certificates.extend(certificate.map(held));
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
                    failures: self.retry.as_ref().map_or(0, telling),
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
        if self.retry.is_some() {
            self.keep(None, lease, tools).await;
        }
        Ok(Outcome::Issued {
            certificate: Arc::new(certificate),
            issuer: Arc::clone(authority.name()),
        })
    }

    /// How `issuer` knows the certificate to be replaced, where it is of the same and still counts.
    fn replaces(&self, issuer: &Arc<dyn Issuer>, now: UnixTime) -> Option<String> {
        let present = self.present.as_ref().filter(|_| self.tells_replaced)?;
        let is_same = present.source().label() == &**issuer.name();
        let counts = !self.is_revoked && present.validity(now) != Validity::Expired;
        (is_same && counts).then(|| present.renewal_id()).flatten()
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
        let (name, late) = (waiting(&self.subject), Arc::clone(&parcel));
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
