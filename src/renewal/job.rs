//! A job: the work on one certificate, on its way from the manager to a worker and back.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::host::HostName;
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::local_ca::LocalCa;
use crate::lock::MutexExt as _;
use crate::schedule::advice::Window;
use crate::schedule::{Failure, Retries, Retry};
use crate::storage::keys;

/// Asked before a renewal whether the name may still have a certificate.
#[async_trait]
pub trait RenewalPolicy: Send + Sync {
    /// Whether `name` may still have a certificate; `None` where that is not known now.
    async fn still_allows(&self, name: &HostName) -> Option<bool>;
}

/// A certificate to be obtained or renewed.
pub struct Job {
    pub(super) guard: JobGuard,
    pub(super) subject: String,
    pub(super) issuers: Vec<JobIssuer>,
    /// The failures before, all together.
    pub(super) retry: Option<Retry>,
    /// The same by the accounts that they happened with.
    pub(super) retries: Retries,
    /// Whether a person asked for it: then no back-off counts.
    pub(super) is_asked: bool,
    /// The CA's advice, where that is why it is renewed.
    pub(super) advised: Option<Window>,
    /// Whether the CA is told which certificate is to be replaced.
    pub(super) tells_replaced: bool,
    /// The certificate to be replaced.
    pub(super) present: Option<Arc<TlsCertificate>>,
    /// Whether there is any, be it of a CA that is no longer asked.
    pub(super) has_one: bool,
    /// Whether the one to be replaced was revoked: then its key is not used again.
    pub(super) is_revoked: bool,
    /// What to ask first whether the name is still allowed.
    pub(super) policy: Option<Arc<dyn RenewalPolicy>>,
    /// See [`crate::config::model::Renewal::window`].
    pub(super) window: f64,
}

impl Job {
    /// The first name, by which people know the certificate.
    pub fn domain(&self) -> String {
        self.guard.spec.domain()
    }
}

/// Stands for a certificate that is being worked on. Where it is lost before the manager has it
/// back, the manager learns of that.
pub(super) struct JobGuard {
    pub(super) spec: Arc<CertSpec>,
    pub(super) current_issuer: CurrentIssuer,
    abandoned: AbandonedJobs,
    is_open: bool,
}

/// Which issuer is being asked for a certificate now. A handle; clones share it.
#[derive(Clone, Default)]
pub(super) struct CurrentIssuer(Arc<Mutex<Option<Arc<str>>>>);

impl CurrentIssuer {
    pub(super) fn set(&self, issuer: Option<&Arc<str>>) {
        *self.0.lock_unpoisoned() = issuer.cloned();
    }

    /// `None` where nobody is being asked.
    pub(super) fn issuer(&self) -> Option<Arc<str>> {
        let asked = self.0.lock_unpoisoned();
        asked.clone()
    }
}

/// The specifications whose jobs ended without a result.
#[derive(Clone, Default)]
pub(super) struct AbandonedJobs(Arc<Mutex<Vec<Arc<CertSpec>>>>);

impl AbandonedJobs {
    /// A guard that is noted here when it is dropped without a result.
    pub(super) fn guard(&self, spec: &Arc<CertSpec>, current_issuer: &CurrentIssuer) -> JobGuard {
        JobGuard {
            spec: Arc::clone(spec),
            current_issuer: current_issuer.clone(),
            abandoned: self.clone(),
            is_open: true,
        }
    }

    /// What was abandoned since the last call.
    pub(super) fn take_all(&self) -> Vec<Arc<CertSpec>> {
        std::mem::take(&mut self.0.lock_unpoisoned())
    }
}

impl JobGuard {
    /// Ends the job with a result.
    pub(super) fn release(mut self) -> Arc<CertSpec> {
        self.is_open = false;
        Arc::clone(&self.spec)
    }
}

impl Drop for JobGuard {
    fn drop(&mut self) {
        self.current_issuer.set(None);
        if self.is_open {
            let mut abandoned = self.abandoned.0.lock_unpoisoned();
            abandoned.push(Arc::clone(&self.spec));
        }
    }
}

/// Whom to ask for a certificate.
#[derive(Clone)]
pub(super) enum JobIssuer {
    Remote(Arc<dyn Issuer>),
    Local(Arc<LocalCa>),
}

impl JobIssuer {
    pub(super) fn name(&self) -> &Arc<str> {
        match self {
            Self::Remote(issuer) => issuer.name(),
            Self::Local(ca) => ca.issuer(),
        }
    }

    /// See [`Issuer::account_id`].
    pub(super) fn account_id(&self) -> String {
        match self {
            Self::Remote(issuer) => issuer.account_id().to_owned(),
            Self::Local(ca) => keys::local_account(ca.issuer()),
        }
    }
}

/// What came of a [`Job`].
pub struct JobResult {
    pub(super) guard: JobGuard,
    pub(super) outcome: Outcome,
}

impl JobResult {
    /// The certificate that was worked on.
    pub(crate) fn spec(&self) -> &Arc<CertSpec> {
        &self.guard.spec
    }
}

pub(super) enum Outcome {
    /// There is a certificate.
    Issued {
        certificate: Arc<TlsCertificate>,
        issuer: Arc<str>,
    },
    /// Another instance has stored one.
    Found(Arc<TlsCertificate>),
    /// Another instance is at it.
    Elsewhere,
    /// The storage does not say what it has of it, and why not: nobody was asked.
    Unread(String),
    /// It is no longer wanted: nobody was asked for it.
    Unwanted,
    /// No issuer was asked: another instance has failed at it, or each CA limits it.
    Deferred {
        /// What is known of failures by now.
        retries: Retries,
        /// Until when the limit lasts that an issuer met.
        until: Option<UnixTime>,
    },
    Failed {
        failure: Failure,
        issuer: Arc<str>,
        /// What is known after it, as it was stored.
        retries: Retries,
        /// The same of all issuers together.
        retry: Box<Retry>,
        /// Whether no issuer was asked, so that it belongs to none.
        is_of_none: bool,
        /// Whether an issuer does not want to be asked again before somebody has acted.
        is_paused: bool,
    },
}
