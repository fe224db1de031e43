//! What is served now, and how it becomes what the files say now.
//!
//! One writer, behind a lock, goes the way of a reload: load, check, apply, publish. Handshakes
//! and requests only ever load what was published, as a whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_proxy::HttpProxy;
use tracing_subscriber::filter::ParseError;

use super::stamps::Stamps;
use crate::access_log::AccessLog;
use crate::certificate::TlsCertificate;
use crate::certificate::sni::SniMap;
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Config, Log};
use crate::config::{self, Diagnostics, Loaded};
use crate::edge::{Edge, Settings};
use crate::manager::{Report, TlsManager};
use crate::metrics::Metrics;
use crate::proxy::{self, Gateway, SiteTable};
use crate::readiness::Readiness;
use crate::tls::{GlobalCertificate, Snapshot};

/// The edge in front of our proxy.
pub type GatewayEdge = Edge<HttpProxy<Gateway>>;

/// The part of [`Readiness`] that speaks of names without a certificate.
const CERTIFICATES: &str = "certificates";

/// Everything that a reload can change, and what it needs to do so.
pub struct Live {
    file: PathBuf,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    readiness: Readiness,
    certificates: GlobalCertificate,
    map: Arc<ArcSwap<SniMap>>,
    sites: Arc<ArcSwap<SiteTable>>,
    access: Arc<ArcSwap<AccessLog>>,
    edge: Arc<GatewayEdge>,
    set_level: SetLevel,
    writer: Mutex<Writer>,
    /// What was loaded last, for whoever asks.
    current: ArcSwap<Loaded>,
    last: ArcSwap<Option<Outcome>>,
}

/// What only the writer touches.
struct Writer {
    manager: TlsManager,
    /// The configuration's files as they were when they were read.
    stamps: Stamps,
    /// What is watched beside them.
    watch: Vec<PathBuf>,
    /// The keys that wait for a restart.
    start: Config,
}

/// How the last reload went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub at: UnixTime,
    /// Why it was refused; `None` where it was taken.
    pub refused: Option<Refused>,
}

/// A reload that was taken.
#[derive(Clone, Debug)]
pub struct Reloaded {
    pub sites: usize,
    pub certificates: usize,
    /// What is odd about the configuration.
    pub warnings: Vec<config::Diagnostic>,
    /// What is wrong or odd with single certificates, for people.
    pub problems: Vec<String>,
    /// Keys whose change waits for a restart.
    pub restart_needed: Vec<&'static str>,
}

/// Why a reload was refused; nothing has changed.
#[derive(Clone, Debug)]
pub enum Refused {
    Invalid(Arc<Diagnostics>),
    /// The configuration is valid, but this machine cannot do what it asks.
    Unable(String),
}

/// What a [`Live`] is made of.
pub struct Parts {
    pub file: PathBuf,
    pub loaded: Loaded,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub certificates: GlobalCertificate,
    pub map: Arc<ArcSwap<SniMap>>,
    pub sites: Arc<ArcSwap<SiteTable>>,
    pub access: Arc<ArcSwap<AccessLog>>,
    pub edge: Arc<GatewayEdge>,
    pub manager: TlsManager,
    pub set_level: SetLevel,
}

/// Takes another log level, or says why not.
pub type SetLevel = Box<dyn Fn(&Log) -> Result<(), ParseError> + Send + Sync>;

impl Live {
    /// Begins with the configuration that was loaded, and publishes it.
    pub fn start(parts: Parts) -> (Arc<Self>, Report) {
        let Parts {
            file,
            loaded,
            clock,
            metrics,
            readiness,
            certificates,
            map,
            sites,
            access,
            edge,
            manager,
            set_level,
        } = parts;
        let now = clock.now();
        let live = Arc::new(Self {
            file,
            clock,
            metrics,
            readiness,
            certificates,
            map,
            sites,
            access,
            edge,
            set_level,
            writer: Mutex::new(Writer {
                manager,
                stamps: Stamps::take(&loaded.files, now),
                watch: Vec::new(),
                start: loaded.config.clone(),
            }),
            current: ArcSwap::from_pointee(loaded),
            last: ArcSwap::from_pointee(None),
        });
        let report = {
            let mut writer = live.writer();
            let config = &live.current.load().config;
            let report = writer.manager.apply(config);
            live.publish(config, &mut writer, &report);
            report
        };
        live.metrics.last_reload_successful.set(1);
        live.metrics.last_reload_timestamp.set(now);
        (live, report)
    }

