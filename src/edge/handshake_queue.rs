//! A queue of handshakes, so that many of them do not delay requests on open connections.
//!
//! A step of a handshake occupies a thread some thirty times as long as a request that the gateway
//! answers itself. When many are ready at once, in a flood or when all clients reconnect, the
//! runtime runs one after the other, and each request waits for all of them. So the runtime's queue
//! holds no more handshakes than there are threads. All others wait outside it, in the order in
//! which they arrived.
//!
//! A thread pool for handshakes, which Pingora offers, was measured for comparison: it moves each
//! handshake between threads and leaves the order to the kernel.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::slot::Slot;

/// Admits the steps of all handshakes in order.
pub(super) struct HandshakeQueue {
    turns: Semaphore,
    threads: usize,
    /// How many handshakes have begun and not ended.
    open: AtomicUsize,
}

impl HandshakeQueue {
    /// A queue for handshakes that run on `threads` threads.
    pub(super) fn with_threads(threads: usize) -> Self {
        let threads = threads.max(1);
        Self {
            turns: Semaphore::new(threads),
            threads,
            open: AtomicUsize::new(0),
        }
    }

    /// How many handshakes have begun and not ended.
    pub(super) fn open_handshakes(&self) -> u64 {
        self.open.load(Ordering::Relaxed) as u64
    }

    /// Runs `handshake` to its end. If more handshakes than threads are open, each step waits for
    /// its turn. Between steps, when the handshake waits for its client, it has no turn, and its
    /// connection may be closed to make room for another.
    pub(super) async fn run_handshake<F: Future>(&self, slot: &Slot, handshake: F) -> F::Output {
        let open = OpenHandshake::enter(&self.open);
        let mut handshake = pin!(handshake);
        loop {
            let occupied = slot.occupy();
            let turn = if open.total() > self.threads {
                // The semaphore is never closed.
                let turn = self.turns.acquire().await.ok();
                // To the end of the runtime's queue: behind all requests that are ready.
                yield_now().await;
                turn
            } else {
                None
            };
            let step = poll_fn(|context| Poll::Ready(handshake.as_mut().poll(context))).await;
            drop(turn);
            if let Poll::Ready(output) = step {
                return output;
            }
            drop(occupied);
            await_wake().await;
        }
    }
}

/// Waits until this task is woken by what it has polled before.
async fn await_wake() {
    let mut is_woken = false;
    poll_fn(|_| match std::mem::replace(&mut is_woken, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// One of the open handshakes.
struct OpenHandshake<'a>(&'a AtomicUsize);

impl<'a> OpenHandshake<'a> {
    fn enter(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }

    /// How many handshakes are open.
    fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OpenHandshake<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::sync::{oneshot, watch};
    use tokio::task::JoinSet;

    use super::*;

    /// What ran, in its order.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<&'static str>>>);

    impl Log {
        fn note(&self, what: &'static str) {
            self.0.lock().expect("no panic").push(what);
        }

        fn seen(&self) -> Vec<&'static str> {
            self.0.lock().expect("no panic").clone()
        }
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_a_crowd() {
        let (turns, log) = (Arc::new(HandshakeQueue::with_threads(1)), Log::default());
        let (clients, from_clients) = watch::channel(false);
        let mut crowd = JoinSet::new();
        for _ in 0..50 {
            let (turns, log, mut client) = (Arc::clone(&turns), log.clone(), from_clients.clone());
            let handshake = async move {
                let sent = client.wait_for(|has_sent| *has_sent).await;
                sent.expect("a client");
                log.note("step");
            };
            crowd.spawn(async move { turns.run_handshake(&Slot::default(), handshake).await });
        }
        while turns.open.load(Ordering::Relaxed) < 50 || turns.turns.available_permits() == 0 {
            yield_now().await;
        }
        clients.send(true).expect("they wait");
        let request = log.clone();
        crowd.spawn(async move { request.note("request") });
        crowd.join_all().await;
        let seen = log.seen();
        assert_eq!(seen.first(), Some(&"request"), "{seen:?}");
        assert_eq!(seen.len(), 51);
    }

    #[tokio::test]
    async fn who_waits_for_a_client_holds_up_nobody() {
        let turns = Arc::new(HandshakeQueue::with_threads(2));
        let mut waiting = JoinSet::new();
        let mut clients = Vec::new();
        for _ in 0..20 {
            let (client, from_client) = oneshot::channel::<()>();
            clients.push(client);
            let turns = Arc::clone(&turns);
            waiting.spawn(async move { turns.run_handshake(&Slot::default(), from_client).await });
        }
        yield_now().await;
        let slot = Slot::default();
        let quick = turns.run_handshake(&slot, async { 7 });
        let quick = tokio::time::timeout(Duration::from_secs(10), quick).await;
        assert_eq!(quick, Ok(7));
        for client in clients {
            client.send(()).expect("it waits");
        }
        while let Some(done) = waiting.join_next().await {
            assert_eq!(done.expect("no panic"), Ok(()));
        }
    }

    #[tokio::test]
    async fn who_gives_up_leaves_its_turn_to_others() {
        let turns = Arc::new(HandshakeQueue::with_threads(1));
        let mut crowd = JoinSet::new();
        for _ in 0..20 {
            let turns = Arc::clone(&turns);
            crowd.spawn(async move {
                turns
                    .run_handshake(&Slot::default(), std::future::pending::<()>())
                    .await
            });
        }
        for _ in 0..3 {
            yield_now().await;
        }
        // Some with a turn, some that wait for theirs.
        crowd.shutdown().await;
        assert_eq!(turns.open.load(Ordering::Relaxed), 0);
        assert_eq!(turns.turns.available_permits(), 1);
    }
}
