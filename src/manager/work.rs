//! Work on one certificate: ask its issuers in turn, check what comes, store it.
//!
//! [`Job::work`] runs beside the manager and touches nothing of it; what came of it is handed back
//! to [`super::TlsManager::settle`], which alone decides what is served.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::health::Use;
use super::job::{Authority, Done, Job, Outcome, Tools};
use super::stored::{self, Parcel, StoredError};
use crate::certificate::{CertificateWarning, Source, TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::event::{Event, EventKind, Severity};
use crate::host::Pattern;
use crate::issuer::{Issued, Issuer, Request};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Lease, StorageError, keys};

impl Job {
    /// Obtains the certificate, or finds out why not.
    pub async fn work(self, tools: &Tools) -> Done {
        let outcome = self.carry_out(tools).await;
        Done {
            need: self.need,
            outcome,
        }
    }

    fn failed(&self, failure: Failure) -> Outcome {
        let issuer = self.issuers.first().map(Authority::name);
        Outcome::Failed {
            failure,
            issuer: issuer.cloned().unwrap_or_else(|| "".into()),
        }
    }

    async fn carry_out(&self, tools: &Tools) -> Outcome {
        let lease = match self.lease(tools).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Outcome::Elsewhere,
            Err(error) => {
                tools.health.failed(Use::Writing, &error);
                if self.can_wait(tools.clock.now()) {
                    return self.failed(Failure::new(FailureClass::Storage, error.to_string()));
                }
                // Better a certificate that is not kept than none.
                Lease::unstored()
            }
        };
        match self.newer(tools).await {
            Ok(Some(certificate)) => return Outcome::Found(Arc::new(certificate)),
            Ok(None) => {}
            Err(error) => tools.health.failed(Use::Reading, &error),
        }
        self.tell(tools, EventKind::CertificateObtaining, None, self.what());
        let lease = Arc::new(lease);
        let mut failures = Vec::new();
        for authority in &self.issuers {
            match self.ask(authority, &lease, tools).await {
                Ok(outcome) => {
                    for (issuer, failure) in failures {
                        self.tell_of_failed(tools, issuer, authority.name(), &failure);
                    }
                    return outcome;
                }
                Err(failure) => failures.push((authority.name(), failure)),
            }
        }
        let issuer = failures.first().map(|(issuer, _)| Arc::clone(issuer));
        Outcome::Failed {
            failure: sum(failures),
            issuer: issuer.unwrap_or_else(|| "".into()),
        }
    }

    /// Whether it does no harm to leave the certificate as it is for now.
    fn can_wait(&self, now: UnixTime) -> bool {
        self.present
            .as_ref()
            .is_some_and(|present| !present.is_due(self.window / 2.0, now))
    }

    async fn lease(&self, tools: &Tools) -> Result<Option<Lease>, StorageError> {
        let key = keys::lock(&self.subject)?;
        let storage = Arc::clone(&tools.storage);
        blocking(move || storage.try_lock(&key)).await?
    }

    /// A certificate in the storage that is better than the present one: a peer has been at work,
    /// or this instance before it was killed.
    async fn newer(&self, tools: &Tools) -> Result<Option<TlsCertificate>, StorageError> {
        let (storage, loader) = (Arc::clone(&tools.storage), Arc::clone(&tools.loader));
        let subject = self.subject.clone();
        let issuers: Vec<_> = self
            .issuers
            .iter()
            .filter_map(|authority| match authority {
                Authority::Remote(issuer) => Some(Arc::clone(issuer)),
                Authority::Local(_) => None,
            })
            .collect();
        let stored = blocking(move || {
            let mut found = Vec::new();
            for issuer in issuers {
                match stored::load(&*storage, &loader, issuer.ca(), &subject, issuer.name()) {
                    Ok(certificate) => found.extend(certificate),
                    // It is about to be replaced.
                    Err(StoredError::Damaged { .. }) => {}
                    Err(StoredError::Storage(error)) => return Err(error),
                }
            }
            Ok(found)
        });
        let now = tools.clock.now();
        let end = self.present.as_ref().map(|present| present.not_after());
        Ok(stored.await??.into_iter().find(|stored| {
            covers(stored, &self.need.names)
                && stored.validity(now) == Validity::Valid
                && !stored.is_due(self.window, now)
                && end.is_none_or(|end| stored.not_after() > end)
        }))
    }

    async fn ask(
        &self,
        authority: &Authority,
        lease: &Arc<Lease>,
        tools: &Tools,
    ) -> Result<Outcome, Failure> {
        match authority {
            Authority::Local(ca) => {
                let (ca, names) = (Arc::clone(ca), self.need.names.clone());
                let made = blocking(move || ca.issue(&names)).await;
                let issuer = Arc::clone(authority.name());
                match made.map_err(|error| internal(&issuer, &error))? {
                    Ok(certificate) => Ok(Outcome::Issued {
                        certificate: Arc::new(certificate),
                        issuer,
                        unsaved: None,
                    }),
                    Err(error) => Err(internal(&issuer, &error)),
                }
            }
            Authority::Remote(issuer) => {
                let previous_key = self.present.as_ref();
                let request = Request {
                    names: self.need.names.clone(),
                    subject: self.subject.clone(),
                    failures: self.failures,
                    previous_key: previous_key.and_then(|present| present.key_pem().ok()),
                    lease: Arc::clone(lease),
                };
                let issued = issuer.issue(&request).await?;
                let certificate = match self.check(issuer, &issued, tools) {
                    Ok(certificate) => certificate,
                    Err(failure) => {
                        issuer.refused(&request, &failure).await;
                        return Err(failure);
                    }
                };
                let unsaved = self.store(issuer, &certificate, lease, tools).await;
                if unsaved.is_none() {
                    issuer.settled(&request).await;
                }
                Ok(Outcome::Issued {
                    certificate: Arc::new(certificate),
                    issuer: Arc::clone(issuer.name()),
                    unsaved,
                })
            }
        }
    }

    /// Makes sure that what came is what was asked for, before anything is replaced by it.
    fn check(
        &self,
        issuer: &Arc<dyn Issuer>,
        issued: &Issued,
        tools: &Tools,
    ) -> Result<TlsCertificate, Failure> {
        let source = Source::Issuer(Arc::clone(issuer.name()));
        let mut pem = Zeroizing::new(issued.chain.clone());
        pem.extend_from_slice(b"\n");
        pem.extend_from_slice(&issued.key);
        let refuse = |why: String| {
            let message = format!(
                "the certificate for {} that {} issued cannot be used: {why}",
                self.domain(),
                issuer.name()
            );
            Failure::new(FailureClass::Internal, message)
        };
        let loaded = tools
            .loader
            .load(&pem, source)
            .map_err(|error| refuse(error.to_string()))?;
        let has = |fits: fn(&CertificateWarning) -> bool| loaded.warnings.iter().any(fits);
        if has(|one| matches!(one, CertificateWarning::Unrelated { .. }))
            && has(|one| matches!(one, CertificateWarning::Incomplete { .. }))
        {
            return Err(refuse(
                "its chain does not hang together: the certificate of its issuer is missing, and \
                 others are there"
                    .to_owned(),
            ));
        }
        for warning in &loaded.warnings {
            tracing::warn!(domain = %self.domain(), issuer = %issuer.name(), %warning, "issued");
        }
        let certificate = loaded.certificate;
        if !covers(&certificate, &self.need.names) {
            let names: Vec<_> = certificate
                .names()
                .iter()
                .map(ToString::to_string)
                .collect();
            return Err(refuse(format!("it is for {}", names.join(", "))));
        }
        certificate.lifetime().check_issued(tools.clock.now())?;
        Ok(certificate)
    }

    /// Stores a new certificate, and returns it packed where that fails.
    async fn store(
        &self,
        issuer: &Arc<dyn Issuer>,
        certificate: &TlsCertificate,
        lease: &Arc<Lease>,
        tools: &Tools,
    ) -> Option<Parcel> {
        let now = tools.clock.now();
        let packed = Parcel::pack(certificate, issuer.ca(), &self.subject, issuer.name(), now);
        let parcel = match packed {
            Ok(parcel) => parcel,
            Err(error) => {
                tracing::error!(domain = %self.domain(), %error, "a certificate cannot be stored");
                return None;
            }
        };
        let (storage, lease) = (Arc::clone(&tools.storage), Arc::clone(lease));
        let stored = blocking(move || match parcel.store(&*storage, &lease) {
            Ok(()) => Ok(()),
            Err(error) => Err((Box::new(parcel), error)),
        });
        match stored.await {
            Ok(Ok(())) => {
                tools.health.works(Use::Writing);
                None
            }
            Ok(Err((_, error @ StorageError::Lost { .. }))) => {
                // The peer that took over stores its own.
                tracing::warn!(domain = %self.domain(), %error, "a new certificate is not stored");
                None
            }
            Ok(Err((parcel, error))) => {
                tools.health.failed(Use::Writing, &error);
                Some(*parcel)
            }
            Err(error) => {
                tools.health.failed(Use::Writing, &error);
                None
            }
        }
    }

    fn what(&self) -> String {
        let issuers: Vec<_> = self.issuers.iter().map(|one| &**one.name()).collect();
        let verb = if self.present.is_some() {
            "renewing"
        } else {
            "obtaining"
        };
        format!(
            "{verb} the certificate for {} from {}",
            self.domain(),
            issuers.join(", else ")
        )
    }

    /// Tells that an issuer failed in whose place another gave the certificate.
    fn tell_of_failed(
        &self,
        tools: &Tools,
        issuer: &Arc<str>,
        instead: &Arc<str>,
        failure: &Failure,
    ) {
        let message = format!("{issuer} gave no certificate, {instead} did: {failure}");
        let (kind, severity) = (EventKind::CertificateFailed, Severity::Warning);
        let at = tools.clock.now();
        let mut event = Event::new(at, kind, severity, self.domain(), message);
        event.issuer = Some(Arc::clone(issuer));
        event.attempt = Some(self.failures.saturating_add(1));
        event.url.clone_from(&failure.url);
        tools.events.emit(event);
    }

    fn tell(&self, tools: &Tools, kind: EventKind, issuer: Option<Arc<str>>, message: String) {
        let at = tools.clock.now();
        let mut event = Event::new(at, kind, Severity::Info, self.domain(), message);
        event.issuer = issuer.or_else(|| self.issuers.first().map(|one| Arc::clone(one.name())));
        event.attempt = Some(self.failures.saturating_add(1));
        tools.events.emit(event);
    }
}

