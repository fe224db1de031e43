//! Accounts at CAs: one for each CA, contact and binding, made under a lock and stored.
//!
//! However many certificates are wanted at once, one account is made. Where the storage cannot be
//! read none is, since one may be there. Where it cannot be written, the account lives in memory and
//! is written when the storage is back, unless one is found there then: what is stored is never
//! replaced unread. It counts before what is in memory, since another instance may have changed the
//! key, or ended the account. A CA that is down fails the callers that wait for it, and no others.

mod admin;
mod place;
mod record;
mod register;
mod roll_over;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, RwLock};

pub(super) use self::record::Account;
use self::record::AccountRecord;
use super::client::AcmeClient;
use super::directory::Ca;
use super::single_flight::SingleFlight;
use crate::clock::{Clock, rfc3339};
use crate::config::model::Acme;
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Lease, PendingWrites, Storage, StorageError, blocking, damaged, keys};

/// All accounts of this process.
pub(super) struct Accounts {
    storage: Arc<dyn Storage>,
    pending_writes: PendingWrites,
    clock: Arc<dyn Clock>,
    events: EventBus,
    /// By their keys in the storage.
    known: Mutex<HashMap<Key, Arc<KnownAccount>>>,
}

/// What this process has of an account.
#[derive(Default)]
struct KnownAccount {
    account: SingleFlight<Arc<Account>>,
    /// Held by all that sign with its key for a while; a change of the key waits for them.
    in_use: Arc<RwLock<()>>,
}

/// The CA and the configuration that an account is for, and the client to reach it with.
#[derive(Clone, Copy)]
pub(super) struct AccountCtx<'a> {
    pub(super) ca: &'a Ca,
    pub(super) config: &'a Acme,
    pub(super) client: &'a AcmeClient,
}

