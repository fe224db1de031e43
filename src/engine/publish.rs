//! The lock over the manager, and the last step of every change: what is ready is presented to
//! clients, and what is missing is reported.
//!
//! Only the holder of the lock publishes, on a thread that may block. Handshakes, requests and probes
//! read what is published here and wait for nobody.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::{Attachment, Engine, LoadPhase};
use crate::cert_status::StatusTerms;
use crate::certificate::sni::SniMap;
use crate::config::model::{Config, UnknownSni};
use crate::host::Pattern;
use crate::lock::MutexExt as _;
use crate::manager::{Report, TlsManager, UncoveredHost, warn_from};
use crate::readiness::Readiness;
use crate::schedule::WarnFrom;
use crate::tls::{GlobalCertificate, Policies, Snapshot};

/// The part of [`Readiness`] that names hosts without a certificate.
const CERTIFICATES: &str = "certificates";

/// The part that reports the first scan of all files until it is done.
const LOADING: &str = "loading";

/// How often certificates are checked until a configuration says so.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// What is published: read without the lock, written by its holder.
pub(super) struct Publication {
    pub(super) certificates: GlobalCertificate,
    readiness: Readiness,
    terms: ArcSwap<Terms>,
    /// The files and directories to watch.
    watched: ArcSwap<Vec<PathBuf>>,
    /// How far the first scan of all files is.
    loaded: watch::Sender<LoadPhase>,
    /// Notified when another configuration is published.
    applied: Notify,
    /// Notified when there may be other certificates, or another configuration.
    certificates_changed: Notify,
    /// Notified when other certificates are published, or other hosts lack one.
    changed: Notify,
    /// The first names of certificates that were reported to be revoked, and are to be watched for the end
    /// of that.
    found_revoked: Mutex<Vec<Pattern>>,
}

/// What a configuration says about certificates as a whole.
struct Terms {
    unknown_sni: UnknownSni,
    https_optional: bool,
    check_every: Duration,
    judgement: Judgement,
    attachment: Option<Attachment>,
    policies: Arc<Policies>,
    status: Arc<StatusTerms>,
}

/// What a configuration says about how certificates are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Judgement {
    /// The last part of their lifetimes in which issued certificates are renewed.
    pub(crate) window: f64,
    /// From when on an end is reported.
    pub(crate) warn: WarnFrom,
}

impl Publication {
    pub(super) fn new(certificates: GlobalCertificate, readiness: Readiness) -> Self {
        Self {
            certificates,
            readiness,
            terms: ArcSwap::from_pointee(Terms {
                unknown_sni: UnknownSni::Default,
                https_optional: false,
                check_every: CHECK_EVERY,
                judgement: Judgement {
                    window: 0.5,
                    warn: WarnFrom::default(),
                },
                attachment: None,
                policies: Arc::default(),
                status: Arc::default(),
            }),
            watched: ArcSwap::default(),
            loaded: watch::Sender::new(LoadPhase::Begun),
            applied: Notify::new(),
            certificates_changed: Notify::new(),
            changed: Notify::new(),
            found_revoked: Mutex::default(),
        }
    }

    /// Has it reported when the certificate with this first name, which is reported to be revoked, is so no
    /// longer.
    pub(super) fn note_revoked(&self, name: &Pattern) {
        self.found_revoked.lock_unpoisoned().push(name.clone());
        self.changed.notify_one();
    }

    /// The names that were noted since the last call.
    pub(super) fn take_revoked(&self) -> Vec<Pattern> {
        std::mem::take(&mut *self.found_revoked.lock_unpoisoned())
    }

    /// See [`crate::config::model::Renewal::check_every`].
    pub(super) fn check_every(&self) -> Duration {
        self.terms.load().check_every
    }

    /// How certificates are judged.
    pub(super) fn judgement(&self) -> Judgement {
        self.terms.load().judgement
    }

    /// Waits until other certificates are published, or other hosts lack one.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The files and directories to watch. Another list is another `Arc`.
    pub(super) fn watched(&self) -> Arc<Vec<PathBuf>> {
        self.watched.load_full()
    }

    /// What the configuration says about the status of certificates.
    pub(super) fn status_terms(&self) -> Arc<StatusTerms> {
        Arc::clone(&self.terms.load().status)
    }

    /// Waits until there may be other certificates, or another configuration.
    pub(super) async fn wait_until_certificates_change(&self) {
        self.certificates_changed.notified().await;
    }

    /// Waits until another configuration is published.
    pub(super) async fn wait_until_applied(&self) {
        self.applied.notified().await;
    }

    pub(super) async fn wait_until_loaded(&self, enough: LoadPhase) {
        // The sender is this one's own: no error.
        let _ = self.loaded.subscribe().wait_for(|is| *is >= enough).await;
    }
}

/// What the lock protects.
pub(super) struct Locked {
    manager: TlsManager,
    /// What the manager wants watched.
    cert_files: Arc<BTreeSet<PathBuf>>,
    /// What the program wants watched besides.
    own_files: Vec<PathBuf>,
    /// The hosts that had no certificate at the end of the last pass.
    missing: Vec<UncoveredHost>,
}

impl Locked {
    pub(super) fn new(manager: TlsManager) -> Self {
        Self {
            manager,
            cert_files: Arc::default(),
            own_files: Vec::new(),
            missing: Vec::new(),
        }
    }
}

/// The manager, locked. What is changed through it is presented to clients once it is published.
pub struct ManagerGuard<'a> {
    locked: MutexGuard<'a, Locked>,
    engine: &'a Engine,
}

