//! What clients wait for: the names that they have asked for, and who is told what came of them.
//!
//! [`Demands`] is the other end of the manager: handshakes ask here, wait for nobody's lock and do
//! no I/O; the service that renews takes up what was asked for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{Notify, oneshot};

use super::super::job::Tools;
use super::record::Record;
use crate::certificate::Validity;
use crate::certificate::sni::{CertificateSet, SniMap};
use crate::clock::Clock;
use crate::host::{HostName, Pattern};
use crate::on_demand::{Maker, NotMade};
use crate::storage::{Storage, keys};

/// How many names are waited for at most.
const MOST_WAITED_FOR: usize = 1_000;

/// After how long it is worth another try where there were too many.
const TOO_MANY: Duration = Duration::from_secs(5);

/// Has certificates obtained by the manager for whoever asks. A handle; clones share it.
#[derive(Clone)]
pub struct Demands(Arc<Shared>);

struct Shared {
    published: Arc<ArcSwap<SniMap>>,
    clock: Arc<dyn Clock>,
    storage: Arc<dyn Storage>,
    /// Whether all that the storage had of names is at hand.
    is_walked: AtomicBool,
    waiting: Mutex<Waiting>,
    asked: Notify,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Those of `by_name` that nobody has taken up.
    new: Vec<HostName>,
    by_name: HashMap<HostName, Vec<oneshot::Sender<Result<(), NotMade>>>>,
}

impl Demands {
    /// Finds what is obtained in `published`, and what there was before in the storage.
    pub(in crate::manager) fn new(published: Arc<ArcSwap<SniMap>>, tools: &Tools) -> Self {
        Self(Arc::new(Shared {
            published,
            clock: Arc::clone(&tools.clock),
            storage: Arc::clone(&tools.storage),
            is_walked: AtomicBool::new(false),
            waiting: Mutex::default(),
            asked: Notify::new(),
            changed: Notify::new(),
        }))
    }

    /// Waits until a name has been asked for.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Waits until other names than before may have certificates.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Whether names wait to be taken up.
    pub fn has_new(&self) -> bool {
        !self.waiting().new.is_empty()
    }

    /// Says that what the storage has of names has been taken up.
    pub fn walked(&self) {
        self.0.is_walked.store(true, Ordering::Relaxed);
    }

    /// Says that other names than before may have certificates.
    pub(in crate::manager) fn change(&self) {
        self.0.is_walked.store(false, Ordering::Relaxed);
        self.0.changed.notify_one();
    }

    /// The names that have been asked for since the last call.
    pub(in crate::manager) fn take_new(&self) -> Vec<HostName> {
        std::mem::take(&mut self.waiting().new)
    }

    /// The names that were taken up and are waited for still.
    pub(in crate::manager) fn waited_for(&self) -> Vec<HostName> {
        let waiting = self.waiting();
        let names = waiting.by_name.keys();
        names
            .filter(|name| !waiting.new.contains(name))
            .cloned()
            .collect()
    }

    /// Tells all who wait for `name` what came of it.
    pub(in crate::manager) fn answer(&self, name: &HostName, answer: &Result<(), NotMade>) {
        let waiting = self.waiting().by_name.remove(name);
        for sender in waiting.into_iter().flatten() {
            // Who asked may have gone.
            let _ = sender.send(answer.clone());
        }
    }

    fn ask(&self, name: &HostName) -> Result<oneshot::Receiver<Result<(), NotMade>>, NotMade> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        let known = waiting.by_name.len();
        let is_new = match waiting.by_name.entry(name.clone()) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().push(sender);
                false
            }
            Entry::Vacant(_) if known >= MOST_WAITED_FOR => {
                return Err(NotMade {
                    why: format!("{MOST_WAITED_FOR} other names are waited for"),
                    retry_after: Some(TOO_MANY),
                });
            }
            Entry::Vacant(entry) => {
                entry.insert(vec![sender]);
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

#[async_trait]
impl Maker for Demands {
    fn at_hand(&self, name: &HostName) -> Option<Arc<CertificateSet>> {
        let (map, now) = (self.0.published.load(), self.0.clock.now());
        let set = map.lookup(name.as_str())?;
        let mut certificates = set.by_kind.iter();
        let is_valid = certificates.all(|one| one.validity(now) == Validity::Valid);
        is_valid.then(|| Arc::clone(set))
    }

    async fn knows(&self, name: &HostName) -> bool {
        if self.0.is_walked.load(Ordering::Relaxed) {
            return false;
        }
        let (storage, name) = (Arc::clone(&self.0.storage), name.clone());
        let known = tokio::task::spawn_blocking(move || {
            let subject = keys::subject(&[Pattern::Exact(name)]);
            let key = keys::on_demand(&subject).ok()?;
            Record::load(&*storage, &key).ok().flatten()
        });
        known.await.is_ok_and(|record| record.is_some())
    }

    async fn obtain(&self, name: &HostName) -> Result<Arc<CertificateSet>, NotMade> {
        if let Some(set) = self.at_hand(name) {
            return Ok(set);
        }
        let gone = |_| {
            Err(NotMade {
                why: "the gateway stops".to_owned(),
                retry_after: None,
            })
        };
        self.ask(name)?.await.unwrap_or_else(gone)?;
        self.at_hand(name).ok_or_else(|| NotMade {
            why: "its certificate was taken away at once".to_owned(),
            retry_after: None,
        })
    }
}
