//! What the streams of a connection have handed over and the connection has not sent.
//!
//! The h2 crate bounds what it queues for each stream, but not for all streams together. One stream
//! alone is to have room for a response of usual size, a hundred of them are not.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::frames::{DATA, END_STREAM, Frame, HEADERS, RST_STREAM};
use crate::lock::MutexExt as _;

/// Queued octets from which on streams wait.
const LIMIT: usize = 4 * 1024 * 1024;

/// The octets of a connection's responses that are queued; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Mutex<Queues>>);

#[derive(Debug, Default)]
struct Queues {
    streams: Vec<Queue>,
    octets: usize,
    /// Streams that wait until octets have been sent.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Queue {
    stream: u32,
    octets: usize,
}

impl Outbox {
    /// Counts octets that a stream is about to queue. Ready once there is room for them.
    pub(super) fn poll_add(&self, cx: &mut Context<'_>, stream: u32, octets: usize) -> Poll<()> {
        if octets == 0 {
            // The end of a stream may have been sent, and nothing is to remain of it.
            return Poll::Ready(());
        }
        let mut queues = self.0.lock_unpoisoned();
        if queues.octets >= LIMIT {
            if !queues.waiting.iter().any(|one| one.will_wake(cx.waker())) {
                queues.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        queues.octets += octets;
        match queues.find(stream) {
            Some(queue) => queue.octets += octets,
            None => queues.streams.push(Queue { stream, octets }),
        }
        Poll::Ready(())
    }

    /// Counts octets as not queued.
    pub(super) fn subtract(&self, stream: u32, octets: usize) {
        if octets > 0 {
            self.0.lock_unpoisoned().subtract(stream, octets, false);
        }
    }

    /// Counts nothing of a stream that has failed.
    pub(super) fn remove(&self, stream: u32) {
        self.0.lock_unpoisoned().subtract(stream, 0, true);
    }

    /// Observes a frame that is sent.
    pub(super) fn observe_sent(&self, frame: Frame) {
        let octets = match frame.kind {
            DATA => frame.len,
            HEADERS | RST_STREAM => 0,
            _ => return,
        };
        let is_end = frame.kind == RST_STREAM || frame.has(END_STREAM);
        self.0
            .lock_unpoisoned()
            .subtract(frame.stream, octets, is_end);
    }

    /// Observes a frame that has arrived.
    pub(super) fn observe_received(&self, frame: Frame) {
        if frame.kind == RST_STREAM {
            self.0.lock_unpoisoned().subtract(frame.stream, 0, true);
        }
    }
}

impl Queues {
    fn find(&mut self, stream: u32) -> Option<&mut Queue> {
        self.streams.iter_mut().find(|one| one.stream == stream)
    }

    /// Counts octets of a stream as not queued, and all of them if `is_end`.
    fn subtract(&mut self, stream: u32, octets: usize, is_end: bool) {
        let Some(queue) = self.find(stream) else {
            // A response of the gateway itself, which is in memory in any case.
            return;
        };
        let gone = match is_end {
            true => queue.octets,
            false => queue.octets.min(octets),
        };
        queue.octets -= gone;
        if is_end {
            self.streams.retain(|one| one.stream != stream);
        }
        self.octets -= gone;
        if self.octets < LIMIT {
            self.waiting.drain(..).for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(stream: u32, len: usize, flags: u8) -> Frame {
        Frame {
            kind: DATA,
            flags,
            stream,
            len,
        }
    }

    fn reset(stream: u32) -> Frame {
        Frame {
            kind: RST_STREAM,
            flags: 0,
            stream,
            len: 4,
        }
    }

    fn add(outbox: &Outbox, stream: u32, octets: usize) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        outbox.poll_add(&mut cx, stream, octets).is_ready()
    }

    fn octets(outbox: &Outbox) -> (usize, usize) {
        let queues = outbox.0.lock_unpoisoned();
        (queues.octets, queues.streams.len())
    }

    #[test]
    fn what_is_sent_makes_room() {
        let outbox = Outbox::default();
        assert!(add(&outbox, 1, LIMIT - 1));
        assert!(add(&outbox, 3, 100), "the last part may exceed the limit");
        assert!(!add(&outbox, 1, 1));
        assert!(!add(&outbox, 5, 1));
        outbox.observe_sent(data(3, 99, 0));
        assert!(!add(&outbox, 5, 1), "the limit is reached");
        outbox.observe_sent(data(3, 1, 0));
        assert!(add(&outbox, 5, 1));
        outbox.subtract(5, 1);
        assert_eq!(octets(&outbox), (LIMIT - 1, 3));
    }

    #[test]
    fn the_end_of_a_stream_leaves_nothing() {
        let outbox = Outbox::default();
        assert!(add(&outbox, 1, 10) && add(&outbox, 3, 20) && add(&outbox, 5, 40));
        outbox.observe_sent(data(1, 10, END_STREAM));
        assert_eq!(octets(&outbox), (60, 2));
        outbox.observe_received(reset(3));
        assert_eq!(octets(&outbox), (40, 1));
        outbox.observe_sent(reset(5));
        assert_eq!(octets(&outbox), (0, 0));
        let trailers = |stream| Frame {
            kind: HEADERS,
            flags: END_STREAM,
            stream,
            len: 20,
        };
        assert!(add(&outbox, 9, 10));
        outbox.observe_sent(data(9, 10, 0));
        outbox.observe_sent(trailers(9));
        assert!(add(&outbox, 9, 0), "an end without octets");
        assert!(add(&outbox, 11, 10));
        outbox.remove(11);
        assert_eq!(octets(&outbox), (0, 0));
        // Responses of the gateway itself are not counted.
        outbox.observe_sent(data(7, 10, END_STREAM));
        outbox.subtract(7, 10);
        assert_eq!(octets(&outbox), (0, 0));
    }

    #[test]
    fn a_stream_that_waits_is_woken_once_there_is_room() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        #[derive(Default)]
        struct Woken(AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let outbox = Outbox::default();
        assert!(add(&outbox, 1, LIMIT));
        assert!(outbox.poll_add(&mut cx, 3, 1).is_pending());
        assert!(outbox.poll_add(&mut cx, 3, 1).is_pending());
        outbox.observe_sent(data(1, 0, 0));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        outbox.observe_sent(data(1, 1, 0));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(outbox.poll_add(&mut cx, 3, 1).is_ready());
    }
}