/// Whether `certificate` is for all of `names`, each as it stands.
pub(super) fn covers(certificate: &TlsCertificate, names: &[Pattern]) -> bool {
    names.iter().all(|name| certificate.names().contains(name))
}

/// The failures of all issuers as one, with the patience of the least patient.
fn sum(failures: Vec<(&Arc<str>, Failure)>) -> Failure {
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
    let soonest = failures
        .into_iter()
        .map(|(_, failure)| failure)
        .min_by_key(|failure| patience(failure.class));
    match soonest {
        Some(failure) => Failure { message, ..failure },
        None => Failure::new(FailureClass::Configuration, "no issuer can be asked"),
    }
}

/// Which of several failures of one attempt decides when the next is: the one that may be over
/// first.
fn patience(class: FailureClass) -> u8 {
    match class {
        FailureClass::Storage => 0,
        FailureClass::Network => 1,
        FailureClass::Validation => 2,
        FailureClass::Internal => 3,
        FailureClass::RateLimited | FailureClass::Clock => 4,
        FailureClass::Refused => 5,
        FailureClass::Configuration => 6,
        FailureClass::Paused => 7,
    }
}

fn internal(issuer: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureClass::Internal, format!("issuer {issuer}: {error}"))
}

/// Runs what blocks on the storage off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| StorageError::BrokeOff)
}