impl Accounts {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, events: EventBus) -> Self {
        Self {
            storage,
            pending_writes: PendingWrites::default(),
            clock,
            events,
            known: Mutex::default(),
        }
    }

    /// Has those wait in `pending_writes` that cannot be stored.
    pub(super) fn use_backlog(&mut self, pending_writes: PendingWrites) {
        self.pending_writes = pending_writes;
    }

    /// The account of `ctx`: known, stored, or registered now.
    ///
    /// # Errors
    /// Where there is none and none can be made, or it is not known whether there is one.
    pub(super) async fn get_or_register(
        &self,
        ctx: AccountCtx<'_>,
    ) -> Result<Arc<Account>, Failure> {
        let place = self.storage_key(ctx.ca, ctx.config).await?;
        let known = self.known_account(&place);
        let find = self.find_or_register(ctx, &place, None);
        let mut account = known.account.get_or_make(Duration::MAX, find).await?;
        // Another external account may be configured, or another account or key stored, meanwhile.
        if !account.stored.serves(ctx.config) || !self.is_current(&account, ctx.config).await {
            let is_it = |known: &Arc<Account>| Arc::ptr_eq(known, &account);
            known.account.invalidate_if(is_it).await;
            let find = self.find_or_register(ctx, &place, None);
            account = known.account.get_or_make(Duration::MAX, find).await?;
        }
        self.save_deferred(account, ctx).await
    }

    /// Has another account made in the place of one that the CA has lost.
    ///
    /// # Errors
    /// Where none can be made.
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

    /// The account that there is, though it may be ended; `None` where none has been made. Makes
    /// none.
    ///
    /// # Errors
    /// Where the storage cannot be read, or what is open about its key cannot be found out.
    pub(super) async fn find_existing(
        &self,
        ctx: AccountCtx<'_>,
    ) -> Result<Option<Arc<Account>>, Failure> {
        let place = self.storage_key(ctx.ca, ctx.config).await?;
        let stored = self
            .load_account(&place, ctx.config)
            .await
            .map_err(|error| unread(&error))?;
        match stored {
            Some(stored) if !stored.is_unsettled() => Ok(Some(Account::new(stored, &place, true))),
            Some(_) => {
                let _lease = self.lock_ca(ctx.ca).await.map_err(|error| unread(&error))?;
                let stored = self
                    .load_account(&place, ctx.config)
                    .await
                    .map_err(|error| unread(&error))?;
                let Some(stored) = stored else {
                    return Ok(None);
                };
                let stored = self.settle_key(stored, ctx, &place).await?;
                Ok(Some(Account::new(stored, &place, true)))
            }
            None => Ok(self.known_account(&place).account.current().await),
        }
    }

    /// Keeps the key of the account from being changed while this is held.
    pub(super) async fn lock_shared(
        &self,
        ctx: AccountCtx<'_>,
    ) -> Result<OwnedRwLockReadGuard<()>, Failure> {
        let known = self.known_account(&self.storage_key(ctx.ca, ctx.config).await?);
        Ok(Arc::clone(&known.in_use).read_owned().await)
    }

    fn known_account(&self, place: &Key) -> Arc<KnownAccount> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(place.clone()).or_default())
    }

    /// Whether the storage has no other account, nor another key or an end of this one, nor a change
    /// of its key that broke off.
    async fn is_current(&self, account: &Account, config: &Acme) -> bool {
        if !account.is_saved() {
            return true;
        }
        match self.load_account(&account.place, config).await {
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
        let stored = self.load_account(place, ctx.config).await;
        if let Some(stored) = stored.map_err(|error| unread(&error))?
            && usable(&stored)
            && is_plain(&stored)
        {
            return Ok(Account::new(stored, place, true));
        }
        // Which of a storage's failures keeps from storing what is made.
        let mut unsaved = None;
        // Held until the account is stored, so that one is made however many processes want one.
        let lease = match self.lock_ca(ctx.ca).await {
            Ok(lease) => Some(lease),
            Err(error @ StorageError::Busy { .. }) => return Err(unread(&error)),
            // Without a storage no lock; the process continues alone.
            Err(error) => {
                unsaved = Some(error);
                None
            }
        };
        if lease.is_some() {
            // Who held the lock before may have made it.
            let stored = self.load_account(place, ctx.config).await;
            if let Some(stored) = stored.map_err(|error| unread(&error))?
                && stored.serves(ctx.config)
            {
                if let Some(at) = stored.deactivated {
                    return Err(ended(ctx.ca, at));
                }
                let stored = self.settle_key(stored, ctx, place).await?;
                if usable(&stored) {
                    return Ok(Account::new(stored, place, true));
                }
            }
        }
        let account = Account::new(self.register_account(ctx).await?, place, false);
        if unsaved.is_none() {
            unsaved = self.save_account(&account).await.err();
        }
        if let Some(error) = unsaved {
            self.report_unsaved(&error);
            self.queue_save(&account, ctx.ca)?;
        }
        Ok(account)
    }

    /// Has an account stored as soon as that can be, unless there is one by then: that one counts.
    fn queue_save(&self, account: &Arc<Account>, ca: &Ca) -> Result<(), Failure> {
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

    /// What is stored. Of a damaged account, which is set aside, as much is stored anew as can be
    /// read of it.
    async fn load_account(
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

    async fn lock_ca(&self, ca: &Ca) -> Result<Lease, StorageError> {
        let key = lock_of(ca)?;
        blocking(&self.storage, move |storage| storage.lock(&key)).await
    }

    async fn try_lock_ca(&self, ca: &Ca) -> Result<Option<Lease>, StorageError> {
        let key = lock_of(ca)?;
        blocking(&self.storage, move |storage| storage.try_lock(&key)).await
    }

    async fn save_account(&self, account: &Account) -> Result<(), StorageError> {
        self.write_record(&account.stored, &account.place).await?;
        account.note_saved();
        self.pending_writes.forget_write(account.place.as_str());
        Ok(())
    }

    async fn write_record(&self, stored: &AccountRecord, place: &Key) -> Result<(), StorageError> {
        let (value, place) = (stored.write(), place.clone());
        blocking(&self.storage, move |storage| storage.store(&place, &value)).await
    }

    /// Stores what could not be stored when it was made, which has been told then. Where another is
    /// in the storage, made by another process or not to be read at that time, it is taken instead.
    async fn save_deferred(
        &self,
        account: Arc<Account>,
        ctx: AccountCtx<'_>,
    ) -> Result<Arc<Account>, Failure> {
        if account.is_saved() {
            return Ok(account);
        }
        let Ok(Some(_lease)) = self.try_lock_ca(ctx.ca).await else {
            return Ok(account);
        };
        let place = &account.place;
        match self.load_account(place, ctx.config).await {
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
            Ok(_) if self.save_account(&account).await.is_ok() => {
                tracing::info!(account = %place, "stored an account that existed only in memory");
            }
            _ => {}
        }
        Ok(account)
    }

    fn report_unsaved(&self, error: &StorageError) {
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

/// Whether it can be used as it is.
fn is_plain(stored: &AccountRecord) -> bool {
    !stored.is_unsettled() && stored.deactivated.is_none()
}

/// What is locked by whoever makes or changes an account at a CA.
fn lock_of(ca: &Ca) -> Result<Key, StorageError> {
    keys::lock(&format!("account_{}", ca.key))
}

fn contacts(config: &Acme) -> Vec<String> {
    let email = config.email.iter();
    email.map(|email| format!("mailto:{email}")).collect()
}

/// The failure where a person has ended the account: a person has to want another.
fn ended(ca: &Ca, at: i64) -> Failure {
    let message = format!(
        "the account at {} was deactivated at {}, and no new one is created automatically; run \
         `snigate acme account create`",
        ca.host,
        rfc3339(at)
    );
    Failure::new(FailureClass::Configuration, message)
}

/// The failure of a caller that can wait until the storage works again.
fn unread(error: &StorageError) -> Failure {
    let message = format!("cannot look up the account at the CA: {error}");
    Failure::new(FailureClass::Storage, message)
}

fn internal(error: &StorageError) -> Failure {
    Failure::new(FailureClass::Internal, error.to_string())
}