    /// The configuration that is served.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// The configuration's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How the last reload went; `None` before the first.
    pub fn last(&self) -> Option<Outcome> {
        self.last.load().as_ref().clone()
    }

    /// Every certificate that is loaded or issued.
    pub fn certificates(&self) -> Vec<Arc<TlsCertificate>> {
        self.writer().manager.certificates().cloned().collect()
    }

    /// What is to be watched: the configuration's files, certificates' files and directories.
    pub fn watched(&self) -> Vec<PathBuf> {
        let writer = self.writer();
        writer
            .stamps
            .paths()
            .chain(&writer.watch)
            .cloned()
            .collect()
    }

    /// Reads everything again and takes it, or keeps what there is. Blocks on files.
    ///
    /// # Errors
    /// Where the new configuration is invalid or cannot be carried out; nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, Refused> {
        let mut writer = self.writer();
        let outcome = self.try_reload(&mut writer);
        let at = self.clock.now();
        match &outcome {
            Ok(reloaded) => {
                self.metrics.reloads.with_label_values(&["ok"]).inc();
                self.metrics.last_reload_successful.set(1);
                self.metrics.last_reload_timestamp.set(at);
                tracing::info!(
                    file = %self.file.display(),
                    sites = reloaded.sites,
                    certificates = reloaded.certificates,
                    "configuration reloaded"
                );
                for key in &reloaded.restart_needed {
                    tracing::warn!(key, "this change takes effect at the next start");
                }
                for warning in &reloaded.warnings {
                    tracing::warn!("{warning}");
                }
            }
            Err(refused) => {
                self.metrics.reloads.with_label_values(&["refused"]).inc();
                self.metrics.last_reload_successful.set(0);
                match refused {
                    Refused::Invalid(diagnostics) => {
                        for error in diagnostics.errors() {
                            tracing::error!("configuration refused, the old one goes on: {error}");
                        }
                    }
                    Refused::Unable(why) => {
                        tracing::error!("configuration refused, the old one goes on: {why}");
                    }
                }
            }
        }
        self.last.store(Arc::new(Some(Outcome {
            at,
            refused: outcome.as_ref().err().cloned(),
        })));
        outcome
    }

    fn try_reload(&self, writer: &mut Writer) -> Result<Reloaded, Refused> {
        let loaded = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(diagnostics) => {
                // Watched are the files of what is served and of what was refused: mending one of
                // the latter is the next change.
                let known = writer.stamps.paths().chain(&diagnostics.files).cloned();
                let known: Vec<PathBuf> = known.collect();
                writer.stamps = Stamps::take(&known, self.clock.now());
                return Err(Refused::Invalid(Arc::new(diagnostics)));
            }
        };
        writer.stamps = Stamps::take(&loaded.files, self.clock.now());
        let new = &loaded.config;
        let old = self.current.load();
        let settings = settings(&self.certificates, new)?;
        let access = if new.log == old.config.log {
            None
        } else {
            Some(access_log(new)?)
        };
        (self.set_level)(&new.log)
            .map_err(|error| Refused::Unable(format!("log.level: {error}")))?;
        // From here on nothing fails.
        let report = writer.manager.apply(new);
        self.publish(new, writer, &report);
        self.edge.update(settings);
        if let Some(access) = access {
            self.access.store(Arc::new(access));
        }
        let reloaded = Reloaded {
            sites: new.sites.len(),
            certificates: report.certificates,
            warnings: loaded.warnings.clone(),
            problems: report.problems.iter().map(ToString::to_string).collect(),
            restart_needed: restart_needed(&writer.start, new),
        };
        self.current.store(Arc::new(loaded));
        Ok(reloaded)
    }

    /// Looks at the files: reloads where the configuration's own have changed, else reads only the
    /// certificates that have. `paths` says which may have; none means any. Blocks on files.
    pub fn look(&self, paths: &[PathBuf]) {
        let mut writer = self.writer();
        if writer.stamps.may_have_changed() {
            drop(writer);
            // The outcome has been logged.
            let _ = self.reload();
            return;
        }
        let report = if paths.is_empty() {
            writer.manager.refresh()
        } else {
            writer.manager.refresh_paths(paths)
        };
        if !report.is_unchanged() {
            tracing::info!(
                added = report.added.len(),
                changed = report.changed.len(),
                removed = report.removed.len(),
                "certificates changed"
            );
        }
        let config = &self.current.load().config;
        self.publish_certificates(config, &mut writer, &report);
    }

    /// Publishes certificates and sites as one state.
    fn publish(&self, config: &Config, writer: &mut Writer, report: &Report) {
        let previous = self.sites.load();
        let sites = SiteTable::build(config, &self.metrics, Some(&previous));
        resolve(&sites);
        self.sites.store(Arc::new(sites));
        self.publish_certificates(config, writer, report);
    }

    /// Publishes certificates, where they changed, beside the sites that are served.
    fn publish_certificates(&self, config: &Config, writer: &mut Writer, report: &Report) {
        let snapshot = Snapshot {
            certificates: self.map.load_full(),
            unknown_sni: config.tls.unknown_sni,
            attachment: Some(self.sites.load_full()),
        };
        if !snapshot.is_same_as(&self.certificates.snapshot()) {
            self.certificates.publish(snapshot);
        }
        writer.watch.clone_from(&report.watch);
        tell(report);
        let missing = report
            .missing
            .iter()
            .map(|name| format!("no certificate for {name}"));
        self.readiness.set(CERTIFICATES, missing.collect());
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic in between has published nothing: what there is goes on.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks up the upstreams' names that are new, so that no request meets a server without an
/// address. At the start there is no runtime yet; the edge waits for the first look-up itself.
fn resolve(sites: &SiteTable) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.block_on(proxy::resolve_due(sites, Duration::MAX));
    }
}

