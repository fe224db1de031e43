//! Where an account is stored: by its CA, its contact, and the external account it is bound to.
//!
//! Another binding is another account. None gives way to it, so that a key identifier can be taken
//! back, and two issuers of one CA do not get into each other's way.

use super::super::directory::Ca;
use super::record::AccountRecord;
use super::{Accounts, internal, unread};
use crate::config::model::Acme;
use crate::schedule::Failure;
use crate::storage::{Key, StorageError, blocking, keys};

impl Accounts {
    /// Where the account that is configured is stored, or is to be.
    ///
    /// # Errors
    /// Where the storage cannot tell.
    pub(super) async fn storage_key(&self, ca: &Ca, config: &Acme) -> Result<Key, Failure> {
        let email = config.email.as_deref();
        let of = |key_id| {
            let place = keys::account(&keys::account_of(&ca.key, email, key_id));
            place.map_err(|error| internal(&error))
        };
        let unbound = of(None)?;
        match &config.eab {
            Some(eab) => {
                let own = of(Some(eab.key_id.as_str()))?;
                Ok(self.bound_place(config, own, unbound, &eab.key_id).await)
            }
            // ZeroSSL gives the key for the binding, which is no part of the configuration.
            None if config.zerossl.is_some() => Ok(unbound),
            None => self.find_any_key(ca, email, unbound).await,
        }
    }

    /// Where an account of a binding is: in its own place, or in that which former versions had for
    /// all accounts of a contact. What cannot be read there may be it.
    async fn bound_place(&self, config: &Acme, own: Key, unbound: Key, key_id: &str) -> Key {
        match self.exists(&own).await {
            Ok(false) => {}
            Ok(true) | Err(_) => return own,
        }
        match self.load_account(&unbound, config).await {
            Ok(Some(stored)) if stored.bound_to.as_deref() != Some(key_id) => own,
            Ok(None) => own,
            Ok(Some(_)) | Err(_) => unbound,
        }
    }

    /// Where an account is of which no binding is configured. Keys for binding are often good for
    /// once, and taken out of the configuration then: the account that was made with the last of
    /// them serves, where there is no other.
    async fn find_any_key(
        &self,
        ca: &Ca,
        email: Option<&str>,
        unbound: Key,
    ) -> Result<Key, Failure> {
        // Where that cannot be told, whoever loads it learns why.
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

    /// Whether there is the account that is configured, so that none is to be made. There may be
    /// one that cannot be read.
    pub(in crate::acme) async fn has(&self, ca: &Ca, config: &Acme) -> bool {
        let Ok(place) = self.storage_key(ca, config).await else {
            return true;
        };
        let is_known = self.known_account(&place).account.current().await.is_some();
        is_known || self.exists(&place).await.unwrap_or(true)
    }

    async fn exists(&self, place: &Key) -> Result<bool, StorageError> {
        let place = place.clone();
        blocking(&self.storage, move |storage| storage.exists(&place)).await
    }
}
