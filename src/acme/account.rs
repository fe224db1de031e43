//! Accounts at CAs: one for each CA and contact, made under a lock, kept in the storage.
//!
//! However many certificates are wanted at once, one account is made. Where the storage fails, the
//! account lives in memory and is written when the storage is back, unless one is found there then:
//! what is stored is never replaced unread. A CA that is down fails those who wait for it, and
//! nobody else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{
    Account as AcmeAccount, AccountCredentials, Error, ExternalAccountKey, NewAccount,
};
use openssl::pkey::PKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::base64url::decode;
use super::ca::Ca;
use super::classify::{self, Step};
use super::flight::Flight;
use super::session::Session;
use super::signed::Signer;
use crate::clock::Clock;
use crate::config::model::{Acme, ExternalAccount};
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Lease, Storage, StorageError, blocking, keys};

/// All accounts of this process.
pub(super) struct Accounts {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    events: EventBus,
    /// By their keys in the storage.
    known: Mutex<HashMap<Key, Arc<Flight<Arc<Account>>>>>,
}

/// An account at a CA.
pub(super) struct Account {
    stored: Stored,
    place: Key,
    /// Whether it is in the storage.
    is_saved: AtomicBool,
}

/// What is kept of an account.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// As instant-acme writes them: the account's URL, its key, the CA's directory.
    credentials: serde_json::Value,
    contacts: Vec<String>,
    /// The key identifier of the external account that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound_to: Option<String>,
}

