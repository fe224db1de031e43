//! The access log: one line for each request, written outside the requests' path.
//!
//! Lines go through a bounded queue to a thread of their own. If the disk is slower than the
//! requests, lines are lost and counted; a request never waits for its line.

mod entry;

use std::io;
use std::time::Duration;

use prometheus::IntCounter;

pub use self::entry::Entry;
use crate::config::model::{self, LogFormat};
use crate::line_queue::{LineQueue, Setup, Target};

/// How many octets of lines may wait for the writer before lines are lost.
const QUEUE: usize = 4 << 20;

/// The destination of access log lines. A handle; clones share the queue.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<LineQueue>,
    format: LogFormat,
}

impl AccessLog {
    /// Opens the log that the configuration names. `lost` counts the lines that are dropped.
    ///
    /// # Errors
    /// If the file cannot be opened for appending, or no thread can be started.
    pub fn open(
        target: &model::AccessLog,
        format: LogFormat,
        lost: IntCounter,
    ) -> io::Result<Self> {
        let target = match target {
            model::AccessLog::Off => return Ok(Self::off()),
            model::AccessLog::Stdout => Target::Stdout,
            model::AccessLog::File(path) => Target::File(path.clone()),
        };
        let queue = LineQueue::start(Setup {
            name: "the access log",
            thread: "access-log",
            target,
            capacity: QUEUE,
            lost,
        })?;
        Ok(Self {
            queue: Some(queue),
            format,
        })
    }

    /// A log that discards all lines.
    pub fn off() -> Self {
        Self {
            queue: None,
            format: LogFormat::Text,
        }
    }

    /// Whether lines are written at all.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues the line for a request, or drops it if the queue is full.
    pub fn write(&self, entry: &Entry<'_>) {
        let Some(queue) = &self.queue else {
            return;
        };
        let line = match self.format {
            LogFormat::Json => entry.to_json(),
            LogFormat::Text => entry.to_text(),
        };
        queue.push(line.as_bytes());
    }

    /// Reopens the file, so that a rotated one is released. Lines queued before go to the old file.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.reopen();
        }
    }

    /// Waits until every queued line is written, at most `patience`. For the end of a process.
    pub fn flush(&self, patience: Duration) {
        if let Some(queue) = &self.queue {
            queue.flush(patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::entry::tests::entry;
    use super::*;

    #[test]
    fn lines_reach_a_file_and_a_rotated_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let target = model::AccessLog::File(path.clone());
        let lost = IntCounter::new("lost", "lost").expect("a valid name");
        let log = AccessLog::open(&target, LogFormat::Text, lost.clone()).expect("a log");
        log.write(&entry());
        log.flush(Duration::from_secs(5));
        let rotated = folder.path().join("access.log.1");
        std::fs::rename(&path, &rotated).expect("rotated");
        log.reopen();
        log.write(&entry());
        log.write(&entry());
        log.flush(Duration::from_secs(5));
        let lines = |path: &Path| {
            std::fs::read_to_string(path)
                .expect("a file")
                .lines()
                .count()
        };
        assert_eq!((lines(&rotated), lines(&path), lost.get()), (1, 2, 0));
    }
}
