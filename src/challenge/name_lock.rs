//! Locks of names that can have only one validation at a time: over TLS a CA asks for the name
//! alone, so two orders with a common name, of two certificates or at two CAs, would respond for
//! each other.
//!
//! Requests are served in the order in which they came. Two requests for the same challenge share
//! the lock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::Challenge;
use crate::host::Identifier;
use crate::lock::MutexExt;

/// The locks of all names.
#[derive(Default)]
pub(super) struct NameLocks {
    /// The requests for each name in order: the first has the lock.
    queues: Mutex<HashMap<Identifier, VecDeque<LockRequest>>>,
    /// Counts releases.
    released: watch::Sender<u64>,
}

struct LockRequest {
    key_authorization: String,
    /// How many hold the lock, or wait for it.
    users: usize,
}

/// A lock that is released when dropped, unless it is kept.
pub(super) struct NameLockGuard<'a> {
    name_locks: &'a NameLocks,
    challenge: &'a Challenge,
}

impl NameLocks {
    /// Waits until the name of this challenge is free; `None` if that takes too long.
    pub(super) async fn acquire<'a>(
        &'a self,
        challenge: &'a Challenge,
        patience: Duration,
    ) -> Option<NameLockGuard<'a>> {
        let mut released = self.released.subscribe();
        self.join_queue(challenge);
        // From here on, a caller that gives up waiting leaves the queue.
        let guard = self.resume_guard(challenge);
        let is_up = released.wait_for(|_| self.is_first(challenge));
        match timeout(patience, is_up).await {
            Ok(Ok(_)) => Some(guard),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// The guard of a lock that was kept, which is released when dropped.
    pub(super) fn resume_guard<'a>(&'a self, challenge: &'a Challenge) -> NameLockGuard<'a> {
        NameLockGuard {
            name_locks: self,
            challenge,
        }
    }

    fn join_queue(&self, challenge: &Challenge) {
        let mut queues = self.queues();
        let queue = queues.entry(challenge.domain.clone()).or_default();
        match queue.iter_mut().find(|request| request.is_of(challenge)) {
            Some(request) => request.users += 1,
            None => queue.push_back(LockRequest {
                key_authorization: challenge.key_authorization.clone(),
                users: 1,
            }),
        }
    }

    fn is_first(&self, challenge: &Challenge) -> bool {
        let queues = self.queues();
        let first = queues.get(&challenge.domain).and_then(VecDeque::front);
        first.is_some_and(|request| request.is_of(challenge))
    }

    fn leave_queue(&self, challenge: &Challenge) {
        let mut queues = self.queues();
        if let Some(queue) = queues.get_mut(&challenge.domain) {
            if let Some(request) = queue.iter_mut().find(|request| request.is_of(challenge)) {
                request.users = request.users.saturating_sub(1);
            }
            queue.retain(|request| request.users > 0);
            if queue.is_empty() {
                queues.remove(&challenge.domain);
            }
        }
        drop(queues);
        self.released
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Each critical section leaves the queues whole.
    fn queues(&self) -> MutexGuard<'_, HashMap<Identifier, VecDeque<LockRequest>>> {
        self.queues.lock_unpoisoned()
    }
}

impl LockRequest {
    fn is_of(&self, challenge: &Challenge) -> bool {
        self.key_authorization == challenge.key_authorization
    }
}

impl NameLockGuard<'_> {
    /// Keeps the lock until [`NameLocks::resume_guard`].
    pub(super) fn keep_locked(self) {
        std::mem::forget(self);
    }
}

impl Drop for NameLockGuard<'_> {
    fn drop(&mut self) {
        self.name_locks.leave_queue(self.challenge);
    }
}