impl Accounts {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, events: EventBus) -> Self {
        Self {
            storage,
            clock,
            events,
            known: Mutex::default(),
        }
    }

    /// The account of `config` at `ca`: known, stored, or made now. Who cannot wait gets one where
    /// the storage cannot be read.
    ///
    /// # Errors
    /// Where there is none and none can be made.
    pub(super) async fn get(
        &self,
        ca: &Ca,
        config: &Acme,
        session: &Session,
        can_wait: bool,
    ) -> Result<Arc<Account>, Failure> {
        let place =
            keys::account(&ca.key, config.email.as_deref()).map_err(|error| internal(&error))?;
        let find = self.find(ca, config, session, &place, None, can_wait);
        let mut account = self.flight(&place).get(Duration::MAX, find).await?;
        if !account.serves(config) {
            // Another external account was configured meanwhile.
            let flight = self.flight(&place);
            flight.forget(|known| Arc::ptr_eq(known, &account)).await;
            let find = self.find(ca, config, session, &place, Some(&account), can_wait);
            account = flight.get(Duration::MAX, find).await?;
        }
        self.save_late(account, ca, config).await
    }

    /// Has another account made in the place of one that the CA has lost.
    ///
    /// # Errors
    /// Where none can be made.
    pub(super) async fn replace(
        &self,
        lost: &Arc<Account>,
        ca: &Ca,
        config: &Acme,
        session: &Session,
        can_wait: bool,
    ) -> Result<Arc<Account>, Failure> {
        let flight = self.flight(&lost.place);
        flight.forget(|known| Arc::ptr_eq(known, lost)).await;
        let find = self.find(ca, config, session, &lost.place, Some(lost), can_wait);
        flight.get(Duration::MAX, find).await
    }

    fn flight(&self, place: &Key) -> Arc<Flight<Arc<Account>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(place.clone()).or_default())
    }

    /// The stored account unless it is `lost`, or else a new one.
    async fn find(
        &self,
        ca: &Ca,
        config: &Acme,
        session: &Session,
        place: &Key,
        lost: Option<&Arc<Account>>,
        can_wait: bool,
    ) -> Result<Arc<Account>, Failure> {
        let usable = |stored: &Stored| {
            lost.is_none_or(|lost| lost.stored.credentials != stored.credentials)
                && stored.serves(config)
        };
        // Which of a storage's failures keeps from storing what is made.
        let mut unsaved = match self.load(place).await {
            Ok(Some(stored)) if usable(&stored) => return Ok(Account::new(stored, place, true)),
            Ok(_) => None,
            Err(error) if can_wait => return Err(unread(&error)),
            Err(error) => Some(error),
        };
        // Held until the account is stored, so that one is made however many processes want one.
        let lease = match self.lock(ca).await {
            Ok(lease) => Some(lease),
            Err(error @ StorageError::Busy { .. }) => return Err(unread(&error)),
            // Without a storage no lock; the process goes on alone.
            Err(error) => {
                unsaved.get_or_insert(error);
                None
            }
        };
        if lease.is_some() {
            // Who held the lock before may have made it.
            match self.load(place).await {
                Ok(Some(stored)) if usable(&stored) => {
                    return Ok(Account::new(stored, place, true));
                }
                Ok(_) => {}
                Err(error) if can_wait => return Err(unread(&error)),
                Err(error) => {
                    unsaved.get_or_insert(error);
                }
            }
        }
        let stored = create(ca, config, session, self.clock.as_ref()).await?;
        let account = Account::new(stored, place, false);
        if unsaved.is_none() {
            unsaved = self.save(&account).await.err();
        }
        if let Some(error) = unsaved {
            self.tell(&error);
        }
        Ok(account)
    }

    async fn load(&self, place: &Key) -> Result<Option<Stored>, StorageError> {
        let place = place.clone();
        let value = blocking(&self.storage, move |storage| storage.load(&place)).await?;
        // What cannot be read is replaced.
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    async fn lock(&self, ca: &Ca) -> Result<Lease, StorageError> {
        let key = keys::lock(&format!("account_{}", ca.key))?;
        blocking(&self.storage, move |storage| storage.lock(&key)).await
    }

    async fn try_lock(&self, ca: &Ca) -> Result<Option<Lease>, StorageError> {
        let key = keys::lock(&format!("account_{}", ca.key))?;
        blocking(&self.storage, move |storage| storage.try_lock(&key)).await
    }

    async fn save(&self, account: &Account) -> Result<(), StorageError> {
        let value = serde_json::to_vec_pretty(&account.stored).unwrap_or_default();
        let (value, place) = (Zeroizing::new(value), account.place.clone());
        blocking(&self.storage, move |storage| storage.store(&place, &value)).await?;
        account.is_saved.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Stores what could not be stored when it was made, which has been told then. Where another is
    /// in the storage, made by another process or not to be read at that time, it is taken instead.
    async fn save_late(
        &self,
        account: Arc<Account>,
        ca: &Ca,
        config: &Acme,
    ) -> Result<Arc<Account>, Failure> {
        if account.is_saved.load(Ordering::Relaxed) {
            return Ok(account);
        }
        let Ok(Some(_lease)) = self.try_lock(ca).await else {
            return Ok(account);
        };
        match self.load(&account.place).await {
            Ok(Some(stored)) if stored.serves(config) => {
                let place = &account.place;
                tracing::info!(account = %place, "an account in memory gives way to the stored one");
                let flight = self.flight(place);
                flight.forget(|known| Arc::ptr_eq(known, &account)).await;
                let stored = async { Ok(Account::new(stored, place, true)) };
                return flight.get(Duration::MAX, stored).await;
            }
            Ok(_) if self.save(&account).await.is_ok() => {
                let place = &account.place;
                tracing::info!(account = %place, "stored an account that was in memory alone");
            }
            _ => {}
        }
        Ok(account)
    }

    fn tell(&self, error: &StorageError) {
        let message = format!(
            "an account at a CA lives in memory alone, and is lost when this process ends: {error}"
        );
        let (kind, severity) = (EventKind::StorageFailed, Severity::Error);
        let event = Event::new(self.clock.now(), kind, severity, "", message);
        self.events.emit(event);
    }
}

impl Account {
    fn new(stored: Stored, place: &Key, is_saved: bool) -> Arc<Self> {
        Arc::new(Self {
            stored,
            place: place.clone(),
            is_saved: AtomicBool::new(is_saved),
        })
    }

    fn serves(&self, config: &Acme) -> bool {
        self.stored.serves(config)
    }

    /// Who signs in its name.
    ///
    /// # Errors
    /// Where what is stored of it cannot be used.
    pub(super) fn signer(&self) -> Result<Signer, Error> {
        let text = |member: &str| self.stored.credentials.get(member)?.as_str();
        let kid = text("id").ok_or(Error::Str("the URL of the account"))?;
        let key = text("key_pkcs8").and_then(decode);
        let key = key.and_then(|der| PKey::private_key_from_der(&der).ok());
        Ok(Signer::Account {
            key: key.ok_or(Error::KeyRejected)?,
            kid: kid.to_owned(),
        })
    }

    /// The account for use through `session`.
    ///
    /// # Errors
    /// Where what is stored of it cannot be used.
    pub(super) async fn open(&self, session: &Session) -> Result<AcmeAccount, Error> {
        // By reference, so that the key is not copied on the way.
        let credentials = AccountCredentials::deserialize(&self.stored.credentials)?;
        AcmeAccount::builder_with_http(Box::new(session.clone()))
            .from_credentials(credentials)
            .await
    }
}

impl Stored {
    /// Whether it is bound as configured. One that is bound though nothing is configured serves:
    /// keys for binding are often good for once, and taken out of the configuration then.
    fn serves(&self, config: &Acme) -> bool {
        config
            .eab
            .as_ref()
            .is_none_or(|eab| self.bound_to.as_deref() == Some(&eab.key_id))
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        wipe(&mut self.credentials);
    }
}

/// Overwrites all text in a value.
fn wipe(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => text.zeroize(),
        serde_json::Value::Array(values) => values.iter_mut().for_each(wipe),
        serde_json::Value::Object(members) => members.values_mut().for_each(wipe),
        _ => {}
    }
}

