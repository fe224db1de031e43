//! The access log: one line for each request, written off the requests' path.
//!
//! Lines go through a bounded queue to a thread of their own. Where the disk is slower than the
//! requests, lines are lost and counted; a request never waits for its line.

mod entry;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

pub use self::entry::Entry;
use crate::config::model::{self, LogFormat};

/// How many lines wait for the writer before lines are lost.
const QUEUE: usize = 8192;

/// Where access lines go. A handle; clones share the queue.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Message>>,
    format: LogFormat,
    /// `None` where nothing can be lost.
    lost: Option<IntCounter>,
}

/// What the writer is told.
#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Opens the log that the configuration names. `lost` counts the lines that it has to drop.
    ///
    /// # Errors
    /// Where the file cannot be opened for appending, or no thread can be started.
    pub fn open(
        target: &model::AccessLog,
        format: LogFormat,
        lost: IntCounter,
    ) -> io::Result<Self> {
        let sink = match target {
            model::AccessLog::Off => return Ok(Self::off()),
            model::AccessLog::Stdout => Sink::Stdout,
            model::AccessLog::File(path) => Sink::File(path.clone(), append(path)?),
        };
        let (queue, messages) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(sink, &messages))?;
        Ok(Self {
            queue: Some(queue),
            format,
            lost: Some(lost),
        })
    }

    /// A log that keeps nothing.
    pub fn off() -> Self {
        Self {
            queue: None,
            format: LogFormat::Text,
            lost: None,
        }
    }

    /// Whether lines are wanted at all.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues the line for a request, or loses it where the queue is full.
    pub fn write(&self, entry: &Entry<'_>) {
        let Some(queue) = &self.queue else {
            return;
        };
        let line = match self.format {
            LogFormat::Json => entry.to_json(),
            LogFormat::Text => entry.to_text(),
        };
        if queue.try_send(Message::Line(line.into_bytes())).is_err()
            && let Some(lost) = &self.lost
        {
            lost.inc();
        }
    }

    /// Opens the file anew, for a rotated one to be let go. Lines queued before go to the old one.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            // A full queue means that the file is in use; the next call does it.
            _ = queue.try_send(Message::Reopen);
        }
    }

    /// Waits until every queued line is written, at most `patience`. For the end of a process.
    pub fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        if let Some(queue) = &self.queue
            && queue.try_send(Message::Flush(done)).is_ok()
        {
            _ = wait.recv_timeout(patience);
        }
    }
}

/// Where the writer writes.
enum Sink {
    File(PathBuf, File),
    Stdout,
}

/// Writes lines until every handle is gone, and flushes whenever none is waiting.
fn write_lines(sink: Sink, messages: &Receiver<Message>) {
    let (path, out): (_, Box<dyn Write>) = match sink {
        Sink::File(path, file) => (Some(path), Box::new(file)),
        Sink::Stdout => (None, Box::new(io::stdout())),
    };
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    let mut failed = false;
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                report(out.flush(), &mut failed);
                match messages.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                }
            }
        };
        match message {
            Message::Line(line) => report(out.write_all(&line), &mut failed),
            Message::Flush(done) => {
                report(out.flush(), &mut failed);
                _ = done.send(());
            }
            Message::Reopen => {
                report(out.flush(), &mut failed);
                if let Some(path) = &path {
                    match append(path) {
                        Ok(file) => out = BufWriter::with_capacity(64 * 1024, Box::new(file)),
                        Err(error) => report(Err(error), &mut failed),
                    }
                }
            }
        }
    }
    _ = out.flush();
}

/// Says once that the log cannot be written, and once that it can be again.
fn report(result: io::Result<()>, failed: &mut bool) {
    match result {
        Err(error) if !*failed => {
            *failed = true;
            tracing::error!(%error, "the access log cannot be written: lines are lost");
        }
        Ok(()) if *failed => {
            *failed = false;
            tracing::info!("the access log is written again");
        }
        _ => {}
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
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
