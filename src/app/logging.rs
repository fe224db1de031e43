//! The program's own log, on stderr. The access log is `access_log`'s.
//!
//! Logging never waits for the reader of stderr: lines go through a bounded queue.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use thiserror::Error;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Json, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::model::{Log, LogFormat};
use crate::line_queue::{LineQueue, Setup, Target};
use crate::printable;

/// What libraries may log of themselves. Not what clients do to their connections: whoever sends
/// garbage would fill the log, and what matters of it is counted. Nor that a watched directory is
/// gone, which is a change like any other. `log.level` can ask for more.
const LIBRARIES: &str = "notify=warn,pingora_core=error,pingora_core::apps=off,pingora_core::protocols=off,\
    pingora_proxy=off,pingora_cache=off,h2=off";

/// How many octets of lines wait for stderr before lines are lost.
const QUEUE: usize = 1 << 20;

/// How long the end of the process waits for the reader of stderr.
const AT_END: Duration = Duration::from_secs(1);

/// How long a panic waits for it, since it may be the last thing that this process says.
const AT_PANIC: Duration = Duration::from_millis(50);

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    #[error("log.level: {0}; a level is error, warn, info, debug or trace")]
    Level(#[from] ParseError),
    #[error("cannot start the log: {0}")]
    Start(#[from] io::Error),
}

/// Changes the level and the format of the running log.
#[derive(Clone)]
pub(super) struct Level(Option<Running>);

#[derive(Clone)]
struct Running {
    filter: reload::Handle<EnvFilter, Registry>,
    is_json: Arc<AtomicBool>,
    queue: LineQueue,
}

impl Level {
    /// Starts the log. `lost` counts the lines that find no reader. If this process has a log already,
    /// that one continues.
    ///
    /// # Errors
    /// If `log.level` is not a filter, or no thread can be started.
    pub(super) fn init(log: &Log, lost: IntCounter) -> Result<Self, LogError> {
        let (layer, filter) = reload::Layer::new(filter(log)?);
        let is_json = Arc::new(AtomicBool::new(log.format == LogFormat::Json));
        let queue = LineQueue::start(Setup {
            name: "the log",
            thread: "log",
            target: Target::Stderr,
            capacity: QUEUE,
            lost,
        })?;
        let is_terminal = io::stderr().is_terminal();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(Stderr {
                queue: queue.clone(),
                is_terminal,
            })
            .with_ansi(is_terminal)
            .event_format(Lines::new(Arc::clone(&is_json)));
        let begun = tracing_subscriber::registry()
            .with(layer)
            .with(lines)
            .try_init();
        Ok(Self(begun.is_ok().then_some(Running {
            filter,
            is_json,
            queue,
        })))
    }

    /// Has panics logged like everything else: a thread that panics must not wait for stderr
    /// either. What is returned waits for the last lines when it is dropped.
    pub(super) fn watch_panics(&self) -> LastLines {
        if let Some(Running { queue, .. }) = &self.0 {
            let queue = queue.clone();
            std::panic::set_hook(Box::new(move |panic| {
                let message = panic.payload_as_str().unwrap_or("without a message");
                let place = panic.location().map(ToString::to_string);
                let backtrace = Backtrace::capture();
                let backtrace = (backtrace.status() == BacktraceStatus::Captured)
                    .then(|| tracing::field::display(backtrace));
                tracing::error!(place, backtrace, "a thread panicked: {message}");
                queue.flush(AT_PANIC);
            }));
        }
        LastLines(self.0.as_ref().map(|running| running.queue.clone()))
    }

    /// Changes the level and the format.
    ///
    /// # Errors
    /// If `log.level` is not a filter; then nothing changes.
    pub(super) fn set(&self, log: &Log) -> Result<(), ParseError> {
        let filter = filter(log)?;
        if let Some(running) = &self.0 {
            let is_json = log.format == LogFormat::Json;
            running.is_json.store(is_json, Ordering::Relaxed);
            // An error means that the log is gone, and its level with it.
            let _ = running.filter.reload(filter);
        }
        Ok(())
    }
}

/// Waits for the last lines to be written when it is dropped, but not for a reader that stalls.
pub(super) struct LastLines(Option<LineQueue>);

impl Drop for LastLines {
    fn drop(&mut self) {
        if let Some(queue) = &self.0 {
            queue.flush(AT_END);
        }
    }
}

/// Takes each event as one line, whatever is in it.
struct Stderr {
    queue: LineQueue,
    /// Whether escape sequences for colours are let through.
    is_terminal: bool,
}

impl<'w> MakeWriter<'w> for Stderr {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

impl Write for &Stderr {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        // The colours are the formatter's: it has escaped what would be others'.
        let line = if self.is_terminal {
            line.split('\x1b')
                .map(printable::line)
                .collect::<Vec<_>>()
                .join("\x1b")
        } else {
            printable::line(line).into_owned()
        };
        self.queue.push(format!("{line}\n").as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes events for people or for programs, as is wanted at the time. Spans, of which there are
/// none here, are left out.
struct Lines {
    is_json: Arc<AtomicBool>,
    text: Format,
    json: Format<Json>,
}

impl Lines {
    fn new(is_json: Arc<AtomicBool>) -> Self {
        let json = Format::default().json().flatten_event(true);
        Self {
            is_json,
            text: Format::default().with_target(false),
            json: json
                .with_target(false)
                .with_current_span(false)
                .with_span_list(false),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.is_json.load(Ordering::Relaxed) {
            self.json.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}

fn filter(log: &Log) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{LIBRARIES},{}", log.level))
}
