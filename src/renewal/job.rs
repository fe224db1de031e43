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
    /// The failures so far, of all accounts together.
    pub(super) retry: Option<Retry>,
    /// The same by the accounts that they happened with.
    pub(super) retries: Retries,
    /// Whether a person asked for it: then no back-off counts.
    pub(super) is_asked: bool,
    /// The CA's advice, where that is why it is renewed.
    pub(super) advised: Option<Window>,
    /// Whether an order names the certificate that it replaces.
    pub(super) tells_replaced: bool,
    /// The certificate to be replaced.
    pub(super) present: Option<Arc<TlsCertificate>>,
    /// Whether there is one at all, even of a CA that is no longer configured.
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

/// Stands for a certificate that is being worked on. If it is dropped without a result, the manager
/// learns that the job was abandoned.
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

    /// `None` while no issuer is asked.
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

/// An issuer to ask for a certificate.
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

/// The result of a [`Job`].
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
    /// An issuer has issued one.
    Issued {
        certificate: Arc<TlsCertificate>,
        issuer: Arc<str>,
    },
    /// Another instance has stored one.
    Found(Arc<TlsCertificate>),
    /// Another instance is working on it.
    Elsewhere,
    /// The storage cannot be read, and why: no issuer was asked.
    Unread(String),
    /// The name is no longer allowed: no issuer was asked.
    Unwanted,
    /// No issuer was asked: another instance has just failed, or each CA limits it.
    Deferred {
        /// The failures that are known by now.
        retries: Retries,
        /// When the limit ends that an issuer has hit.
        until: Option<UnixTime>,
    },
    Failed {
        failure: Failure,
        issuer: Arc<str>,
        /// The failures that are known after it, as stored.
        retries: Retries,
        /// The same for all issuers together.
        retry: Box<Retry>,
        /// Whether no issuer was asked, so that it belongs to none.
        is_of_none: bool,
        /// Whether an issuer has paused: it is not to be asked before a person has acted.
        is_paused: bool,
    },
}
