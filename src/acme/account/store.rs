//! Accounts in the storage: where each one is, and how it is read and written.
//!
//! The key depends on the CA, the contact and the external account. Another binding is another
//! account and replaces none, so a key identifier can be withdrawn, and two issuers of one CA do
//! not interfere with each other.

use std::sync::Arc;

use super::super::ca::Ca;
use super::record::{Account, AccountRecord};
use crate::clock::Clock;
use crate::config::model::Acme;
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Lease, PendingWrites, Storage, StorageError, blocking, damaged, keys};

/// The accounts in the storage.
pub(super) struct AccountStore {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) pending_writes: PendingWrites,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: EventBus,
}

impl AccountStore {
    /// The key of the configured account, whether or not it exists.
    ///
    /// # Errors
    /// If the storage cannot be read.
    pub(super) async fn find_key(&self, ca: &Ca, config: &Acme) -> Result<Key, Failure> {
        let email = config.email.as_deref();
        let of = |key_id| {
            let place = keys::account(&keys::account_of(&ca.key, email, key_id));
            place.map_err(|error| internal(&error))
        };
        let unbound = of(None)?;
        match &config.eab {
            Some(eab) => {
                let own = of(Some(eab.key_id.as_str()))?;
                Ok(self.find_bound_key(config, own, unbound, &eab.key_id).await)
            }
            // ZeroSSL provides the binding key, which is not part of the configuration.
            None if config.zerossl.is_some() => Ok(unbound),
            None => self.find_any_key(ca, email, unbound).await,
        }
    }

    /// The key of an account with a binding: its own, or the one that earlier versions used for all
    /// accounts of a contact. An unreadable account there may be it.
    async fn find_bound_key(&self, config: &Acme, own: Key, unbound: Key, key_id: &str) -> Key {
        match self.exists(&own).await {
            Ok(false) => {}
            Ok(true) | Err(_) => return own,
        }
        match self.load(&unbound, config).await {
            Ok(Some(stored)) if stored.bound_to.as_deref() != Some(key_id) => own,
            Ok(None) => own,
            Ok(Some(_)) | Err(_) => unbound,
        }
    }

    /// The key of an account without a configured binding. Binding keys can often be used once, and
    /// are removed from the configuration then: the account created last with one of them serves if
    /// there is no other.
    async fn find_any_key(
        &self,
        ca: &Ca,
        email: Option<&str>,
        unbound: Key,
    ) -> Result<Key, Failure> {
        // If that is unknown, loading it will say why.
        if self.exists(&unbound).await.unwrap_or(true) {
            return Ok(unbound);
        }
        let (key, contact) = (ca.key.clone(), email.map(str::to_owned));
        let last = blocking(&self.storage, move |storage| {
            let mut last = None;
            for place in storage.list(&keys::accounts_at(&key)?)? {
                if !keys::is_bound_account(&place, &key, contact.as_deref()) {
                    continue;
                }
                let value = storage.load(&place)?;
                let stored = value.and_then(|it| serde_json::from_slice::<AccountRecord>(&it).ok());
                let made = stored.map(|stored| stored.made);
                last = last.max(made.map(|made| (made, place)));
            }
            Ok(last)
        });
        let last = last.await.map_err(|error| unread(&error))?;
        Ok(last.map_or(unbound, |(_, place)| place))
    }

    pub(super) async fn exists(&self, place: &Key) -> Result<bool, StorageError> {
        let place = place.clone();
        blocking(&self.storage, move |storage| storage.exists(&place)).await
    }

