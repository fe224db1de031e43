//! The program's own log, on stderr. The access log is `access_log`'s.

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::model::{Log, LogFormat};

/// What Pingora logs of itself: its warnings, but not the connections that clients break, which
/// are ours to count.
const PINGORA: &str =
    "pingora_core=warn,pingora_core::apps=off,pingora_proxy=error,pingora_cache=warn";

/// Changes the level of the running log.
#[derive(Clone)]
pub(super) struct Level(Option<reload::Handle<EnvFilter, Registry>>);

impl Level {
    /// Begins to log. Where a log has been begun in this process already, that one goes on.
    ///
    /// # Errors
    /// Where `log.level` is no filter.
    pub(super) fn init(log: &Log) -> Result<Self, ParseError> {
        let (filter, handle) = reload::Layer::new(filter(log)?);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false);
        let lines = match log.format {
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
            LogFormat::Text => lines
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .boxed(),
        };
        let begun = tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init();
        Ok(Self(begun.is_ok().then_some(handle)))
    }

    /// Takes another level.
    ///
    /// # Errors
    /// Where `log.level` is no filter; the level stays.
    pub(super) fn set(&self, log: &Log) -> Result<(), ParseError> {
        let filter = filter(log)?;
        if let Some(handle) = &self.0 {
            // An error means that the log is gone, and its level with it.
            let _ = handle.reload(filter);
        }
        Ok(())
    }
}

fn filter(log: &Log) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{PINGORA},{}", log.level))
}
