//! Accounts at CAs: one for each CA, contact and binding, created under a lock and stored.
//!
//! However many certificates are requested at once, one account is created. If the storage cannot
//! be read, none is, because one may exist. If it cannot be written, the account lives in memory
//! and is stored when the storage works again, unless one is found there by then: a stored account
//! is never replaced unread. It takes precedence over the one in memory, because another instance
//! may have changed the key or deactivated the account. A CA that is down fails only the callers
//! that wait for it.

mod admin;
mod record;
mod register;
mod roll_over;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use instant_acme::Error;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

pub(super) use self::record::Account;
use self::record::AccountRecord;
use self::register::register_account;
use self::roll_over::settle_key;
use self::store::{AccountStore, unread};
use super::ca::Ca;
use super::client::AcmeClient;
use super::error::{self, Step};
use super::single_flight::SingleFlight;
use crate::clock::{Clock, UnixTime};
use crate::config::model::Acme;
use crate::event::EventBus;
use crate::lock::MutexExt;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, PendingWrites, Storage, StorageError};

/// All accounts of this process.
pub(super) struct Accounts {
    store: AccountStore,
    /// By their keys in the storage.
    known: Mutex<HashMap<Key, Arc<KnownAccount>>>,
}

/// An account as this process knows it.
#[derive(Default)]
struct KnownAccount {
    account: SingleFlight<Arc<Account>>,
    /// Held by everything that signs with the account's key for a while; a change of the key waits
    /// for it.
    in_use: Arc<RwLock<()>>,
}

/// The CA and the configuration of an account, and the client to reach it with.
#[derive(Clone, Copy)]
pub(super) struct AccountCtx<'a> {
    pub(super) ca: &'a Ca,
    pub(super) config: &'a Acme,
    pub(super) client: &'a AcmeClient,
}

impl AccountCtx<'_> {
    /// The failure of a request that concerns the account itself.
    fn failure(&self, step: Step, error: &Error, now: UnixTime) -> Failure {
        error::failure_of(&self.ca.host, step, error, self.client, &[], now)
    }
}

