//! The names that clients have asked for and wait for.
//!
//! [`Requests`] is the handle for handshakes: they enqueue a name and wait for the answer, take
//! nobody's lock and do no I/O. The maintenance service takes the names from here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::{ObtainError, OnDemandIssuer};
use crate::cert_store;
use crate::certificate::Validity;
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::clock::Clock;
use crate::host::{HostName, Pattern};
use crate::renewal::Deps;
use crate::storage::{Storage, keys};

/// How many names are waited for at most.
const MOST_WAITED_FOR: usize = 1_000;

/// After how long it is worth another try where there were too many.
const TOO_MANY: Duration = Duration::from_secs(5);

/// How many names are looked up at a time, and for how long one is waited for: a storage that hangs
/// is to take no more threads than that, and hold nobody up for ever.
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
    waiting: Mutex<Waiting>,
    asked: Notify,
    taken: Notify,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Those of `by_name` that the manager has not taken yet.
    new: Vec<HostName>,
    by_name: HashMap<HostName, Wait>,
}

/// What is known of a name that is waited for.
#[derive(Default)]
struct Wait {
    is_taken_up: bool,
    senders: Vec<oneshot::Sender<Result<(), ObtainError>>>,
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
            waiting: Mutex::default(),
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
        !self.waiting().new.is_empty()
    }

    /// Notifies that the names are taken, and work on them may be due.
    pub fn notify_taken_up(&self) {
        self.0.taken.notify_one();
    }

    /// Waits until the names that were asked for are taken.
    pub async fn wait_until_taken_up(&self) {
        self.0.taken.notified().await;
    }

    /// Sets the CAs whose certificates the storage may have.
    pub(super) fn set_cas(&self, cas: Vec<String>) {
        self.0.cas.store(Arc::new(cas));
    }

    /// Notifies that other names than before may have certificates.
    pub(super) fn notify_change(&self) {
        self.0.changed.notify_one();
    }

    /// Takes names that have been asked for, so many at most.
    pub(super) fn take_new(&self, most: usize) -> Vec<HostName> {
        let mut waiting = self.waiting();
        let count = waiting.new.len().min(most);
        let taken: Vec<_> = waiting.new.drain(..count).collect();
        drop(waiting);
        self.set_taken_up(&taken, true);
        taken
    }

    /// Leaves these names out of what [`Self::pending_names`] says while they are looked up.
    pub(super) fn begin_lookup(&self, names: Vec<HostName>) -> LookupGuard {
        self.set_taken_up(&names, false);
        LookupGuard {
            requests: self.clone(),
            names,
        }
    }

    fn set_taken_up(&self, names: &[HostName], is_taken_up: bool) {
        let mut waiting = self.waiting();
        for name in names {
            if let Some(wait) = waiting.by_name.get_mut(name) {
                wait.is_taken_up = is_taken_up;
            }
        }
    }

    /// The names that were taken and that clients still wait for.
    pub(super) fn pending_names(&self) -> Vec<HostName> {
        let waiting = self.waiting();
        let taken = waiting.by_name.iter().filter(|(_, wait)| wait.is_taken_up);
        taken.map(|(name, _)| name.clone()).collect()
    }

    /// Answers all clients that wait for `name`.
    pub(super) fn answer_name(&self, name: &HostName, answer: &Result<(), ObtainError>) {
        let waiting = self.waiting().by_name.remove(name);
        for sender in waiting.unwrap_or_default().senders {
            // Who asked may have gone.
            let _ = sender.send(answer.clone());
        }
    }

    fn enqueue_name(
        &self,
        name: &HostName,
    ) -> Result<oneshot::Receiver<Result<(), ObtainError>>, ObtainError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        let known = waiting.by_name.len();
        let is_new = match waiting.by_name.entry(name.clone()) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().senders.push(sender);
                false
            }
            Entry::Vacant(_) if known >= MOST_WAITED_FOR => {
                return Err(ObtainError {
                    why: format!("{MOST_WAITED_FOR} other names are waited for"),
                    retry_after: Some(TOO_MANY),
                    is_begun: false,
                });
            }
            Entry::Vacant(entry) => {
                entry.insert(Wait {
                    is_taken_up: false,
                    senders: vec![sender],
                });
                true
            }
        };
        if is_new {
            waiting.new.push(name.clone());
            drop(waiting);
            self.0.asked.notify_one();
        }
        Ok(receiver)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is whole: a panic in between leaves nobody waiting for ever, since the
        // service looks at all of them.
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names that are being looked up, until it is dropped: it is not known how they stand, and a pass
/// meanwhile is to tell nobody that they are unknown.
pub(super) struct LookupGuard {
    requests: Requests,
    names: Vec<HostName>,
}

impl Drop for LookupGuard {
    fn drop(&mut self) {
        self.requests.set_taken_up(&self.names, true);
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
        let gone = |_| {
            Err(ObtainError {
                why: "the gateway stops".to_owned(),
                retry_after: None,
                is_begun: false,
            })
        };
        self.enqueue_name(name)?.await.unwrap_or_else(gone)?;
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