/// What the edge works with under a configuration.
///
/// # Errors
/// Where OpenSSL refuses a setting.
pub fn settings(certificates: &GlobalCertificate, config: &Config) -> Result<Settings, Refused> {
    let acceptor = certificates
        .acceptor(&config.tls)
        .map_err(|error| Refused::Unable(format!("tls: OpenSSL refuses a setting: {error}")))?;
    Ok(Settings {
        limits: config.server.limits,
        acceptor,
    })
}

/// The access log of a configuration.
///
/// # Errors
/// Where its file cannot be opened.
pub fn access_log(config: &Config) -> Result<AccessLog, Refused> {
    AccessLog::open(&config.log.access, config.log.format)
        .map_err(|error| Refused::Unable(format!("log.access: cannot open the log: {error}")))
}

/// Logs what is wrong, once for as long as it stays.
fn tell(report: &Report) {
    for problem in report.problems.iter().filter(|problem| problem.is_new) {
        tracing::error!("{problem}");
    }
    for warning in report.warnings.iter().filter(|warning| warning.is_new) {
        tracing::warn!("{warning}");
    }
}

/// The keys that differ and that only a start applies.
fn restart_needed(start: &Config, new: &Config) -> Vec<&'static str> {
    let (old, new_server) = (&start.server, &new.server);
    [
        ("server.https", old.https != new_server.https),
        ("server.http", old.http != new_server.http),
        ("server.admin", old.admin != new_server.admin),
        ("server.threads", old.threads != new_server.threads),
        ("server.user", old.user != new_server.user),
        ("storage", start.storage != new.storage),
        ("log.format", start.log.format != new.log.format),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