impl<'a> ManagerGuard<'a> {
    pub(super) fn new(locked: MutexGuard<'a, Locked>, engine: &'a Engine) -> Self {
        Self { locked, engine }
    }

    /// Publishes what the manager has made for `config` together with `attachment`, as one state.
    pub fn publish_config(
        &mut self,
        config: &Config,
        attachment: Option<Attachment>,
        report: &Report,
    ) {
        let publication = &self.engine.publication;
        let cache = publication.certificates.parsed_cache();
        cache.set_capacity(config.certificate_cache);
        publication.terms.store(Arc::new(Terms {
            unknown_sni: config.tls.unknown_sni,
            https_optional: config.server.https_optional,
            check_every: config.renewal.check_every,
            judgement: Judgement {
                window: config.renewal.window,
                warn: warn_from(config),
            },
            attachment,
            policies: Arc::new(Policies::of(config)),
            status: Arc::new(StatusTerms::of(config)),
        }));
        self.publish_report(report);
        publication.applied.notify_one();
    }

    /// Publishes certificates, if they changed, and reports what is missing.
    pub fn publish_report(&mut self, report: &Report) {
        self.publish_map();
        self.locked.manager.cert_files().mark_served();
        if self.locked.cert_files != report.watch {
            self.locked.cert_files = Arc::clone(&report.watch);
            self.publish_watched();
        }
        self.report_loading(report.loading);
        let publication = &self.engine.publication;
        if self.locked.missing != report.missing {
            self.locked.missing.clone_from(&report.missing);
            publication.changed.notify_one();
        }
        // Hosts without any certificate are served on plain HTTP; one that expired is still reported.
        let https_optional = publication.terms.load().https_optional;
        let map = self.engine.map.load();
        let counts = |missing: &&UncoveredHost| !https_optional || has_any(&map, missing);
        let missing = report.missing.iter().filter(counts);
        publication.readiness.set(CERTIFICATES, missing);
        self.engine.planned.notify_one();
    }

    /// Publishes certificates, if they changed.
    pub fn publish_map(&self) {
        let publication = &self.engine.publication;
        let terms = publication.terms.load();
        let snapshot = Snapshot {
            certificates: self.engine.map.load_full(),
            unknown_sni: terms.unknown_sni,
            attachment: terms.attachment.clone(),
            policies: Arc::clone(&terms.policies),
        };
        if !snapshot.is_same_as(&publication.certificates.snapshot()) {
            publication.certificates.publish(snapshot);
            publication.changed.notify_one();
        }
        // One that waits for an OCSP response is not in the map.
        publication.certificates_changed.notify_one();
    }

    /// Has these files of the program watched together with those of certificates, instead of those
    /// of an earlier call.
    pub fn watch_files(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let paths: Vec<_> = paths.into_iter().collect();
        if self.locked.own_files != paths {
            self.locked.own_files = paths;
            self.publish_watched();
            // A refused configuration is not published, but its files are watched from now on.
            self.engine.publication.applied.notify_one();
        }
    }

    /// The hosts that had no certificate at the end of the last pass.
    pub fn missing(&self) -> &[UncoveredHost] {
        &self.locked.missing
    }

    /// Does what time demands, and publishes what came of it. Blocks on the storage.
    pub(super) fn run_pass(&mut self) {
        let report = self.tick();
        log_changes(&report);
        log_problems(&report);
        self.publish_report(&report);
    }

    fn publish_watched(&self) {
        let locked = &self.locked;
        let paths = locked.own_files.iter().chain(&*locked.cert_files);
        let paths: Vec<_> = paths.cloned().collect();
        self.engine.publication.watched.store(paths.into());
    }

    /// Reports how far the first scan of all files is.
    fn report_loading(&self, loading: Option<(usize, usize)>) {
        let publication = &self.engine.publication;
        let progress = loading.map(|(done, all)| format!("{done} of {all} certificates loaded"));
        publication.readiness.set(LOADING, progress);
        publication.loaded.send_replace(match loading {
            None => LoadPhase::Done,
            Some(_) if self.cert_files().is_listed() => LoadPhase::Listed,
            Some(_) => LoadPhase::Begun,
        });
    }
}

impl Deref for ManagerGuard<'_> {
    type Target = TlsManager;

    fn deref(&self) -> &TlsManager {
        &self.locked.manager
    }
}

impl DerefMut for ManagerGuard<'_> {
    fn deref_mut(&mut self) -> &mut TlsManager {
        &mut self.locked.manager
    }
}

/// Whether there is a certificate, valid or not.
fn has_any(map: &SniMap, missing: &UncoveredHost) -> bool {
    match &missing.host {
        Pattern::Exact(name) => map.lookup(name.as_str()).is_some(),
        other => map.get(other).is_some(),
    }
}

/// Logs how many certificates came, went or changed.
pub(super) fn log_changes(report: &Report) {
    if !report.is_unchanged() {
        tracing::info!(
            added = report.added.len(),
            changed = report.changed.len(),
            removed = report.removed.len(),
            "certificates changed"
        );
    }
}

/// Logs what is wrong with certificates, once for as long as it stays.
pub(crate) fn log_problems(report: &Report) {
    for problem in report.problems.iter().filter(|problem| problem.is_new) {
        tracing::error!("{problem}");
    }
    for warning in report.warnings.iter().filter(|warning| warning.is_new) {
        tracing::warn!("{warning}");
    }
}
