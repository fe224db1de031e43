//! What a request holds while it uses an address, and the queue of requests that wait for one.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::availability::Trial;
use super::endpoint::Endpoint;
use crate::lock::MutexExt as _;

/// How many requests may wait for a pool whose addresses all have as many as they may.
const MAX_WAITING: usize = 100;

/// For each place in line that a client's connection has, this many must be free.
const SHARE: usize = 4;

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

/// How often the first request in line looks whether there is room. Addresses also become available
/// in ways that wake nobody: they are found, healthy again, or no longer avoided.
const LOOK: Duration = Duration::from_millis(500);

/// Requests that wait until an address may have another one, in the order of their arrival. Only the
/// first one tries, and it stays the first until it has succeeded or given up.
#[derive(Debug, Default)]
pub(super) struct Queue {
    line: Mutex<VecDeque<Waiting>>,
    /// How many requests are in line.
    waiting: AtomicUsize,
}

/// A request in line.
#[derive(Debug)]
struct Waiting {
    /// What wakes it once it is the first, and whenever there may be room.
    turn: Arc<Notify>,
    /// The client's connection, if that may have several requests.
    connection: Option<usize>,
}

/// A place in line, given up when it is dropped.
struct Place<'a> {
    queue: &'a Queue,
    turn: Arc<Notify>,
}

impl Place<'_> {
    fn is_first(&self) -> bool {
        let line = self.queue.line.lock_unpoisoned();
        let first = line.front();
        first.is_some_and(|first| Arc::ptr_eq(&first.turn, &self.turn))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line.lock_unpoisoned();
        let place = line
            .iter()
            .position(|one| Arc::ptr_eq(&one.turn, &self.turn));
        if let Some(place) = place {
            line.remove(place);
        }
        self.queue.note_length(line.len());
        // Whoever moves up tries: there may be room for more than one.
        if place == Some(0)
            && let Some(first) = line.front()
        {
            first.turn.notify_one();
        }
    }
}

impl Queue {
    /// Whether requests wait, which others must not overtake.
    pub(super) fn is_used(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Waits until `admit` gives something, asked whenever it is this request's turn. `None` if that
    /// takes longer than `patience`, or if too many wait already. `connection` identifies that of the
    /// client, if it may have several requests.
    pub(super) async fn wait<T>(
        &self,
        connection: Option<usize>,
        patience: Duration,
        mut admit: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let place = self.enter(connection)?;
        let deadline = Instant::now().checked_add(patience)?;
        loop {
            let mut turn = pin!(place.turn.notified());
            turn.as_mut().enable();
            let is_first = place.is_first();
            if is_first && let Some(admitted) = admit() {
                return Some(admitted);
            }
            let now = Instant::now();
            if now >= deadline {
                return None;
            }
            let until = match is_first {
                true => deadline.min(now + LOOK),
                false => deadline,
            };
            _ = timeout_at(until, turn).await;
        }
    }

    /// A place at the end of the line; `None` if too many wait already. A client's connection may have
    /// a quarter of what it leaves free, and one place in any case.
    fn enter(&self, connection: Option<usize>) -> Option<Place<'_>> {
        let mut line = self.line.lock_unpoisoned();
        let of_client = |one: &&Waiting| connection.is_some() && one.connection == connection;
        let own = line.iter().filter(of_client).count();
        if own * SHARE >= MAX_WAITING.saturating_sub(line.len()) {
            return None;
        }
        let turn = Arc::new(Notify::new());
        line.push_back(Waiting {
            turn: Arc::clone(&turn),
            connection,
        });
        self.note_length(line.len());
        // Either this request sees the room that another leaves, or that one sees this request.
        fence(Ordering::SeqCst);
        Some(Place { queue: self, turn })
    }

    fn note_length(&self, length: usize) {
        self.waiting.store(length, Ordering::Relaxed);
    }

