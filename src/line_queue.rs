//! Log lines on their way to a file or stream, written by a separate thread.
//!
//! A caller appends its line to a buffer and returns. A stalled reader, a slow disk or a full one
//! holds up the thread, and nothing else. The buffer is bounded in octets; lines that do not fit or
//! cannot be written are lost and counted, and the losses are logged once lines are written again.

mod writer;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use self::writer::Writer;
use crate::lock::MutexExt;

/// Where lines are written.
#[derive(Clone, Debug)]
pub enum Target {
    /// Appended to a file, which [`LineQueue::reopen`] reopens.
    File(PathBuf),
    Stdout,
    Stderr,
}

impl Target {
    fn open(&self) -> io::Result<File> {
        match self {
            Self::File(path) => append(path),
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        }
    }
}

/// The settings of a queue.
#[derive(Debug)]
pub struct Setup {
    /// The name of the log in messages, such as "the access log".
    pub name: &'static str,
    /// The name of its thread.
    pub thread: &'static str,
    pub target: Target,
    /// How many octets may be waiting or in transit.
    pub capacity: usize,
    /// Counts lost lines.
    pub lost: IntCounter,
}

/// A queue. A handle; clones share it. The thread ends once the last is dropped and everything is
/// written.
#[derive(Clone)]
pub struct LineQueue(Arc<Handle>);

impl LineQueue {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// If the target cannot be opened, or no thread can be started.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let out = setup.target.open()?;
        let thread = thread::Builder::new().name(setup.thread.to_owned());
        let shared = Arc::new(Shared {
            capacity: setup.capacity,
            lost: setup.lost.clone(),
            state: Mutex::new(State {
                waiting: buffer(setup.capacity),
                ..State::default()
            }),
            work: Condvar::new(),
            written: Condvar::new(),
        });
        let writer = Writer::new(Arc::clone(&shared), setup, out);
        thread.spawn(move || writer.run())?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Queues a line, which ends in `\n`, or loses it if there is no room. Never waits for the
    /// target.
    pub fn push(&self, line: &[u8]) {
        let Handle(shared) = &*self.0;
        let mut state = shared.lock();
        if state.waiting.len() + state.in_hand + line.len() > shared.capacity {
            state.loss.add(1, line.len());
            drop(state);
            shared.lost.inc();
            return;
        }
        state.waiting.extend_from_slice(line);
        state.accepted += 1;
        shared.wake(state);
    }

    /// Reopens the file, so that a rotated one is released. Lines queued before go to the old one.
    /// If that fails, it is retried, and the old file is written meanwhile.
    pub fn reopen(&self) {
        let Handle(shared) = &*self.0;
        let mut state = shared.lock();
        let here = state.waiting.len();
        state.reopen.get_or_insert(here);
        state.accepted += 1;
        shared.wake(state);
    }

    /// Waits until everything queued before is written or lost, for at most `patience`. Returns
    /// true if it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let Handle(shared) = &*self.0;
        let until = Instant::now() + patience;
        let mut state = shared.lock();
        let last = state.accepted;
        while state.handled < last {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = shared.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl fmt::Debug for LineQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LineQueue").finish_non_exhaustive()
    }
}

/// Ends the thread when dropped.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        self.0.wake(state);
    }
}

/// What the handles and the thread share.
struct Shared {
    capacity: usize,
    lost: IntCounter,
    state: Mutex<State>,
    /// There is something for the thread to do.
    work: Condvar,
    /// [`State::handled`] has grown.
    written: Condvar,
}

#[derive(Default)]
struct State {
    /// The lines that wait.
    waiting: Vec<u8>,
    /// How many octets the thread has taken and not yet written.
    in_hand: usize,
    /// Where in `waiting` the file is to be reopened.
    reopen: Option<usize>,
    /// How many requests were accepted: lines, and calls to reopen.
    accepted: u64,
    /// How many of them were carried out or given up.
    handled: u64,
    /// What was lost and has not been logged.
    loss: Loss,
    /// Whether the thread sleeps, and nobody has woken it.
    sleeps: bool,
    is_closed: bool,
}

/// What was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Loss {
    lines: u64,
    octets: u64,
}

impl Loss {
    fn add(&mut self, lines: u64, octets: usize) {
        self.lines += lines;
        self.octets += octets as u64;
    }
}

/// What the thread takes at once.
struct Batch {
    lines: Vec<u8>,
    /// Where in them the file is to be reopened.
    reopen: Option<usize>,
    /// The value of [`State::handled`] once they are written.
    last: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in between panics, and half a line is better than no log.
        self.state.lock_unpoisoned()
    }

    /// Wakes the thread if it sleeps: a wake-up costs a system call.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
            self.work.notify_one();
        }
    }

    /// Takes everything that waits, as soon as there is something, or after `patience` in any case.
    /// `None` once the last handle is gone. `spare` is a buffer to fill next.
    fn take_batch(&self, spare: Vec<u8>, patience: Option<Duration>) -> Option<Batch> {
        let mut state = self.lock();
        let until = patience.map(|patience| Instant::now() + patience);
        while state.waiting.is_empty() && state.reopen.is_none() {
            if state.is_closed {
                return None;
            }
            state.sleeps = true;
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => {
                    let waited = self.work.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    let waited = self.work.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        state.sleeps = false;
        let lines = std::mem::replace(&mut state.waiting, spare);
        state.in_hand = lines.len();
        Some(Batch {
            lines,
            reopen: state.reopen.take(),
            last: state.accepted,
        })
    }

    /// Records that a batch is done, of which `lost` was lost. Returns all that was lost and has
    /// not been logged.
    fn finish(&self, last: u64, lost: Loss) -> Loss {
        self.lost.inc_by(lost.lines);
        let mut state = self.lock();
        state.in_hand = 0;
        state.handled = last;
        state.loss.lines += lost.lines;
        state.loss.octets += lost.octets;
        let loss = state.loss;
        drop(state);
        self.written.notify_all();
        loss
    }

    /// Records that these losses are being logged.
    fn forget_loss(&self, logged: Loss) {
        let mut state = self.lock();
        state.loss.lines -= logged.lines;
        state.loss.octets -= logged.octets;
    }
}

/// A buffer that never grows. Its unused part takes no memory.
fn buffer(capacity: usize) -> Vec<u8> {
    Vec::with_capacity(capacity)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests;
