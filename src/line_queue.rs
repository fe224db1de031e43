//! Log lines on their way to a file, a stream or a daemon, written by a separate thread.
//!
//! A caller appends its line to a buffer and returns. A stalled reader, a slow disk or a full one, or
//! a daemon that does not respond holds up the thread, and nothing else. The buffer is bounded in
//! octets; lines that do not fit or cannot be written are lost and counted, and the losses are logged
//! once lines are written again.

mod daemon;
mod frame;
mod journal;
mod stream;
mod syslog;
mod transport;
mod writer;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use self::daemon::Daemon;
use self::stream::append;
use self::writer::Writer;
use crate::config::model::{LogTarget, Rotate, Syslog};
use crate::lock::MutexExt;

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Appended to a file, which [`LineQueue::reopen`] reopens.
    File(PathBuf),
    Stdout,
    Stderr,
    /// Sent to systemd's journal at this socket.
    Journal(PathBuf),
    Syslog(Syslog),
}

impl Target {
    /// The target that a configuration names; `None` if that is none.
    pub fn of(target: &LogTarget) -> Option<Self> {
        Some(match target {
            LogTarget::Off => return None,
            LogTarget::File(path) => Self::File(path.clone()),
            LogTarget::Stdout => Self::Stdout,
            LogTarget::Stderr => Self::Stderr,
            LogTarget::Journald(socket) => Self::Journal(socket.clone()),
            LogTarget::Syslog(syslog) => Self::Syslog(syslog.clone()),
        })
    }

    fn open(&self) -> io::Result<Out> {
        let file = match self {
            Self::File(path) => append(path)?,
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from)?,
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from)?,
            Self::Journal(socket) => return Ok(Out::Daemon(Box::new(Daemon::journal(socket)))),
            Self::Syslog(syslog) => return Ok(Out::Daemon(Box::new(Daemon::syslog(syslog)?))),
        };
        Ok(Out::File(file))
    }

    /// Whether lines are kept with what a daemon is sent along with them.
    fn is_daemon(&self) -> bool {
        matches!(self, Self::Journal(_) | Self::Syslog(_))
    }
}

/// An open target.
enum Out {
    File(File),
    Daemon(Box<Daemon>),
}

/// How urgent a line is, as syslog numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

/// The settings of a queue.
#[derive(Debug)]
pub struct Setup {
    /// The name of the log in messages, such as "the access log".
    pub name: &'static str,
    /// The name of its thread.
    pub thread: &'static str,
    pub target: Target,
    /// When its file is rotated, if it is one.
    pub rotate: Option<Rotate>,
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
        let target = setup.target.clone();
        let thread = thread::Builder::new().name(setup.thread.to_owned());
        let shared = Arc::new(Shared {
            capacity: setup.capacity,
            target,
            lost: setup.lost.clone(),
            rotates: AtomicBool::new(true),
            state: Mutex::new(State {
                waiting: buffer(setup.capacity),
                ..State::default()
            }),
            work: Condvar::new(),
            written: Condvar::new(),
            closed: Condvar::new(),
        });
        let writer = Writer::new(Arc::clone(&shared), setup, out);
        thread.spawn(move || writer.run())?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Queues a line, which ends in `\n`, or loses it if there is no room. Never waits for the
    /// target.
    pub fn push(&self, line: &[u8]) {
        self.push_record(Severity::Info, line.strip_suffix(b"\n").unwrap_or(line));
    }

    /// The same for a line without its end. What is for systemd's journal is its fields, each with a
    /// line end (`MESSAGE=..`).
    pub fn push_record(&self, severity: Severity, record: &[u8]) {
        let Handle(shared) = &*self.0;
        let header = shared
            .target
            .is_daemon()
            .then(|| frame::header(severity, record));
        let around = header.as_ref().map_or(1, |header| header.len());
        let mut state = shared.lock();
        if state.waiting.len() + state.in_hand + record.len() + around > shared.capacity {
            state.loss.add(1, record.len());
            drop(state);
            shared.lost.inc();
            return;
        }
        match header {
            Some(header) => {
                state.waiting.extend_from_slice(&header);
                state.waiting.extend_from_slice(record);
            }
            None => {
                state.waiting.extend_from_slice(record);
                state.waiting.push(b'\n');
            }
        }
        state.accepted += 1;
        shared.wake(state);
    }

    /// Where lines are written.
    pub fn target(&self) -> &Target {
        &self.0.0.target
    }

    /// Leaves rotating the file to another queue that writes it from now on.
    pub fn leave_rotation(&self) {
        self.0.0.rotates.store(false, Ordering::Relaxed);
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

    /// Returns how many octets wait or are in transit; `None` once the queue is gone.
    pub fn depth(&self) -> impl Fn() -> Option<u64> + Send + Sync + use<> {
        let Handle(shared) = &*self.0;
        let shared = Arc::downgrade(shared);
        move || {
            let shared = shared.upgrade()?;
            let state = shared.lock();
            u64::try_from(state.waiting.len() + state.in_hand).ok()
        }
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
        self.0.closed.notify_all();
    }
}

/// What the handles and the thread share.
struct Shared {
    capacity: usize,
    target: Target,
    /// Whether the thread rotates the file, if that is configured.
    rotates: AtomicBool,
    lost: IntCounter,
    state: Mutex<State>,
    /// There is something for the thread to do.
    work: Condvar,
    /// [`State::handled`] has grown.
    written: Condvar,
    /// The last handle is gone.
    closed: Condvar,
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

    /// Waits for this long, or until the last handle is gone. Returns whether it is.
    fn wait_closed(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        while !state.is_closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.closed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
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

#[cfg(test)]
mod tests;
