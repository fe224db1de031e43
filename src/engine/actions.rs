//! What a person does to certificates and accounts, besides what happens automatically.

use std::sync::Arc;

use super::{Engine, blocking};
use crate::issuer::{AccountFacts, AccountTask, RevocationReason};
use crate::renewal::ActionError;
use crate::schedule::{Failure, FailureClass};

impl Engine {
    /// Makes the certificate of `subject` (see [`crate::storage::keys::subject`]) due now, whatever
    /// its schedule says. Whether a CA is asked for any such certificate. Locks the manager.
    pub fn request_renewal(&self, subject: &str) -> bool {
        let is_known = self.lock().renewals_mut().request_renewal(subject);
        self.planned.notify_one();
        is_known
    }

    /// Revokes the certificate with this fingerprint, and has another one obtained in its place if
    /// the configuration asks for one. Whether a CA is asked for it.
    ///
    /// # Errors
    /// Why it is not revoked.
    pub async fn revoke(
        self: &Arc<Self>,
        fingerprint: String,
        reason: RevocationReason,
    ) -> Result<bool, ActionError> {
        let engine = Arc::clone(self);
        let planned = blocking(move || engine.lock().plan_revocation(&fingerprint, reason)).await;
        let revocation = planned.unwrap_or_else(interrupted)?;
        let outcome = revocation.run(&self.deps).await;
        outcome.map_err(ActionError::Failed)?;
        let engine = Arc::clone(self);
        let replaced = blocking(move || {
            let mut manager = engine.lock();
            let is_asked = manager.replace_revoked(&revocation);
            manager.publish_map();
            is_asked
        });
        let is_asked = replaced.await.unwrap_or_else(interrupted);
        self.planned.notify_one();
        is_asked
    }

    /// Carries out a task on the account of an issuer.
    ///
    /// # Errors
    /// Why the account is as before.
    pub async fn run_account_task(
        self: &Arc<Self>,
        issuer: String,
        task: &AccountTask,
    ) -> Result<AccountFacts, ActionError> {
        let engine = Arc::clone(self);
        let issuer = blocking(move || engine.lock().acme_issuer(&issuer)).await;
        let issuer = issuer.unwrap_or_else(interrupted)?;
        issuer.account(task).await.map_err(ActionError::Failed)
    }
}

fn interrupted<T>() -> Result<T, ActionError> {
    let failure = Failure::new(
        FailureClass::Internal,
        "it was interrupted by a bug. See the log",
    );
    Err(ActionError::Failed(failure))
}