    /// Has the first request in line try. If none waits, the next that comes tries at once.
    pub(super) fn wake_next(&self) {
        fence(Ordering::SeqCst);
        if self.is_used()
            && let Some(first) = self.line.lock_unpoisoned().front()
        {
            first.turn.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Requests that wait in line, with numbers from 0.
    struct Line {
        queue: Arc<Queue>,
        /// How many may be admitted.
        room: Arc<AtomicUsize>,
        /// Those that have been admitted.
        done: Arc<Mutex<Vec<usize>>>,
        tasks: Vec<tokio::task::JoinHandle<()>>,
    }

    /// So many requests that wait in line.
    async fn line(length: usize) -> Line {
        let queue = Arc::new(Queue::default());
        let room = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..length {
            let (queue, room, done) = (Arc::clone(&queue), Arc::clone(&room), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                let take = |free: usize| free.checked_sub(1);
                let order = Ordering::Relaxed;
                let admit = || room.fetch_update(order, order, take).ok();
                queue.wait(None, PATIENCE, admit).await.expect("in time");
                done.lock().expect("not poisoned").push(number);
            }));
            tokio::task::yield_now().await;
        }
        Line {
            queue,
            room,
            done,
            tasks,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_that_waits_longest_is_next() {
        let Line {
            queue,
            room,
            done,
            tasks,
        } = line(3).await;
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
    async fn a_request_that_is_woken_in_vain_keeps_its_place() {
        let Line {
            queue,
            room,
            done,
            tasks,
        } = line(4).await;
        for _ in 0..4 {
            // Another request was faster, three times.
            for _ in 0..3 {
                queue.wake_next();
                tokio::time::sleep(LOOK / 2).await;
            }
            room.store(1, Ordering::Relaxed);
            tokio::time::sleep(LOOK * 2).await;
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(*done.lock().expect("not poisoned"), [0, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_gives_up_leaves_its_turn_to_the_next() {
        let queue = Arc::new(Queue::default());
        let waiting = |queue: &Arc<Queue>| {
            let queue = Arc::clone(queue);
            tokio::spawn(async move { queue.wait(None, PATIENCE, || None::<()>).await })
        };
        let first = waiting(&queue);
        tokio::task::yield_now().await;
        let second = queue.wait(None, PATIENCE, || Some(()));
        let start = Instant::now();
        let (second, ()) = tokio::join!(second, async {
            tokio::task::yield_now().await;
            queue.wake_next();
            first.abort();
        });
        assert_eq!(second, Some(()));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(!queue.is_used());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_no_longer_than_it_may() {
        let queue = Queue::default();
        let start = Instant::now();
        assert_eq!(queue.wait(None, PATIENCE, || None::<()>).await, None);
        assert_eq!(start.elapsed().as_secs(), PATIENCE.as_secs());
        assert!(!queue.is_used());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_with_many_requests_leaves_room_for_others() {
        let queue = Queue::default();
        let fill = |connection| -> Vec<Place<'_>> {
            std::iter::from_fn(|| queue.enter(connection)).collect()
        };
        let greedy = fill(Some(1));
        assert_eq!(greedy.len(), 20);
        let other = fill(Some(2));
        assert_eq!(other.len(), 16);
        assert_eq!(fill(None).len(), MAX_WAITING - 36);
        drop(greedy);
        assert!(queue.enter(Some(1)).is_some() && queue.enter(None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_takes_no_more() {
        let queue = Arc::new(Queue::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..MAX_WAITING {
            let queue = Arc::clone(&queue);
            tasks.spawn(async move { queue.wait(None, PATIENCE, || None::<()>).await });
        }
        while queue.waiting.load(Ordering::Relaxed) < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        assert_eq!(queue.wait(None, PATIENCE, || Some(())).await, None);
        assert_eq!(start.elapsed(), Duration::ZERO);
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        assert_eq!(queue.wait(None, PATIENCE, || Some(())).await, Some(()));
    }
}
