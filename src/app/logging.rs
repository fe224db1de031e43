//! The program's own log, on stderr. The access log is `access_log`'s.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Json, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::model::{Log, LogFormat};

/// What libraries may log of themselves. Not what clients do to their connections: whoever sends
/// garbage would fill the log, and what matters of it is counted. Nor that a watched directory is
/// gone, which is a change like any other. `log.level` can ask for more.
const LIBRARIES: &str = "notify=warn,pingora_core=error,pingora_core::apps=off,pingora_core::protocols=off,\
    pingora_proxy=off,pingora_cache=off,h2=off";

/// Changes the level and the format of the running log.
#[derive(Clone)]
pub(super) struct Level(Option<Running>);

#[derive(Clone)]
struct Running {
    filter: reload::Handle<EnvFilter, Registry>,
    is_json: Arc<AtomicBool>,
}

impl Level {
    /// Begins to log. Where a log has been begun in this process already, that one goes on.
    ///
    /// # Errors
    /// Where `log.level` is no filter.
    pub(super) fn init(log: &Log) -> Result<Self, ParseError> {
        let (layer, filter) = reload::Layer::new(filter(log)?);
        let is_json = Arc::new(AtomicBool::new(log.format == LogFormat::Json));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .event_format(Lines::new(Arc::clone(&is_json)));
        let begun = tracing_subscriber::registry()
            .with(layer)
            .with(lines)
            .try_init();
        Ok(Self(begun.is_ok().then_some(Running { filter, is_json })))
    }

    /// Takes another level and another format.
    ///
    /// # Errors
    /// Where `log.level` is no filter; all stays as it is.
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
