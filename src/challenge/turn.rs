//! Whose turn it is with a name that can answer only one validation at a time: over TLS a CA asks
//! by the name alone, and two orders with a name in common, of two certificates or at two CAs,
//! would answer for each other.
//!
//! Those that wait are served in the order in which they came. What is the same challenge to both
//! is answered for both.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::Challenge;
use crate::host::Identifier;

/// The turns of all names.
#[derive(Default)]
pub(super) struct Turns {
    /// For each name those that are at it: whoever is first has it.
    queues: Mutex<HashMap<Identifier, VecDeque<Turn>>>,
    /// Counts what has been given back.
    released: watch::Sender<u64>,
}

struct Turn {
    key_authorization: String,
    /// How many have it, or wait for it.
    users: usize,
}

/// A turn that is given back when dropped, unless it is kept.
pub(super) struct Taken<'a> {
    turns: &'a Turns,
    challenge: &'a Challenge,
}

impl Turns {
    /// Waits until the name of this challenge is free for it; `None` where that takes too long.
    pub(super) async fn take<'a>(
        &'a self,
        challenge: &'a Challenge,
        patience: Duration,
    ) -> Option<Taken<'a>> {
        let mut released = self.released.subscribe();
        self.enter(challenge);
        // From here on: whoever gives up waiting leaves the queue.
        let taken = self.return_of(challenge);
        let is_up = released.wait_for(|_| self.is_up(challenge));
        match timeout(patience, is_up).await {
            Ok(Ok(_)) => Some(taken),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// A turn that was kept, to be given back when the result is dropped.
    pub(super) fn return_of<'a>(&'a self, challenge: &'a Challenge) -> Taken<'a> {
        Taken {
            turns: self,
            challenge,
        }
    }

    fn enter(&self, challenge: &Challenge) {
        let mut queues = self.queues();
        let queue = queues.entry(challenge.domain.clone()).or_default();
        match queue.iter_mut().find(|turn| turn.is_of(challenge)) {
            Some(turn) => turn.users += 1,
            None => queue.push_back(Turn {
                key_authorization: challenge.key_authorization.clone(),
                users: 1,
            }),
        }
    }

    fn is_up(&self, challenge: &Challenge) -> bool {
        let queues = self.queues();
        let first = queues.get(&challenge.domain).and_then(VecDeque::front);
        first.is_some_and(|turn| turn.is_of(challenge))
    }

    fn leave(&self, challenge: &Challenge) {
        let mut queues = self.queues();
        if let Some(queue) = queues.get_mut(&challenge.domain) {
            if let Some(turn) = queue.iter_mut().find(|turn| turn.is_of(challenge)) {
                turn.users = turn.users.saturating_sub(1);
            }
            queue.retain(|turn| turn.users > 0);
            if queue.is_empty() {
                queues.remove(&challenge.domain);
            }
        }
        drop(queues);
        self.released
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Each critical section leaves the queues whole.
    fn queues(&self) -> MutexGuard<'_, HashMap<Identifier, VecDeque<Turn>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn is_of(&self, challenge: &Challenge) -> bool {
        self.key_authorization == challenge.key_authorization
    }
}

impl Taken<'_> {
    /// Keeps the turn until [`Turns::return_of`].
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.turns.leave(self.challenge);
    }
}
