//! The key of an account gives way to another (RFC 8555, section 7.3.5).
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

use super::super::classify::{self, Step};
use super::super::key;
use super::super::session::Session;
use super::super::signed::{Signer, jwk, jws, post};
use super::stored::Stored;
use super::{Account, Accounts, Want};
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
    pub(super) async fn roll_over(&self, want: Want<'_>) -> Result<Arc<Account>, Failure> {
        if want.session.directory().key_change.is_none() {
            let message = format!("{} offers no change of an account's key", want.ca.host);
            return Err(Failure::new(FailureClass::Configuration, message));
        }
        let place = self.place(want.ca, want.config).await?;
        let known = self.known(&place);
        let _quiet = tokio::time::timeout(QUIET, known.in_use.write())
            .await
            .map_err(|_| {
                let message = format!(
                    "orders at {} are under way, which need the present key; try again when they \
                     are over",
                    want.ca.host
                );
                Failure::new(FailureClass::Storage, message)
            })?;
        let (_lease, mut stored) = self.take(want, &place).await?;
        let new = key::generate(KeyType::P256).map_err(|error| broken(&error))?;
        stored.propose(&new).map_err(|error| broken(&error))?;
        let written = self.write(&stored, &place).await;
        written
            .map_err(|error| unwritten(&error, "the CA was not asked, and it stays as it is"))?;
        let changed = change(want.session, &stored, &new).await;
        let failure = changed.err().map(|error| self.failed(want, &error));
        if let Some(failure) = failure {
            if is_refused(want.session) {
                stored.settle(false);
                // Else it is found out at the next use.
                let _ = self.write(&stored, &place).await;
            }
            return Err(failure);
        }
        stored.settle(true);
        let written = self.write(&stored, &place).await;
        known.account.forget(|_| true).await;
        let both = "the CA has taken it, which comes out at the next use";
        written.map_err(|error| unwritten(&error, both))?;
        tracing::info!(ca = want.ca.host, "the account has another key");
        Ok(Account::new(stored, &place, true))
    }

    /// What is stored, once it is known which key the CA knows, and stored again where that was
    /// open. To be called under the accounts' lock.
    pub(super) async fn settled(
        &self,
        mut stored: Stored,
        want: Want<'_>,
        place: &Key,
    ) -> Result<Stored, Failure> {
        if !stored.is_unsettled() {
            return Ok(stored);
        }
        let is_taken = match stored.next_key() {
            Some(next) => self.is_known_by(want, &stored, next).await?,
            None => false,
        };
        stored.settle(is_taken);
        let which = if is_taken { "new" } else { "old" };
        tracing::info!(
            ca = want.ca.host,
            "a change of the account's key broke off; the {which} one counts"
        );
        let written = self.write(&stored, place).await;
        written.map_err(|error| unwritten(&error, "both are kept until it can be"))?;
        Ok(stored)
    }

    /// Whether the CA knows the account by this key (section 7.3.1).
    async fn is_known_by(
        &self,
        want: Want<'_>,
        stored: &Stored,
        key: PKey<Private>,
    ) -> Result<bool, Failure> {
        let url = &want.session.directory().new_account;
        let payload = json!({ "onlyReturnExisting": true });
        let signer = Signer::Certificate(key);
        match post(want.session, &signer, url, Some(&payload)).await {
            Ok(reply) => {
                let location = reply.headers().get(LOCATION);
                let location = location.and_then(|location| location.to_str().ok());
                Ok(location.is_some() && location == stored.url())
            }
            Err(error) if classify::is_account_lost(&error, want.session) => Ok(false),
            Err(error) => Err(self.failed(want, &error)),
        }
    }

    fn failed(&self, want: Want<'_>, error: &Error) -> Failure {
        let (host, now) = (&want.ca.host, self.clock.now());
        classify::failed(host, Step::KeyChange, error, want.session, &[], now)
    }
}

async fn change(session: &Session, stored: &Stored, new: &PKey<Private>) -> Result<(), Error> {
    let Some(url) = session.directory().key_change.clone() else {
        return Err(Error::Unsupported("changing the key of an account"));
    };
    let signer = stored.signer()?;
    let inner = json!({ "account": stored.url(), "oldKey": jwk(signer.key())? });
    let inner = jws(&Signer::Certificate(new.clone()), &url, None, Some(&inner))?;
    post(session, &signer, &url, Some(&inner)).await.map(drop)
}

/// Whether the CA has said no, so that the old key goes on.
fn is_refused(session: &Session) -> bool {
    session.refusal().is_some_and(|refusal| {
        refusal.status.is_client_error() && refusal.status != StatusCode::REQUEST_TIMEOUT
    })
}

fn unwritten(error: &StorageError, then: &str) -> Failure {
    let message = format!("the new key of the account cannot be stored: {error}; {then}");
    Failure::new(FailureClass::Storage, message)
}

fn broken(error: &openssl::error::ErrorStack) -> Failure {
    let message = format!("a key cannot be made: {error}; please report this");
    Failure::new(FailureClass::Internal, message)
}
