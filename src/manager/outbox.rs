//! Certificates that were issued and could not be stored: kept until they can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::health::{Health, Use};
use super::stored::Parcel;
use crate::storage::{Lease, Storage, StorageError, keys};

/// What waits to be stored, by the certificates' subjects. A handle; clones share it.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<Mutex<BTreeMap<String, Arc<Parcel>>>>);

impl Outbox {
    /// Keeps `parcel` in the place of any before it.
    pub(super) fn put(&self, subject: &str, parcel: Parcel) {
        self.waiting().insert(subject.to_owned(), Arc::new(parcel));
    }

    /// Stores what waits for `subject` under `lease`; it waits on where that fails.
    pub(super) fn store(
        &self,
        storage: &dyn Storage,
        lease: &Lease,
        subject: &str,
    ) -> Result<(), StorageError> {
        let parcel = self.waiting().get(subject).map(Arc::clone);
        if let Some(parcel) = parcel {
            parcel.store(storage, lease)?;
            self.forget(subject);
        }
        Ok(())
    }

    /// Forgets what waits for `subject`.
    pub(super) fn forget(&self, subject: &str) {
        self.waiting().remove(subject);
    }

    pub(super) fn holds(&self, subject: &str) -> bool {
        self.waiting().contains_key(subject)
    }

    /// Stores what can be stored. Nothing is held while the storage takes its time.
    pub(super) fn flush(&self, storage: &dyn Storage, health: &Health) {
        let waiting: Vec<_> = {
            let waiting = self.waiting();
            let parcels = waiting.iter();
            parcels
                .map(|(subject, parcel)| (subject.clone(), Arc::clone(parcel)))
                .collect()
        };
        for (subject, parcel) in waiting {
            match store(storage, &subject, &parcel) {
                Ok(true) => {
                    health.works(Use::Writing);
                    let mut waiting = self.waiting();
                    // Another may have come meanwhile.
                    if waiting
                        .get(&subject)
                        .is_some_and(|one| Arc::ptr_eq(one, &parcel))
                    {
                        waiting.remove(&subject);
                    }
                }
                // A peer is at work on it.
                Ok(false) => {}
                Err(error) => {
                    health.failed(Use::Writing, &error);
                    return;
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Parcel>>> {
        // Each change is one call: a panic leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it was stored; not where a peer holds the lock.
fn store(storage: &dyn Storage, subject: &str, parcel: &Parcel) -> Result<bool, StorageError> {
    match storage.try_lock(&keys::lock(subject)?)? {
        Some(lease) => parcel.store_late(storage, &lease).map(|()| true),
        None => Ok(false),
    }
}