impl Accounts {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, events: EventBus) -> Self {
        let store = AccountStore {
            storage,
            pending_writes: PendingWrites::default(),
            clock,
            events,
        };
        Self {
            store,
            known: Mutex::default(),
        }
    }

    /// Queues accounts that cannot be stored in `pending_writes`.
    pub(super) fn use_backlog(&mut self, pending_writes: PendingWrites) {
        self.store.pending_writes = pending_writes;
    }

    /// The account of `ctx`: known, stored, or registered now.
    ///
    /// # Errors
    /// If there is none and none can be created, or it is unknown whether there is one.
    pub(super) async fn get_or_register(
        &self,
        ctx: AccountCtx<'_>,
    ) -> Result<Arc<Account>, Failure> {
        let place = self.store.find_key(ctx.ca, ctx.config).await?;
        let known = self.known_account(&place);
        let find = self.find_or_register(ctx, &place, None);
        let mut account = known.account.get_or_make(Duration::MAX, find).await?;
        // Meanwhile, another external account may be configured, or another account or key stored.
        if !account.stored.serves(ctx.config) || !self.is_current(&account, ctx.config).await {
            let is_it = |known: &Arc<Account>| Arc::ptr_eq(known, &account);
            known.account.invalidate_if(is_it).await;
            let find = self.find_or_register(ctx, &place, None);
            account = known.account.get_or_make(Duration::MAX, find).await?;
        }
        self.save_deferred(account, ctx).await
    }

    /// Creates another account in place of one that the CA has lost.
    ///
    /// # Errors
    /// If none can be created.
    pub(super) async fn replace_lost(
        &self,
        lost: &Arc<Account>,
        ctx: AccountCtx<'_>,
    ) -> Result<Arc<Account>, Failure> {
        let known = self.known_account(&lost.place);
        known
            .account
            .invalidate_if(|one| Arc::ptr_eq(one, lost))
            .await;
        let find = self.find_or_register(ctx, &lost.place, Some(lost));
        known.account.get_or_make(Duration::MAX, find).await
    }

    /// The existing account, even if deactivated; `None` if there is none. Creates none.
    ///
    /// # Errors
    /// If the storage cannot be read, or an interrupted change of the key cannot be settled.
    pub(super) async fn find_existing(
        &self,
        ctx: AccountCtx<'_>,
    ) -> Result<Option<Arc<Account>>, Failure> {
        let place = self.store.find_key(ctx.ca, ctx.config).await?;
        let stored = self
            .store
            .load(&place, ctx.config)
            .await
            .map_err(|error| unread(&error))?;
        match stored {
            Some(stored) if !stored.is_unsettled() => Ok(Some(Account::new(stored, &place, true))),
            Some(_) => {
                let _lease = self
                    .store
                    .lock(ctx.ca)
                    .await
                    .map_err(|error| unread(&error))?;
                let stored = self
                    .store
                    .load(&place, ctx.config)
                    .await
                    .map_err(|error| unread(&error))?;
                let Some(stored) = stored else {
                    return Ok(None);
                };
                let stored = settle_key(&self.store, stored, ctx, &place).await?;
                Ok(Some(Account::new(stored, &place, true)))
            }
            None => Ok(self.known_account(&place).account.current().await),
        }
    }

    /// Keeps the key of the account from being changed while the guard is held.
    pub(super) async fn lock_shared(
        &self,
        ctx: AccountCtx<'_>,
    ) -> Result<OwnedRwLockReadGuard<()>, Failure> {
        let known = self.known_account(&self.store.find_key(ctx.ca, ctx.config).await?);
        Ok(Arc::clone(&known.in_use).read_owned().await)
    }

    fn known_account(&self, place: &Key) -> Arc<KnownAccount> {
        let mut known = self.known.lock_unpoisoned();
        Arc::clone(known.entry(place.clone()).or_default())
    }

    /// Returns true if the configured account exists, so that none is created. It may be
    /// unreadable.
    pub(super) async fn has(&self, ca: &Ca, config: &Acme) -> bool {
        let Ok(place) = self.store.find_key(ca, config).await else {
            return true;
        };
        let is_known = self.known_account(&place).account.current().await.is_some();
        is_known || self.store.exists(&place).await.unwrap_or(true)
    }

    /// Returns true unless the storage has another account, another key, a deactivation, or an
    /// interrupted change of the key.
    async fn is_current(&self, account: &Account, config: &Acme) -> bool {
        if !account.is_saved() {
            return true;
        }
        match self.store.load(&account.place, config).await {
            Ok(Some(stored)) => account.stored.is_same_as(&stored) && !stored.is_unsettled(),
            Ok(None) | Err(_) => true,
        }
    }

    /// The stored account unless it is `lost`, or else a new one.
    async fn find_or_register(
        &self,
        ctx: AccountCtx<'_>,
        place: &Key,
        lost: Option<&Arc<Account>>,
    ) -> Result<Arc<Account>, Failure> {
        let usable = |stored: &AccountRecord| {
            lost.is_none_or(|lost| lost.stored.credentials != stored.credentials)
                && stored.serves(ctx.config)
        };
        let stored = self.store.load(place, ctx.config).await;
        if let Some(stored) = stored.map_err(|error| unread(&error))?
            && usable(&stored)
            && is_plain(&stored)
        {
            return Ok(Account::new(stored, place, true));
        }
        // The storage failure that keeps a new account from being stored.
        let mut unsaved = None;
        // Held until the account is stored, so that only one is created however many processes want
        // one.
        let lease = match self.store.lock(ctx.ca).await {
            Ok(lease) => Some(lease),
            Err(error @ StorageError::Busy { .. }) => return Err(unread(&error)),
            // There is no lock without a storage; the process continues alone.
            Err(error) => {
                unsaved = Some(error);
                None
            }
        };
        if lease.is_some() {
            // The previous holder of the lock may have created it.
            let stored = self.store.load(place, ctx.config).await;
            if let Some(stored) = stored.map_err(|error| unread(&error))?
                && stored.serves(ctx.config)
            {
                if let Some(at) = stored.deactivated {
                    return Err(ended(ctx.ca, at));
                }
                let stored = settle_key(&self.store, stored, ctx, place).await?;
                if usable(&stored) {
                    return Ok(Account::new(stored, place, true));
                }
            }
        }
        let account = Account::new(register_account(&self.store, ctx).await?, place, false);
        if unsaved.is_none() {
            unsaved = self.store.save(&account).await.err();
        }
        if let Some(error) = unsaved {
            self.store.report_unsaved(&error);
            self.store.queue_save(&account, ctx.ca)?;
        }
        Ok(account)
    }

    /// Stores an account that could not be stored when it was created. If the storage has another
    /// one by now, created by another process or unreadable at the time, that one is used instead.
    async fn save_deferred(
        &self,
        account: Arc<Account>,
        ctx: AccountCtx<'_>,
    ) -> Result<Arc<Account>, Failure> {
        if account.is_saved() {
            return Ok(account);
        }
        let Ok(Some(_lease)) = self.store.try_lock(ctx.ca).await else {
            return Ok(account);
        };
        let place = &account.place;
        match self.store.load(place, ctx.config).await {
            Ok(Some(stored)) if stored.serves(ctx.config) && is_plain(&stored) => {
                tracing::info!(
                    account = %place,
                    "replaced an account in memory with the stored one"
                );
                let known = self.known_account(place);
                let is_it = |one: &Arc<Account>| Arc::ptr_eq(one, &account);
                known.account.invalidate_if(is_it).await;
                let stored = async { Ok(Account::new(stored, place, true)) };
                return known.account.get_or_make(Duration::MAX, stored).await;
            }
            Ok(Some(stored)) if stored.serves(ctx.config) => {}
            Ok(_) if self.store.save(&account).await.is_ok() => {
                tracing::info!(account = %place, "stored an account that existed only in memory");
            }
            _ => {}
        }
        Ok(account)
    }
}

/// Returns true if the account can be used as it is.
fn is_plain(stored: &AccountRecord) -> bool {
    !stored.is_unsettled() && stored.deactivated.is_none()
}

/// The failure for an account that a person deactivated: only a person creates another.
fn ended(ca: &Ca, at: UnixTime) -> Failure {
    let message = format!(
        "the account at {} was deactivated at {}, and no new one is created automatically; run \
         `snigate acme account create`",
        ca.host, at
    );
    Failure::new(FailureClass::Configuration, message)
}
