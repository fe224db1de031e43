//! Replaces the key of an account (RFC 8555, section 7.3.5).
//!
//! The new key is stored beside the old one before the CA hears of it. Wherever this breaks off,
//! whoever uses the account next asks the CA which of the two it knows.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::LOCATION;
use instant_acme::Error;
use openssl::pkey::{PKey, Private};
use serde_json::json;

use super::super::client::AcmeClient;
use super::super::error::{self, Step};
use super::super::jws::{Signer, jwk, jws, post_jws};
use super::super::key;
use super::record::AccountRecord;
use super::{Account, AccountCtx, Accounts};
use crate::config::model::KeyType;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, StorageError};

/// How long is waited for the orders under way, which would fail.
const QUIET: Duration = Duration::from_secs(60);

impl Accounts {
    /// Gives the account another key.
    ///
    /// # Errors
    /// Where there is no account, or the CA does not take the key. Where it is not known whether
    /// it did, that is found out when the account is next used.
    pub(super) async fn roll_over_key(&self, ctx: AccountCtx<'_>) -> Result<Arc<Account>, Failure> {
        if ctx.client.directory().key_change.is_none() {
            let message = format!("{} does not support changing an account's key", ctx.ca.host);
            return Err(Failure::new(FailureClass::Configuration, message));
        }
        let place = self.storage_key(ctx.ca, ctx.config).await?;
        let known = self.known_account(&place);
        let _quiet = tokio::time::timeout(QUIET, known.in_use.write())
            .await
            .map_err(|_| {
                let message = format!(
                    "pending orders at {} need the current key; try again when they have finished",
                    ctx.ca.host
                );
                Failure::new(FailureClass::Storage, message)
            })?;
        let (_lease, mut stored) = self.run_task(ctx, &place).await?;
        let new = key::generate(KeyType::P256).map_err(|error| broken(&error))?;
        stored.propose_key(&new).map_err(|error| broken(&error))?;
        let written = self.write_record(&stored, &place).await;
        written.map_err(|error| {
            unwritten(&error, "the CA was not asked, and the old key stays in use")
        })?;
        let changed = post_key_change(ctx.client, &stored, &new).await;
        let failure = changed.err().map(|error| self.failed(ctx, &error));
        if let Some(failure) = failure {
            if is_refused(ctx.client) {
                stored.settle_key(false);
                // Else it is found out at the next use.
                let _ = self.write_record(&stored, &place).await;
            }
            return Err(failure);
        }
        stored.settle_key(true);
        let written = self.write_record(&stored, &place).await;
        known.account.invalidate_if(|_| true).await;
        let both = "the CA has accepted it, and the gateway will notice at the next use";
        written.map_err(|error| unwritten(&error, both))?;
        tracing::info!(ca = ctx.ca.host, "changed the account's key");
        Ok(Account::new(stored, &place, true))
    }

    /// What is stored, once it is known which key the CA knows, and stored again where that was
    /// open. To be called under the accounts' lock.
    pub(super) async fn settle_key(
        &self,
        mut stored: AccountRecord,
        ctx: AccountCtx<'_>,
        place: &Key,
    ) -> Result<AccountRecord, Failure> {
        if !stored.is_unsettled() {
            return Ok(stored);
        }
        let is_taken = match stored.next_key() {
            Some(next) => self.is_known_by(ctx, &stored, next).await?,
            None => false,
        };
        stored.settle_key(is_taken);
        let which = if is_taken { "new" } else { "old" };
        tracing::info!(
            ca = ctx.ca.host,
            "a change of the account's key was interrupted; the {which} key stays in use"
        );
        let written = self.write_record(&stored, place).await;
        written.map_err(|error| unwritten(&error, "both keys are kept until it can be"))?;
        Ok(stored)
    }

    /// Whether the CA knows the account by this key (section 7.3.1).
    async fn is_known_by(
        &self,
        ctx: AccountCtx<'_>,
        stored: &AccountRecord,
        key: PKey<Private>,
    ) -> Result<bool, Failure> {
        let url = &ctx.client.directory().new_account;
        let payload = json!({ "onlyReturnExisting": true });
        let signer = Signer::Certificate(key);
        match post_jws(ctx.client, &signer, url, Some(&payload)).await {
            Ok(reply) => {
                let location = reply.headers().get(LOCATION);
                let location = location.and_then(|location| location.to_str().ok());
                Ok(location.is_some() && location == stored.url())
            }
            Err(error) if error::is_account_lost(&error, ctx.client) => Ok(false),
            Err(error) => Err(self.failed(ctx, &error)),
        }
    }

    fn failed(&self, ctx: AccountCtx<'_>, error: &Error) -> Failure {
        let (host, now) = (&ctx.ca.host, self.clock.now());
        error::failure_of(host, Step::KeyChange, error, ctx.client, &[], now)
    }
}

async fn post_key_change(
    client: &AcmeClient,
    stored: &AccountRecord,
    new: &PKey<Private>,
) -> Result<(), Error> {
    let Some(url) = client.directory().key_change.clone() else {
        return Err(Error::Unsupported("changing the key of an account"));
    };
    let signer = stored.signer()?;
    let inner = json!({ "account": stored.url(), "oldKey": jwk(signer.key())? });
    let inner = jws(&Signer::Certificate(new.clone()), &url, None, Some(&inner))?;
    post_jws(client, &signer, &url, Some(&inner))
        .await
        .map(drop)
}

/// Whether the CA has said no, so that the old key stays.
fn is_refused(client: &AcmeClient) -> bool {
    client.refusal().is_some_and(|refusal| {
        refusal.status.is_client_error() && refusal.status != StatusCode::REQUEST_TIMEOUT
    })
}

fn unwritten(error: &StorageError, then: &str) -> Failure {
    let message = format!("cannot store the account's new key: {error}; {then}");
    Failure::new(FailureClass::Storage, message)
}

fn broken(error: &openssl::error::ErrorStack) -> Failure {
    let message = format!("cannot create a key: {error}; please report this");
    Failure::new(FailureClass::Internal, message)
}
