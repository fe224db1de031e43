//! Replaces the key of an account (RFC 8555, section 7.3.5).
//!
//! The new key is stored beside the old one before the CA hears of it. Wherever this is
//! interrupted, the next use of the account asks the CA which of the two it knows.

use http::StatusCode;
use http::header::LOCATION;
use instant_acme::Error;
use openssl::pkey::{PKey, Private};
use serde_json::json;

use super::super::client::AcmeClient;
use super::super::error::{self, Step};
use super::super::jws::{Signer, jwk, jws, post_jws};
use super::super::key;
use super::AccountCtx;
use super::record::AccountRecord;
use super::store::AccountStore;
use crate::config::model::KeyType;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, StorageError};

/// Has the CA accept a new key for the account. The record is settled with the new key then (see
/// [`AccountRecord::settle_key`]), but not stored yet. Called under the accounts' lock.
///
/// # Errors
/// If the CA does not accept the key. If it is unknown whether it did, the next use of the account
/// finds out.
pub(super) async fn change_key(
    store: &AccountStore,
    ctx: AccountCtx<'_>,
    stored: &mut AccountRecord,
    place: &Key,
) -> Result<(), Failure> {
    let new = key::generate(KeyType::P256).map_err(|error| broken(&error))?;
    stored.propose_key(&new).map_err(|error| broken(&error))?;
    let written = store.write(stored, place).await;
    written
        .map_err(|error| unwritten(&error, "the CA was not asked, and the old key stays in use"))?;
    if let Err(error) = post_key_change(ctx.client, stored, &new).await {
        let failure = ctx.failure(Step::KeyChange, &error, store.clock.now());
        if is_refused(ctx.client) {
            stored.settle_key(false);
            // If this fails, the next use finds out which key it is.
            let _ = store.write(stored, place).await;
        }
        return Err(failure);
    }
    stored.settle_key(true);
    Ok(())
}

/// Finds out which key the CA knows if a change of the key was interrupted, and stores the result.
/// Called under the accounts' lock.
pub(super) async fn settle_key(
    store: &AccountStore,
    mut stored: AccountRecord,
    ctx: AccountCtx<'_>,
    place: &Key,
) -> Result<AccountRecord, Failure> {
    if !stored.is_unsettled() {
        return Ok(stored);
    }
    let is_taken = match stored.next_key() {
        Some(next) => {
            let known = is_known_by(ctx.client, &stored, next).await;
            known.map_err(|error| ctx.failure(Step::KeyChange, &error, store.clock.now()))?
        }
        None => false,
    };
    stored.settle_key(is_taken);
    let which = if is_taken { "new" } else { "old" };
    tracing::info!(
        ca = ctx.ca.host,
        "a change of the account's key was interrupted; the {which} key stays in use"
    );
    let written = store.write(&stored, place).await;
    written.map_err(|error| unwritten(&error, "both keys are kept until it can be"))?;
    Ok(stored)
}

/// Returns true if the CA knows the account by this key (section 7.3.1).
async fn is_known_by(
    client: &AcmeClient,
    stored: &AccountRecord,
    key: PKey<Private>,
) -> Result<bool, Error> {
    let url = &client.directory().new_account;
    let payload = json!({ "onlyReturnExisting": true });
    let signer = Signer::Certificate(key);
    match post_jws(client, &signer, url, Some(&payload)).await {
        Ok(reply) => {
            let location = reply.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            Ok(location.is_some() && location == stored.url())
        }
        Err(error) if error::is_account_lost(&error, client) => Ok(false),
        Err(error) => Err(error),
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

/// Returns true if the CA has refused, so that the old key stays.
fn is_refused(client: &AcmeClient) -> bool {
    client.refusal().is_some_and(|refusal| {
        refusal.status.is_client_error() && refusal.status != StatusCode::REQUEST_TIMEOUT
    })
}

pub(super) fn unwritten(error: &StorageError, then: &str) -> Failure {
    let message = format!("cannot store the account's new key: {error}; {then}");
    Failure::new(FailureClass::Storage, message)
}

fn broken(error: &openssl::error::ErrorStack) -> Failure {
    let message = format!("cannot create a key: {error}; please report this");
    Failure::new(FailureClass::Internal, message)
}
