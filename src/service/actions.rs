//! What a person does to certificates and accounts, beside what happens automatically.

use std::sync::Arc;

use super::blocking;
use super::state::GatewayState;
use crate::issuer::{AccountFacts, AccountTask, RevocationReason};
use crate::manager::ActionError;
use crate::schedule::{Failure, FailureClass};

impl GatewayState {
    /// Has the certificate with this fingerprint revoked, and another one obtained in its place
    /// where one is asked for. Whether a CA is asked.
    ///
    /// # Errors
    /// Why it is not revoked.
    pub async fn revoke(
        self: &Arc<Self>,
        fingerprint: String,
        reason: RevocationReason,
    ) -> Result<bool, ActionError> {
        let state = Arc::clone(self);
        let revoke =
            blocking(move || state.writer().manager.plan_revocation(&fingerprint, reason)).await;
        let revoke = revoke.unwrap_or_else(broke_off)?;
        revoke.run(self.deps()).await.map_err(ActionError::Failed)?;
        let state = Arc::clone(self);
        let replaced = blocking(move || {
            let mut writer = state.writer();
            let is_asked = writer.manager.replace_revoked(&revoke);
            state.publish_map(&state.current().config);
            is_asked
        });
        let is_asked = replaced.await.unwrap_or_else(broke_off);
        self.notify_plan();
        is_asked
    }

    /// Looks after the account of an issuer.
    ///
    /// # Errors
    /// Why it stands as before.
    pub async fn run_account_task(
        self: &Arc<Self>,
        issuer: String,
        task: &AccountTask,
    ) -> Result<AccountFacts, ActionError> {
        let state = Arc::clone(self);
        let ca = blocking(move || state.writer().manager.acme_issuer(&issuer)).await;
        let ca = ca.unwrap_or_else(broke_off)?;
        ca.account(task).await.map_err(ActionError::Failed)
    }
}

fn broke_off<T>() -> Result<T, ActionError> {
    let failure = Failure::new(
        FailureClass::Internal,
        "it was interrupted by a bug. See the log",
    );
    Err(ActionError::Failed(failure))
}
