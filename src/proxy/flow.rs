//! The flow of a response to the client of an HTTP/2 stream.
//!
//! Many streams share one connection, and each could make the gateway buffer what its server sends.
//! So the edge, which writes to the stream, and [`super::link`], which reads from the server, share
//! a [`Flow`]: while a write waits for the client, nothing more is read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::connection_limit::Held;
use crate::lock::MutexExt as _;

/// Octets that the streams of a connection share: what is read from servers before the writers have
/// their turn.
const SHARED: usize = 512 * 1024;

/// The smallest and the largest share of one stream.
const LEAST: usize = 8 * 1024;
const MOST: usize = 64 * 1024;

/// The state of one stream, which the edge puts into the extensions of the request's head.
#[derive(Debug, Default)]
pub struct Flow {
    is_writing: AtomicBool,
    reader: Mutex<Option<Waker>>,
    /// Octets that have been read since the reader last yielded.
    burst: AtomicUsize,
    /// Whether the client has cancelled its request.
    is_cancelled: AtomicBool,
    /// What the requests of the stream's connection use.
    pub(super) held: Arc<Held>,
}

impl Flow {
    /// The flow of a stream whose connection's requests use what `held` counts.
    pub fn new(held: &Arc<Held>) -> Self {
        Self {
            held: Arc::clone(held),
            ..Self::default()
        }
    }

    /// Records that the client has cancelled its request, or is gone.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the client has cancelled its request.
    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Marks a write to the client, for as long as the guard lives.
    pub fn write(self: &Arc<Self>) -> Write {
        self.is_writing.store(true, Ordering::Release);
        self.burst.store(0, Ordering::Relaxed);
        Write(Arc::clone(self))
    }

    /// How many octets may be read from the server now. Pending while the client does not read.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.is_writing.load(Ordering::Acquire) {
            self.set_reader(Some(cx.waker().clone()));
            // The write may have ended in between, on another thread.
            if self.is_writing.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        match self.share().checked_sub(self.burst.load(Ordering::Relaxed)) {
            Some(connection_limit @ 1..) => Poll::Ready(connection_limit),
            // The writer shares this task, and must see what was read before more is.
            _ => {
                self.burst.store(0, Ordering::Relaxed);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// How many octets may be read before the writer has its turn.
    fn share(&self) -> usize {
        (SHARED / self.held.requests().max(1)).clamp(LEAST, MOST)
    }

    pub(super) fn note_read(&self, octets: usize) {
        self.burst.fetch_add(octets, Ordering::Relaxed);
    }

    fn set_reader(&self, reader: Option<Waker>) -> Option<Waker> {
        let mut slot = self.reader.lock_unpoisoned();
        std::mem::replace(&mut *slot, reader)
    }
}

/// A write that is under way.
#[derive(Debug)]
pub struct Write(Arc<Flow>);

impl Drop for Write {
    fn drop(&mut self) {
        self.0.is_writing.store(false, Ordering::Release);
        if let Some(reader) = self.0.set_reader(None) {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn nothing_is_read_while_the_client_takes_nothing() {
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        let times = || woken.0.load(Ordering::Relaxed);

        let flow = Arc::new(Flow::default());
        assert_eq!(flow.poll_read(&mut cx), Poll::Ready(MOST));
        flow.note_read(100);
        assert_eq!(flow.poll_read(&mut cx), Poll::Ready(MOST - 100));
        flow.note_read(MOST - 100);
        assert!(flow.poll_read(&mut cx).is_pending());
        assert_eq!(times(), 1, "the reader gives way, and comes back");
        assert_eq!(flow.poll_read(&mut cx), Poll::Ready(MOST));

        let write = flow.write();
        assert!(flow.poll_read(&mut cx).is_pending());
        assert!(flow.poll_read(&mut cx).is_pending());
        assert_eq!(times(), 1);
        drop(write);
        assert_eq!(times(), 2, "the end of the write wakes the reader");
        assert_eq!(flow.poll_read(&mut cx), Poll::Ready(MOST));
    }

    #[test]
    fn the_streams_of_a_connection_share() {
        let held: Arc<Held> = Arc::default();
        let flow = Flow::new(&held);
        for (count, share) in [(1, MOST), (8, MOST), (16, MOST / 2), (100, LEAST)] {
            held.set_at_upstreams(count);
            assert_eq!(flow.share(), share, "{count} streams");
        }
    }
}
