//! Where the lines of the program's own log go, which a reload may change.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::journal;
use crate::config::model::{Log, LogTarget, Rotate};
use crate::line_queue::{LineQueue, Setup, Severity, Target};
use crate::printable;

/// How many octets of lines wait for their target before lines are lost.
const QUEUE: usize = 1 << 20;

/// The queue of the log, and what it was made for.
struct Open {
    queue: LineQueue,
    rotate: Option<Rotate>,
}

/// Takes each event as one line, whatever is in it.
pub(super) struct Output {
    open: ArcSwap<Open>,
    lost: IntCounter,
    /// Whether the formatter writes escape sequences for colours.
    pub(super) has_colours: bool,
    is_journal: AtomicBool,
}

impl Output {
    /// Writes to stderr. `lost` counts the lines that find no reader.
    pub(super) fn stderr(lost: IntCounter) -> io::Result<Self> {
        let open = Self::start(&Target::Stderr, None, &lost)?;
        Ok(Self {
            open: ArcSwap::from_pointee(open),
            lost,
            has_colours: io::stderr().is_terminal(),
            is_journal: AtomicBool::new(false),
        })
    }

    /// Writes where `log` says from now on. What is queued is written where it was to go.
    ///
    /// # Errors
    /// If that cannot be opened; then nothing changes.
    pub(super) fn redirect(&self, log: &Log) -> io::Result<()> {
        let open = self.open.load();
        let target = Target::of(&log.target).unwrap_or(Target::Stderr);
        let is_same_place = *open.queue.target() == target;
        if is_same_place && open.rotate == log.rotate {
            return Ok(());
        }
        let next = Self::start(&target, log.rotate, &self.lost)?;
        if is_same_place {
            open.queue.leave_rotation();
        }
        let is_journal = matches!(log.target, LogTarget::Journald(_));
        self.is_journal.store(is_journal, Ordering::Relaxed);
        self.open.store(next.into());
        Ok(())
    }

    /// Reopens the file, if it is one.
    pub(super) fn reopen(&self) {
        self.open.load().queue.reopen();
    }

    pub(super) fn flush(&self, patience: Duration) {
        self.open.load().queue.flush(patience);
    }

    /// Returns how many octets wait or are in transit.
    pub(super) fn depth(&self) -> Option<u64> {
        self.open.load().queue.depth()()
    }

    /// Whether events are written as fields of systemd's journal.
    pub(super) fn is_journal(&self) -> bool {
        self.is_journal.load(Ordering::Relaxed)
    }

    fn start(target: &Target, rotate: Option<Rotate>, lost: &IntCounter) -> io::Result<Open> {
        let queue = LineQueue::start(Setup {
            name: "the log",
            thread: "log",
            target: target.clone(),
            rotate,
            capacity: QUEUE,
            lost: lost.clone(),
        })?;
        Ok(Open { queue, rotate })
    }

    fn push(&self, severity: Severity, event: &[u8]) {
        let open = self.open.load();
        let fields = event.strip_prefix(journal::MESSAGE.as_bytes());
        let event = match (open.queue.target(), fields) {
            // The formatter has escaped each value.
            (Target::Journal(_), Some(_)) => return open.queue.push_record(severity, event),
            // The target has changed since it was formatted: the message has all the others.
            (_, Some(fields)) => fields
                .split(|octet| *octet == b'\n')
                .next()
                .unwrap_or(fields),
            (_, None) => event,
        };
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let is_terminal = *open.queue.target() == Target::Stderr;
        let line = match (self.has_colours, is_terminal) {
            (false, _) => printable::line(line),
            // The colours are the formatter's: it has escaped what would be others'.
            (true, true) => line
                .split('\x1b')
                .map(printable::line)
                .collect::<Vec<_>>()
                .join("\x1b")
                .into(),
            (true, false) => Cow::Owned(without_colours(line)),
        };
        match open.queue.target() {
            Target::Journal(_) => {
                let fields = format!("{}{line}\n", journal::MESSAGE);
                open.queue.push_record(severity, fields.as_bytes());
            }
            _ => open.queue.push_record(severity, line.as_bytes()),
        }
    }
}

/// A line without the escape sequences for colours, which end in `m`.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut text = printable::line(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let rest = part.split_once('m').map_or("", |(_, rest)| rest);
        text.push_str(&printable::line(rest));
    }
    text
}

/// Writes one event.
pub(super) struct EventWriter<'o> {
    output: &'o Output,
    severity: Severity,
}

/// Makes the writers of events.
pub(super) struct Writers(pub(super) Arc<Output>);

impl<'w> MakeWriter<'w> for Writers {
    type Writer = EventWriter<'w>;

    fn make_writer(&'w self) -> Self::Writer {
        EventWriter {
            output: &self.0,
            severity: Severity::Info,
        }
    }

    fn make_writer_for(&'w self, event: &Metadata<'_>) -> Self::Writer {
        let severity = match *event.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Info,
            _ => Severity::Debug,
        };
        EventWriter {
            output: &self.0,
            severity,
        }
    }
}

impl Write for EventWriter<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.output.push(self.severity, event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(
            without_colours("\x1b[2mtime\x1b[0m \x1b[32m INFO\x1b[0m a\u{202e}b"),
            "time  INFO a\\u202eb"
        );
    }

    #[test]
    fn fields_for_the_journal_become_a_line_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let lost = IntCounter::new("lost", "lost").expect("a valid name");
        let output = Output::stderr(lost).expect("an output");
        let log = Log {
            target: LogTarget::File(path.clone()),
            ..Log::default()
        };
        output.redirect(&log).expect("opened");
        output.push(
            Severity::Info,
            b"MESSAGE=reloaded sites=1\nSNIGATE_SITES=1\n",
        );
        output.flush(Duration::from_secs(30));
        let written = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(written, "reloaded sites=1\n");
    }
}
