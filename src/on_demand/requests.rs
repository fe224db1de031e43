//! Has the manager asked for the certificates of CAs.
//!
//! [`Requests`] is the handle for handshakes: they ask for a name and wait for the answer, without
//! the manager's lock and without I/O. The loop for certificates on demand takes the names from
//! here.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};

use super::request_table::RequestTable;
use super::{ObtainError, OnDemandIssuer};
use crate::cert_store;
use crate::certificate::Validity;
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::clock::Clock;
use crate::host::{HostName, Pattern};
use crate::renewal::Deps;
use crate::storage::{Storage, keys};

/// How many names are looked up at a time, and for how long: a storage that hangs takes no more
/// threads than that, and holds no client up for ever.
const LOOKUPS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the manager for certificates. A handle; clones share it.
#[derive(Clone)]
pub struct Requests(Arc<Shared>);

struct Shared {
    published: Arc<ArcSwap<SniMap>>,
    clock: Arc<dyn Clock>,
    storage: Arc<dyn Storage>,
    /// The CAs of which the storage may have certificates.
    cas: ArcSwap<Vec<String>>,
    lookups: Arc<Semaphore>,
    table: Arc<RequestTable>,
    asked: Notify,
    taken: Notify,
    changed: Notify,
}

impl Requests {
    /// Finds what is obtained in `published`, and what there was before in the storage.
    pub(super) fn new(published: Arc<ArcSwap<SniMap>>, deps: &Deps) -> Self {
        Self(Arc::new(Shared {
            published,
            clock: Arc::clone(&deps.clock),
            storage: Arc::clone(&deps.storage),
            cas: ArcSwap::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            table: Arc::default(),
            asked: Notify::new(),
            taken: Notify::new(),
            changed: Notify::new(),
        }))
    }

    /// Waits until a name has been asked for.
    pub async fn wait_for_request(&self) {
        self.0.asked.notified().await;
    }

    /// Waits until other names than before may have certificates.
    pub async fn wait_for_change(&self) {
        self.0.changed.notified().await;
    }

    /// Whether there are names that the manager has not taken yet.
    pub fn has_new(&self) -> bool {
        self.0.table.has_queued()
    }

    /// Notifies that the names are taken, and work on them may be due.
    pub fn notify_taken_up(&self) {
        self.0.taken.notify_one();
    }

    /// Waits until the names that were asked for are taken.
    pub async fn wait_until_taken_up(&self) {
        self.0.taken.notified().await;
    }

    /// Refuses all names once the guard is dropped: nobody obtains them any more.
    pub(crate) fn close_on_drop(&self) -> CloseOnDrop {
        CloseOnDrop(self.clone())
    }

    /// Sets the CAs whose certificates the storage may have.
    pub(super) fn set_cas(&self, cas: Vec<String>) {
        self.0.cas.store(Arc::new(cas));
    }

    /// Notifies that other names than before may have certificates.
    pub(super) fn notify_change(&self) {
        self.0.changed.notify_one();
    }

    /// The names that are asked for, with who waits for them.
    pub(super) fn table(&self) -> &Arc<RequestTable> {
        &self.0.table
    }
}

/// Refuses all names once it is dropped, see [`Requests::close_on_drop`].
#[must_use]
pub(crate) struct CloseOnDrop(Requests);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.0.table.close();
    }
}

#[async_trait]
impl OnDemandIssuer for Requests {
    fn cached(&self, name: &HostName) -> Option<Arc<CertificateSet>> {
        let (map, now) = (self.0.published.load(), self.0.clock.now());
        let set = map.lookup(name.as_str())?;
        let mut certificates = set.by_kind.iter();
        let is_valid = certificates.all(|one| one.validity(now) == Validity::Valid);
        is_valid.then(|| Arc::clone(set))
    }

    fn is_stopped(&self) -> bool {
        self.0.table.is_closed()
    }

    async fn has_stored(&self, name: &HostName) -> bool {
        let look = async {
            let permit = Arc::clone(&self.0.lookups).acquire_owned().await.ok()?;
            let (shared, name) = (Arc::clone(&self.0), name.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let has = shared.has_stored(name);
                drop(permit);
                has
            });
            looked.await.ok()
        };
        matches!(tokio::time::timeout(PATIENCE, look).await, Ok(Some(true)))
    }

    async fn obtain(&self, name: &HostName) -> Result<Arc<CertificateSet>, ObtainError> {
        if let Some(set) = self.cached(name) {
            return Ok(set);
        }
        let (answer, is_new) = self.0.table.ask_manager(name)?;
        if is_new {
            self.0.asked.notify_one();
        }
        let gone = |_| Err(ObtainError::stopped());
        answer.await.unwrap_or_else(gone)?;
        self.cached(name).ok_or_else(|| ObtainError {
            why: "its certificate was removed at once".to_owned(),
            retry_after: None,
            is_begun: true,
        })
    }
}

impl Shared {
    /// Whether the storage has a certificate of `name` that has not ended. Blocks on it.
    fn has_stored(&self, name: HostName) -> bool {
        let (now, subject) = (self.clock.now(), keys::subject(&[Pattern::Exact(name)]));
        let has = |ca: &String| {
            let end = cert_store::stored_end(&*self.storage, ca, &subject);
            end.is_ok_and(|end| end.is_some_and(|end| end > now))
        };
        self.cas.load().iter().any(has)
    }
}
