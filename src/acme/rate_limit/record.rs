//! The limits of CAs as stored, for later starts and for other instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::ca::Ca;
use super::Limits;
use crate::config::model::Acme;
use crate::lock::MutexExt;
use crate::schedule::Limiter;
use crate::storage::{Key, Storage, StorageError, blocking, damaged, keys};

/// The key of what a CA limits as a whole, in place of an account's contact.
pub(super) const WHOLE: &str = "*";

impl Limits {
    pub(super) async fn load_limiters(
        &self,
        ca: &str,
    ) -> Result<BTreeMap<String, Limiter>, StorageError> {
        let place = keys::limits(ca)?;
        blocking(&self.storage, move |storage| read_limiters(storage, &place)).await
    }

    /// Reports, once until that changes, that the limits of a CA cannot be read. The CA is asked
    /// all the same, within the limits in memory: it says itself what it does not allow.
    pub(super) fn report_unread(&self, ca: &Ca, error: Option<&StorageError>) {
        let mut unread = self.unread.lock_unpoisoned();
        match error {
            None if unread.remove(&ca.key) => {
                tracing::info!(ca = ca.host, "the stored limits of a CA can be read again");
            }
            None | Some(StorageError::Ending) => {}
            Some(error) => {
                if unread.insert(ca.key.clone()) {
                    tracing::error!(
                        ca = ca.host,
                        %error,
                        "the stored limits of a CA cannot be read: only those met since the start \
                         are observed"
                    );
                }
            }
        }
    }

    /// Makes a closure that stores what is known, to be called where it may block. It works under a
    /// lock of the storage, so instances that store at the same time lose nothing of each other's.
    pub(super) fn store_limiters(&self, ca: &Ca, config: &Acme) -> impl FnOnce() + Send + 'static {
        let queues = self.queues_of(ca, config);
        let known = [
            (account_of(config), queues.own),
            (WHOLE.to_owned(), queues.whole),
        ];
        let known = known.map(|(of, queue)| (of, queue.limiter.lock_unpoisoned().clone()));
        let storage = Arc::clone(&self.storage);
        let (key, host) = (ca.key.clone(), ca.host.clone());
        let store = move || {
            let place = keys::limits(&key)?;
            let lease = storage.lock(&keys::lock(&format!("limits_{key}"))?)?;
            let mut all = read_limiters(&*storage, &place)?;
            let before = all.clone();
            for (of, limiter) in known {
                let stored = all.entry(of).or_default();
                stored.merge_from(&limiter);
            }
            if all == before {
                return Ok(());
            }
            let value = serde_json::to_vec_pretty(&all).unwrap_or_default();
            storage.store_under(&lease, &place, &value)
        };
        move || {
            let stored: Result<(), StorageError> = store();
            if let Err(error) = stored {
                // The limit is known in memory, and whoever stores certificates reports the storage
                // failure.
                tracing::warn!(ca = host, %error, "cannot store a CA's limit");
            }
        }
    }
}

/// Runs such a closure where it may block.
pub(super) async fn run_store(store: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(store).await
        && error.is_panic()
    {
        tracing::error!(%error, "storing a CA's limit was interrupted by a bug");
    }
}

/// The key of an account's limits: its contact, and its binding.
pub(super) fn account_of(config: &Acme) -> String {
    let contact = config.email.as_deref().unwrap_or("default");
    match &config.eab {
        Some(eab) => format!("{contact} bound to {}", eab.key_id),
        None => contact.to_owned(),
    }
}

/// The stored limits of a CA, by account.
fn read_limiters(
    storage: &dyn Storage,
    place: &Key,
) -> Result<BTreeMap<String, Limiter>, StorageError> {
    let read = damaged::read_json(storage, place)?;
    let mut read: BTreeMap<String, Limiter> = read.unwrap_or_default();
    for limiter in read.values_mut() {
        // Earlier versions took this for a limit on the account.
        limiter.drop_account_limit(|said| said.contains("this exact set of"));
    }
    Ok(read)
}
