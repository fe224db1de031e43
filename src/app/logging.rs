//! The program's own log. The access log is `access_log`'s.
//!
//! Logging never waits for who reads it: lines go through a bounded queue.

mod journal;
mod output;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::IntCounter;
use thiserror::Error;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Json, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use self::output::{Output, Writers};
use crate::admin::LogView;
use crate::config;
use crate::config::model::{Log, LogFormat};
use crate::lock::MutexExt as _;
use crate::metrics::{Depths, Queue};
use crate::reload::ProgramLog;

/// What libraries may log of themselves. Not what clients do to their connections: whoever sends
/// garbage would fill the log, and what matters of it is counted. Nor that a watched directory is
/// gone, which is a change like any other. `log.level` can ask for more.
const LIBRARIES: &str = "notify=warn,pingora_core=error,pingora_core::apps=off,pingora_core::protocols=off,\
    pingora_proxy=off,pingora_cache=off,h2=off";

/// How long the end of the process waits for the reader of the log.
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
    #[error("log.target: cannot open the log: {0}")]
    Target(io::Error),
}

/// The running log: its level, its format and where it goes can be changed.
#[derive(Clone)]
pub(super) struct OwnLog(Option<Running>);

#[derive(Clone)]
struct Running {
    filter: reload::Handle<EnvFilter, Registry>,
    levels: Arc<Mutex<Levels>>,
    is_json: Arc<AtomicBool>,
    output: Arc<Output>,
}

/// The level as the configuration has it, and the one that is in force.
struct Levels {
    configured: String,
    current: String,
}

impl OwnLog {
    /// Starts the log on stderr, wherever it is to go later. `lost` counts the lines that find no
    /// reader. If this process has a log already, that one continues.
    ///
    /// # Errors
    /// If `log.level` is not a filter, or no thread can be started.
    pub(super) fn init(log: &Log, lost: IntCounter) -> Result<Self, LogError> {
        let (layer, filter) = reload::Layer::new(filter(&log.level)?);
        let is_json = Arc::new(AtomicBool::new(log.format == LogFormat::Json));
        let output = Arc::new(Output::stderr(lost)?);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(Writers(Arc::clone(&output)))
            .with_ansi(output.has_colours)
            .event_format(Lines::new(Arc::clone(&is_json), Arc::clone(&output)));
        let begun = tracing_subscriber::registry()
            .with(layer)
            .with(lines)
            .try_init();
        Ok(Self(begun.is_ok().then(|| Running {
            filter,
            levels: Arc::new(Mutex::new(Levels {
                configured: log.level.clone(),
                current: log.level.clone(),
            })),
            is_json,
            output,
        })))
    }

    /// Has panics logged like everything else: a thread that panics must not wait for the reader
    /// either. What is returned waits for the last lines when it is dropped.
    pub(super) fn watch_panics(&self) -> LastLines {
        if let Some(Running { output, .. }) = &self.0 {
            let output = Arc::clone(output);
            std::panic::set_hook(Box::new(move |panic| {
                let message = panic.payload_as_str().unwrap_or("without a message");
                let place = panic.location().map(ToString::to_string);
                let backtrace = Backtrace::capture();
                let backtrace = (backtrace.status() == BacktraceStatus::Captured)
                    .then(|| tracing::field::display(backtrace));
                tracing::error!(place, backtrace, "a thread panicked: {message}");
                output.flush(AT_PANIC);
            }));
        }
        LastLines(self.0.as_ref().map(|running| Arc::clone(&running.output)))
    }

    /// Shows how much waits to be written, among the metrics.
    pub(super) fn show_depth(&self, depths: &Depths) {
        if let Some(running) = &self.0 {
            let output = Arc::clone(&running.output);
            depths.show(Queue::Log, move || output.depth());
        }
    }

    /// Writes where the configuration says from now on.
    ///
    /// # Errors
    /// If that cannot be opened.
    pub(super) fn redirect(&self, log: &Log) -> Result<(), LogError> {
        match &self.0 {
            Some(running) => running.output.redirect(log).map_err(LogError::Target),
            None => Ok(()),
        }
    }

    /// The level.
    pub(super) fn view(&self) -> LogView {
        let levels = self
            .0
            .as_ref()
            .map(|running| running.levels.lock_unpoisoned());
        levels.map_or_else(LogView::default, |levels| LogView {
            level: levels.current.clone(),
            configured: levels.configured.clone(),
        })
    }

    /// Changes the level until a reload with another `log.level`, or the next change.
    ///
    /// # Errors
    /// Why it is no level, and what would be one.
    pub(super) fn set_level(&self, level: &str) -> Result<LogView, String> {
        if let Some(hint) = config::level_fault(level) {
            return Err(hint);
        }
        let filter = filter(level).map_err(|error| error.to_string())?;
        if let Some(running) = &self.0 {
            let mut levels = running.levels.lock_unpoisoned();
            running.change_level(&mut levels, level, filter);
        }
        Ok(self.view())
    }
}

impl Running {
    /// Puts a level in force, and logs that at whichever of the two logs more.
    fn change_level(&self, levels: &mut Levels, level: &str, filter: EnvFilter) {
        if levels.current == level {
            return;
        }
        let before = std::mem::replace(&mut levels.current, level.to_owned());
        // JSON has the level of the event itself as "level".
        let report = || tracing::info!(current = level, before, "the log level has changed");
        let is_seen = tracing::enabled!(tracing::Level::INFO);
        if is_seen {
            report();
        }
        // An error means that the log is gone, and its level with it.
        let _ = self.filter.reload(filter);
        if !is_seen {
            report();
        }
    }
}

impl ProgramLog for OwnLog {
    fn apply(&self, log: &Log) -> Result<(), String> {
        let filter = filter(&log.level).map_err(|error| format!("log.level: {error}"))?;
        self.redirect(log).map_err(|error| error.to_string())?;
        if let Some(running) = &self.0 {
            let is_json = log.format == LogFormat::Json;
            running.is_json.store(is_json, Ordering::Relaxed);
            let mut levels = running.levels.lock_unpoisoned();
            // A level that was set at run time stays if the configured one does.
            if levels.configured != log.level {
                levels.configured.clone_from(&log.level);
                running.change_level(&mut levels, &log.level, filter);
            }
        }
        Ok(())
    }

    fn reopen(&self) {
        if let Some(running) = &self.0 {
            running.output.reopen();
        }
    }
}

/// Waits for the last lines to be written when it is dropped, but not for a reader that stalls.
pub(super) struct LastLines(Option<Arc<Output>>);

impl Drop for LastLines {
    fn drop(&mut self) {
        if let Some(output) = &self.0 {
            output.flush(AT_END);
        }
    }
}

/// Writes events for people or for programs, as is wanted at the time. Spans, of which there are
/// none here, are left out.
struct Lines {
    is_json: Arc<AtomicBool>,
    output: Arc<Output>,
    text: Format,
    json: Format<Json>,
}

impl Lines {
    fn new(is_json: Arc<AtomicBool>, output: Arc<Output>) -> Self {
        let json = Format::default().json().flatten_event(true);
        Self {
            is_json,
            output,
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
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.output.is_journal() {
            journal::write_event(event, &mut writer)
        } else if self.is_json.load(Ordering::Relaxed) {
            self.json.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}

fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{LIBRARIES},{level}"))
}
