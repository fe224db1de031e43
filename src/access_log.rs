//! The access log: one line for each request, written outside the requests' path.
//!
//! Lines go through a bounded queue to a thread of their own. If the disk is slower than the
//! requests, lines are lost and counted; a request never waits for its line. What a line has is
//! asked of its [`Record`] when it is written, so nothing is found out that the format does not have.

mod connection;
mod escape;
mod line;
mod number;
mod record;
mod time;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;

pub use self::connection::{RefusedConnection, client};
pub use self::record::{Record, Value};
use crate::config::model::{AccessFormat, Log, Rotate};
use crate::line_queue::{LineQueue, Setup, Severity, Target};
use crate::metrics::{Depths, Queue};

/// How many octets of lines may wait for the writer before lines are lost.
const QUEUE: usize = 4 << 20;

thread_local! {
    /// The line that this thread writes, so that none is allocated.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The destination of access log lines. A handle; clones share the queue.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Open>);

#[derive(Clone, Debug)]
struct Open {
    queue: LineQueue,
    rotate: Option<Rotate>,
    format: Arc<AccessFormat>,
}

impl AccessLog {
    /// Opens the log that the configuration names. `lost` counts the lines that are dropped.
    ///
    /// # Errors
    /// If the target cannot be opened, or no thread can be started.
    pub fn open(log: &Log, lost: IntCounter) -> io::Result<Self> {
        let Some(target) = Target::of(&log.access) else {
            return Ok(Self::off());
        };
        let queue = LineQueue::start(Setup {
            name: "the access log",
            thread: "access-log",
            target,
            rotate: log.rotate,
            capacity: QUEUE,
            lost,
        })?;
        Ok(Self::with_queue(queue, log))
    }

    /// The log of another configuration, which takes the place of this one. It keeps the queue if
    /// lines go to the same place. What is queued for another one is written there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn succeed(&self, log: &Log, lost: IntCounter) -> io::Result<Self> {
        let target = Target::of(&log.access);
        match &self.0 {
            Some(open) if target.as_ref() == Some(open.queue.target()) => {
                if open.rotate == log.rotate {
                    return Ok(Self::with_queue(open.queue.clone(), log));
                }
                let next = Self::open(log, lost)?;
                open.queue.leave_rotation();
                Ok(next)
            }
            _ => Self::open(log, lost),
        }
    }

    fn with_queue(queue: LineQueue, log: &Log) -> Self {
        Self(Some(Open {
            queue,
            rotate: log.rotate,
            format: Arc::new(log.access_format.clone()),
        }))
    }

    /// A log that discards all lines.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether lines are written at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues the line for a request or a connection, or drops it if the queue is full.
    pub fn write(&self, record: &dyn Record) {
        let Some(Open { queue, format, .. }) = &self.0 else {
            return;
        };
        let is_journal = matches!(queue.target(), Target::Journal(_));
        let write = |line: &mut Vec<u8>| {
            line.clear();
            match is_journal {
                true => line::write_journal(format, record, line),
                false => line::write_line(format, record, line),
            }
            queue.push_record(Severity::Info, line);
        };
        let written = LINE.try_with(|line| match line.try_borrow_mut() {
            Ok(mut line) => write(&mut line),
            Err(_) => write(&mut Vec::new()),
        });
        if written.is_err() {
            // The thread is ending.
            write(&mut Vec::new());
        }
    }

    /// Shows how much waits to be written, among the metrics.
    pub fn show_depth(&self, depths: &Depths) {
        let depth = self.0.as_ref().map(|open| open.queue.depth());
        depths.show(Queue::AccessLog, move || {
            depth.as_ref().and_then(|ask| ask())
        });
    }

    /// Reopens the file, so that a rotated one is released. Lines queued before go to the old file.
    pub fn reopen(&self) {
        if let Some(open) = &self.0 {
            open.queue.reopen();
        }
    }

    /// Waits until every queued line is written, at most `patience`. For the end of a process.
    pub fn flush(&self, patience: Duration) {
        if let Some(open) = &self.0 {
            open.queue.flush(patience);
        }
    }
}

#[cfg(test)]
mod tests;
