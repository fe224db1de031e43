//! What CAs limit, as it is stored: for later starts and for other instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::directory::Ca;
use super::{Limits, lock};
use crate::config::model::Acme;
use crate::schedule::Limiter;
use crate::storage::{Key, Storage, StorageError, blocking, damaged, keys};

/// What a CA limits as a whole is stored under this, where accounts have their contact.
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
    /// all the same, within the limits that are in memory: it says itself what it does not allow.
    pub(super) fn report_unread(&self, ca: &Ca, error: Option<&StorageError>) {
        let mut unread = lock(&self.unread);
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

    /// What brings into the storage what is known, to be called where it may block. It is done
    /// under a lock of the storage, so that instances that store at once lose nothing of each
    /// other.
    pub(super) fn store_limiters(&self, ca: &Ca, config: &Acme) -> impl FnOnce() + Send + 'static {
        let queues = self.queues_of(ca, config);
        let known = [
            (account_of(config), queues.own),
            (WHOLE.to_owned(), queues.whole),
        ];
        let known = known.map(|(of, queue)| (of, lock(&queue.limiter).clone()));
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
                // It is known here, and that it is not stored is told by whoever stores
                // certificates.
                tracing::warn!(ca = host, %error, "cannot store a CA's limit");
            }
        }
    }
}

/// Runs what brings limits into the storage where it may block.
pub(super) async fn run_store(store: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(store).await
        && error.is_panic()
    {
        tracing::error!(%error, "storing a CA's limit was interrupted by a bug");
    }
}

/// By what the limits of an account are stored: its contact, and what it is bound to.
pub(super) fn account_of(config: &Acme) -> String {
    let contact = config.email.as_deref().unwrap_or("default");
    match &config.eab {
        Some(eab) => format!("{contact} bound to {}", eab.key_id),
        None => contact.to_owned(),
    }
}

/// What is stored of a CA's limits, by account.
fn read_limiters(
    storage: &dyn Storage,
    place: &Key,
) -> Result<BTreeMap<String, Limiter>, StorageError> {
    let read = damaged::read_json(storage, place)?;
    let mut read: BTreeMap<String, Limiter> = read.unwrap_or_default();
    for limiter in read.values_mut() {
        // Former versions took it for one on the account.
        limiter.drop_account_limit(|said| said.contains("this exact set of"));
    }
    Ok(read)
}
