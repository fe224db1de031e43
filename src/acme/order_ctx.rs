//! What the steps of an order share, and how they fail.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use instant_acme::{Account as AcmeAccount, Error};

use super::AcmeIssuer;
use super::account::Account;
use super::ca::Ca;
use super::client::AcmeClient;
use super::error::{self, Step};
use super::problem::Problem;
use super::solvers::Solvers;
use crate::challenge::ChallengeType;
use crate::clock::UnixTime;
use crate::event::{EventKind, Severity};
use crate::issuer::Request;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, keys};

/// The context of one certificate's order.
pub(super) struct OrderCtx<'a> {
    pub(super) issuer: &'a AcmeIssuer,
    pub(super) ca: &'a Ca,
    pub(super) request: &'a Request,
    pub(super) client: &'a AcmeClient,
    pub(super) account: AcmeAccount,
    /// The same account as stored, with its key.
    pub(super) stored_account: Arc<Account>,
    /// The solvers for its names.
    pub(super) solvers: Solvers,
    /// Where the order is stored.
    pub(super) order_key: Key,
    /// Whether the last order requested names the certificate that it replaces.
    pub(super) replaces: &'a AtomicBool,
}

/// Why an order cannot be completed.
pub(super) enum OrderError {
    /// The CA does not know the account.
    AccountLost,
    /// Validation failed for some names.
    ChallengesFailed(Vec<FailedChallenge>),
    Failed(Failure),
    /// Our own rate limiter lets nothing through. The CA was not asked.
    Held(Failure),
}

impl From<Failure> for OrderError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A name that failed validation.
pub(super) struct FailedChallenge {
    pub(super) name: String,
    /// The type of challenge; `None` if the CA does not say.
    pub(super) kind: Option<ChallengeType>,
    pub(super) problem: Problem,
}

/// Types of challenge that have failed for a name.
pub(super) type TriedChallenges = HashSet<(String, ChallengeType)>;

impl<'a> OrderCtx<'a> {
    /// Opens the account for an order.
    ///
    /// # Errors
    /// If the stored account cannot be used.
    pub(super) async fn prepare(
        issuer: &'a AcmeIssuer,
        ca: &'a Ca,
        request: &'a Request,
        client: &'a AcmeClient,
        account: &Arc<Account>,
        replaces: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let now = issuer.shared.clock.now();
        let opened = account.open(client).await.map_err(|error| {
            error::failure_of(&ca.host, Step::Account, &error, client, &request.names, now)
        })?;
        let place = keys::order(&ca.key, &request.subject)
            .map_err(|error| Failure::new(FailureClass::Internal, error.to_string()))?;
        let mut job = Self {
            issuer,
            ca,
            request,
            client,
            account: opened,
            stored_account: Arc::clone(account),
            solvers: Solvers::of(issuer, request.dns.as_deref()),
            order_key: place,
            replaces,
        };
        if job.is_rehearsal() {
            // The record would name an account, and the one at a staging environment is another.
            job.solvers.exclude(ChallengeType::DnsPersist01);
        }
        Ok(job)
    }

    /// Returns true if this order is at the staging environment.
    pub(super) fn is_rehearsal(&self) -> bool {
        !std::ptr::eq(self.ca, &raw const self.issuer.ca)
    }

    pub(super) fn now(&self) -> UnixTime {
        self.issuer.shared.clock.now()
    }

    /// What an error of instant-acme means.
    pub(super) fn to_error(&self, step: Step, error: &Error) -> OrderError {
        if error::is_account_lost(error, self.client) {
            return OrderError::AccountLost;
        }
        let (host, names) = (&self.ca.host, &self.request.names);
        let failure = error::failure_of(host, step, error, self.client, names, self.now());
        let problem = self.client.refusal().and_then(|refusal| refusal.problem);
        let kind = problem.as_ref().map_or("", Problem::kind);
        OrderError::Failed(self.mark_rehearsed(kind, failure))
    }

    /// Reclassifies a failure of a rehearsal: CAA records may name an account, and the one at a
    /// staging environment is another, so their refusal says nothing about the names.
    pub(super) fn mark_rehearsed(&self, kind: &str, failure: Failure) -> Failure {
        if kind == "caa" && self.is_rehearsal() {
            return Failure {
                class: FailureClass::Configuration,
                ..failure
            };
        }
        failure
    }

    /// Reports progress.
    pub(super) fn emit_progress(&self, message: String) {
        self.emit_event(EventKind::CertificateProgress, Severity::Info, message);
    }

    pub(super) fn emit_event(&self, kind: EventKind, severity: Severity, message: String) {
        self.issuer
            .emit_event(self.request, kind, severity, message);
    }

    /// Warns that a certificate will differ from the configured terms, but be valid.
    pub(super) fn emit_caution(&self, message: String) {
        tracing::warn!(domain = %self.request.domain(), "{message}");
        self.emit_progress(message);
    }
}

/// Returns true if a later attempt may resume the order.
pub(super) fn can_resume(stop: &OrderError) -> bool {
    match stop {
        OrderError::Failed(failure) => matches!(
            failure.class,
            FailureClass::Network | FailureClass::RateLimited | FailureClass::Storage
        ),
        // The order is intact, but the account or the limiter prevents progress for now.
        OrderError::AccountLost | OrderError::Held(_) => true,
        OrderError::ChallengesFailed(_) => false,
    }
}

/// An error that should be impossible.
pub(super) fn internal_error(error: &dyn std::error::Error) -> OrderError {
    let message =
        format!("cannot create a key or a certificate request: {error}; please report this");
    OrderError::Failed(Failure::new(FailureClass::Internal, message))
}