    /// Loads an account. A damaged one is set aside, and what can be read of it is stored anew.
    pub(super) async fn load(
        &self,
        place: &Key,
        config: &Acme,
    ) -> Result<Option<AccountRecord>, StorageError> {
        let (place, contacts) = (place.clone(), contacts(config));
        let bound_to = config.eab.as_ref().map(|eab| eab.key_id.clone());
        let loaded = blocking(&self.storage, move |storage| {
            let Some(value) = storage.load(&place)? else {
                return Ok((None, None));
            };
            let reason = match AccountRecord::read(&value) {
                Ok(stored) => return Ok((Some(stored), None)),
                Err(reason) => reason,
            };
            let aside = damaged::set_aside(storage, &place, &value, &reason);
            let salvaged = AccountRecord::salvage(&value, contacts, bound_to);
            if let Some(salvaged) = &salvaged {
                storage.store(&place, &salvaged.write())?;
            }
            Ok((salvaged, aside.map(|aside| (storage.place(&place), aside))))
        });
        let (stored, damaged) = loaded.await?;
        if let Some((path, aside)) = damaged {
            let then = match stored {
                Some(_) => "its key could be read and stays in use",
                None => "the next order creates a new account",
            };
            let message = format!(
                "the CA account in {path} is damaged and was set aside as {aside}: {then}; to keep \
                 the account, restore the file from a backup"
            );
            self.emit_event(message);
        }
        Ok(stored)
    }

    pub(super) async fn lock(&self, ca: &Ca) -> Result<Lease, StorageError> {
        let key = lock_of(ca)?;
        blocking(&self.storage, move |storage| storage.lock(&key)).await
    }

    pub(super) async fn try_lock(&self, ca: &Ca) -> Result<Option<Lease>, StorageError> {
        let key = lock_of(ca)?;
        blocking(&self.storage, move |storage| storage.try_lock(&key)).await
    }

    pub(super) async fn save(&self, account: &Account) -> Result<(), StorageError> {
        self.write(&account.stored, &account.place).await?;
        account.note_saved();
        self.pending_writes.forget_write(account.place.as_str());
        Ok(())
    }

    pub(super) async fn write(
        &self,
        stored: &AccountRecord,
        place: &Key,
    ) -> Result<(), StorageError> {
        let (value, place) = (stored.write(), place.clone());
        blocking(&self.storage, move |storage| storage.store(&place, &value)).await
    }

    /// Queues an account to be stored as soon as possible, unless one exists by then: that one
    /// counts.
    pub(super) fn queue_save(&self, account: &Arc<Account>, ca: &Ca) -> Result<(), Failure> {
        let lock = lock_of(ca).map_err(|error| internal(&error))?;
        let waiting = Arc::clone(account);
        self.pending_writes
            .put_write(account.place.as_str(), move |storage| {
                let Some(_lease) = storage.try_lock(&lock)? else {
                    return Ok(false);
                };
                if storage.load(&waiting.place)?.is_none() {
                    storage.store(&waiting.place, &waiting.stored.write())?;
                    waiting.note_saved();
                    tracing::info!(
                        account = %waiting.place,
                        "stored an account that existed only in memory"
                    );
                }
                Ok(true)
            });
        Ok(())
    }

    pub(super) fn report_unsaved(&self, error: &StorageError) {
        let message = format!(
            "a CA account exists only in memory and will be lost when this process ends: {error}"
        );
        self.emit_event(message);
    }

    fn emit_event(&self, message: String) {
        let (kind, severity) = (EventKind::StorageFailed, Severity::Error);
        let event = Event::new(self.clock.now(), kind, severity, "", message);
        self.events.emit(event);
    }
}

/// The lock for creating or changing an account at a CA.
fn lock_of(ca: &Ca) -> Result<Key, StorageError> {
    keys::lock(&format!("account_{}", ca.key))
}

pub(super) fn contacts(config: &Acme) -> Vec<String> {
    let email = config.email.iter();
    email.map(|email| format!("mailto:{email}")).collect()
}

/// The failure of a caller that can wait until the storage works again.
pub(super) fn unread(error: &StorageError) -> Failure {
    let message = format!("cannot look up the account at the CA: {error}");
    Failure::new(FailureClass::Storage, message)
}

pub(super) fn internal(error: &StorageError) -> Failure {
    Failure::new(FailureClass::Internal, error.to_string())
}