/// Makes an account at the CA.
async fn create(
    ca: &Ca,
    config: &Acme,
    session: &Session,
    clock: &dyn Clock,
) -> Result<Stored, Failure> {
    if session.directory().meta.external_account_required && config.eab.is_none() {
        let message = format!(
            "{} takes no accounts without external account binding; get a key for it from the CA \
             and set 'eab' of the issuer",
            ca.host
        );
        return Err(Failure::new(FailureClass::Configuration, message));
    }
    let external = config.eab.as_ref().map(external_key).transpose()?;
    let contacts: Vec<String> = config
        .email
        .iter()
        .map(|email| format!("mailto:{email}"))
        .collect();
    let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = patiently!(
        AcmeAccount::builder_with_http(Box::new(session.clone()))
            .create(&new, ca.url.clone(), external.as_ref())
            .await
    );
    let failed =
        |error: &Error| classify::failed(&ca.host, Step::Account, error, session, &[], clock.now());
    let (_, credentials) = made.map_err(|error| failed(&error))?;
    let credentials = serde_json::to_value(&credentials).map_err(|error| failed(&error.into()))?;
    tracing::info!(ca = ca.host, contacts = ?contacts, "made an account");
    Ok(Stored {
        credentials,
        contacts,
        bound_to: config.eab.as_ref().map(|eab| eab.key_id.clone()),
    })
}

fn external_key(eab: &ExternalAccount) -> Result<ExternalAccountKey, Failure> {
    let key = decode(eab.hmac_key.expose()).ok_or_else(|| {
        let message = "'hmac_key' of the issuer's 'eab' is not base64url; copy it from the CA as a \
                       whole";
        Failure::new(FailureClass::Configuration, message)
    })?;
    Ok(ExternalAccountKey::new(eab.key_id.clone(), &key))
}

/// The failure of who can wait until the storage works again.
fn unread(error: &StorageError) -> Failure {
    let message = format!("the account at the CA cannot be looked up: {error}");
    Failure::new(FailureClass::Storage, message)
}

fn internal(error: &StorageError) -> Failure {
    Failure::new(FailureClass::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_wiped_wherever_they_stand() {
        let mut value = serde_json::json!({ "a": "secret", "b": [{ "c": "secret" }, 1] });
        wipe(&mut value);
        assert_eq!(value, serde_json::json!({ "a": "", "b": [{ "c": "" }, 1] }));
    }
}
