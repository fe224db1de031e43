//! Prepares a configuration: everything that can fail, before anything is applied.

use std::io;
use std::sync::Arc;

use super::report::ReloadError;
use crate::access_log::AccessLog;
use crate::config::model::{Config, Log, SiteTls};
use crate::config::{Diagnostics, Loaded};
use crate::edge::{BindError, ListenerPlan, Settings};
use crate::metrics::Metrics;
use crate::printable::Printable as _;
use crate::tls::GlobalCertificate;
use crate::tls::key_log::KeyLog;
use crate::trace::Target;

/// A configuration that was read, or why it is invalid.
pub(super) type LoadOutcome = Result<Loaded, Diagnostics>;

/// The program's own log, as a reload changes it.
pub trait ProgramLog: Send + Sync {
    /// Puts a configuration in force, at once.
    ///
    /// # Errors
    /// Why that is not possible; then nothing changes.
    fn apply(&self, log: &Log) -> Result<(), String>;

    /// Opens its file again, if it has one.
    fn reopen(&self);
}

/// A configuration that can be carried out, with what was made for it.
pub(super) struct PreparedConfig {
    pub(super) loaded: Loaded,
    pub(super) settings: Settings,
    /// Every address that it listens on, bound.
    pub(super) listeners: ListenerPlan,
    /// `None` if the one in use stays.
    pub(super) access: Option<AccessLog>,
    /// Where spans go, if there are traces.
    pub(super) trace_target: Option<Target>,
}

impl PreparedConfig {
    /// Prepares the successor of a configuration whose settings of logs were `log`, with the access
    /// log `access`. `bind` binds its addresses.
    pub(super) fn from_loaded(
        read: LoadOutcome,
        certificates: &GlobalCertificate,
        (log, access): (&Log, &AccessLog),
        metrics: &Metrics,
        own_log: &dyn ProgramLog,
        bind: impl FnOnce(&Config) -> Result<ListenerPlan, BindError>,
    ) -> Result<Self, ReloadError> {
        let loaded = read.map_err(|diagnostics| ReloadError::Invalid(Arc::new(diagnostics)))?;
        let config = &loaded.config;
        let settings = settings(certificates, config)?;
        let access = if config.log == *log {
            None
        } else {
            let lost = metrics.access_lines_lost.clone();
            Some(access.succeed(&config.log, lost).map_err(unopened)?)
        };
        let trace_target = trace_target(config)?;
        let listeners = bind(config).map_err(|error| ReloadError::Unable(error.to_string()))?;
        // The last step, since it is in force at once.
        own_log.apply(&config.log).map_err(ReloadError::Unable)?;
        Ok(Self {
            loaded,
            settings,
            listeners,
            access,
            trace_target,
        })
    }
}

/// What the edge works with under a configuration.
///
/// # Errors
/// Where OpenSSL refuses a setting, or the key log cannot be opened.
pub fn settings(
    certificates: &GlobalCertificate,
    config: &Config,
) -> Result<Settings, ReloadError> {
    let key_log = config.tls.key_log.as_deref().map(|path| {
        let unable = |error| {
            let path = path.printable();
            ReloadError::Unable(format!("tls.key_log: cannot open {path}: {error}"))
        };
        KeyLog::open(path).map_err(unable)
    });
    let acceptor = certificates
        .acceptor(&config.tls, key_log.transpose()?)
        .map_err(|error| ReloadError::Unable(format!("tls: OpenSSL refuses a setting: {error}")))?;
    Ok(Settings {
        limits: Arc::new(config.server.limits),
        balancers: config.server.balancers.clone(),
        has_pass_through: config
            .sites
            .iter()
            .any(|site| site.tls == SiteTls::PassThrough),
        acceptor,
    })
}

/// The access log of a configuration.
///
/// # Errors
/// Where its file cannot be opened.
pub fn access_log(config: &Config, metrics: &Metrics) -> Result<AccessLog, ReloadError> {
    let lost = metrics.access_lines_lost.clone();
    AccessLog::open(&config.log, lost).map_err(unopened)
}

fn unopened(error: io::Error) -> ReloadError {
    ReloadError::Unable(format!("log.access: cannot open the log: {error}"))
}

/// Where spans go under a configuration, if there are traces.
///
/// # Errors
/// Where the roots to trust cannot be read.
pub fn trace_target(config: &Config) -> Result<Option<Target>, ReloadError> {
    let target = config.tracing.as_ref().map(Target::new).transpose();
    target.map_err(|error| ReloadError::Unable(error.to_string()))
}
