//! What a request holds while it uses an address, and the queue of requests that wait for one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::availability::Trial;
use super::endpoint::Endpoint;

/// How many requests may wait for a pool whose addresses all have as many as they may.
const MAX_WAITING: usize = 100;

/// A request's use of an address, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    endpoint: Arc<Endpoint>,
    trial: Option<Trial>,
    queue: Option<Arc<Queue>>,
}

impl Admission {
    /// The use of `endpoint` by a request that it has counted. Its end wakes the next request in
    /// `queue`.
    pub(super) fn new(
        endpoint: &Arc<Endpoint>,
        trial: Option<Trial>,
        queue: Option<&Arc<Queue>>,
    ) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            trial,
            queue: queue.cloned(),
        }
    }

    /// Whether the request is the trial of an ejected address.
    #[cfg(test)]
    pub(super) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// The trial that the request is, whose result the caller knows.
    pub(super) fn take_trial(&mut self) -> Option<Trial> {
        self.trial.take()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(trial) = self.trial {
            self.endpoint.availability.release_trial(trial);
        }
        self.endpoint.leave();
        if let Some(queue) = &self.queue {
            queue.wake_next();
        }
    }
}

/// How often a request that waits looks whether there is room. Addresses also become available in
/// ways that wake nobody: they are found, healthy again, or no longer avoided.
const LOOK: Duration = Duration::from_millis(500);

/// Requests that wait until an address may have another one; the longest-waiting comes first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    turn: Notify,
}

/// A place in a queue, given up when it is dropped.
struct Place<'a>(&'a Queue);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// Whether requests wait, which others must not overtake.
    pub(super) fn is_used(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Waits until `admit` gives something, asked whenever it is this request's turn. `None` if that
    /// takes longer than `patience`, or if too many wait already.
    pub(super) async fn wait<T>(
        &self,
        patience: Duration,
        mut admit: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let order = Ordering::Relaxed;
        let enter = |count: usize| (count < MAX_WAITING).then(|| count.saturating_add(1));
        let before = self.waiting.fetch_update(order, order, enter).ok()?;
        let _place = Place(self);
        let deadline = Instant::now().checked_add(patience)?;
        let mut may_try = before == 0;
        loop {
            let mut turn = pin!(self.turn.notified());
            turn.as_mut().enable();
            if may_try && let Some(admitted) = admit() {
                // There may be room for more than one.
                self.wake_next();
                return Some(admitted);
            }
            loop {
                let look = deadline.min(Instant::now() + LOOK);
                if timeout_at(look, turn.as_mut()).await.is_ok() {
                    break;
                }
                if let Some(admitted) = admit() {
                    self.wake_next();
                    return Some(admitted);
                }
                if look == deadline {
                    return None;
                }
            }
            may_try = true;
        }
    }

    pub(super) fn wake_next(&self) {
        // If none waits, the next that comes tries at once.
        self.turn.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_request_that_waits_longest_is_next() {
        let queue = Arc::new(Queue::default());
        let room = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3 {
            let (queue, room, done) = (Arc::clone(&queue), Arc::clone(&room), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                let take = |free: usize| free.checked_sub(1);
                let order = Ordering::Relaxed;
                let admit = || room.fetch_update(order, order, take).ok();
                queue.wait(PATIENCE, admit).await.expect("in time");
                done.lock().expect("not poisoned").push(number);
            }));
            tokio::task::yield_now().await;
        }
        assert!(queue.is_used());
        // Two places at once, of which one is announced.
        room.store(2, Ordering::Relaxed);
        queue.wake_next();
        while done.lock().expect("not poisoned").len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*done.lock().expect("not poisoned"), [0, 1]);
        room.store(1, Ordering::Relaxed);
        queue.wake_next();
        for task in tasks {
            task.await.expect("no panic");
        }
        assert!(!queue.is_used());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_no_longer_than_it_may() {
        let queue = Queue::default();
        let start = Instant::now();
        assert_eq!(queue.wait(PATIENCE, || None::<()>).await, None);
        assert_eq!(start.elapsed().as_secs(), PATIENCE.as_secs());
        assert!(!queue.is_used());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_takes_no_more() {
        let queue = Arc::new(Queue::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..MAX_WAITING {
            let queue = Arc::clone(&queue);
            tasks.spawn(async move { queue.wait(PATIENCE, || None::<()>).await });
        }
        while queue.waiting.load(Ordering::Relaxed) < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        assert_eq!(queue.wait(PATIENCE, || Some(())).await, None);
        assert_eq!(start.elapsed(), Duration::ZERO);
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        assert_eq!(queue.wait(PATIENCE, || Some(())).await, Some(()));
    }
}
