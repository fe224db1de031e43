//! The loop over files: the first scan of all of them, changes of those that are watched, and a scan
//! now and then to be sure.
//!
//! A program may have its configuration in files that change together with those of certificates, so
//! it is asked in each step whether that is another now ([`ConfigFiles`]).

mod following;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::following::{Following, WITHOUT_WATCH};
use super::publish::{log_changes, log_problems};
use super::{Engine, ManagerGuard, blocking};
use crate::manager::Report;
use crate::memory;
use crate::shutdown::requested;

/// For how long all files are scanned before others get the lock.
const SLICE: Duration = Duration::from_millis(20);

/// The pause between two slices of the first scan, in which others get the lock.
const LOADING_PAUSE: Duration = Duration::from_millis(1);

/// The pause between those of a later scan, which nobody waits for: most of a core is left to others.
const SCAN_PAUSE: Duration = SLICE.saturating_mul(4);

/// How far the first scan of all files is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadPhase {
    Begun,
    /// It is known which files there are: what a client asks for is loaded first.
    Listed,
    Done,
}

/// The files of a program's configuration.
pub trait ConfigFiles: Send + Sync {
    /// Applies and publishes the configuration if its files have changed. Whether it did: then nothing
    /// is left to publish. Blocks on files.
    fn reload_changed(&self, manager: &mut ManagerGuard<'_>) -> bool;
}

/// Loads and watches files until the engine stops.
#[derive(Clone)]
pub(crate) struct FileScanner {
    engine: Arc<Engine>,
    config_files: Option<Arc<dyn ConfigFiles>>,
}

impl FileScanner {
    pub(crate) fn new(engine: Arc<Engine>, config_files: Option<Arc<dyn ConfigFiles>>) -> Self {
        Self {
            engine,
            config_files,
        }
    }

    pub(super) async fn run(self) {
        let publication = &self.engine.publication;
        let mut stopping = self.engine.stopping();
        let mut following = Following::start();
        let mut checked = Instant::now();
        // When the next slice of a scan of all files is due.
        let mut next = self.next_slice().await;
        let mut is_fetching = true;
        loop {
            if following.watch_new_paths(&publication.watched()).await {
                // Nobody has noticed what changed there before it was watched.
                self.run_check(Vec::new()).await;
                next = self.next_slice().await;
                if next.is_none() {
                    following.forget_followed();
                }
                continue;
            }
            let check_every = publication.check_every();
            let every = if following.is_whole() {
                check_every
            } else {
                check_every.min(WITHOUT_WATCH)
            };
            let slice = next.unwrap_or_else(Instant::now);
            tokio::select! {
                () = tokio::time::sleep_until(slice), if next.is_some() => {
                    next = self.run_slice().await;
                    if next.is_none() {
                        following.forget_followed();
                    }
                    continue;
                }
                () = publication.wait_until_applied() => {}
                paths = following.wait_for_change() => self.run_check(paths).await,
                () = tokio::time::sleep_until(checked + every), if next.is_none() => {
                    checked = Instant::now();
                    if !following.is_whole() {
                        // The system may permit by now what it refused.
                        following.forget_followed();
                    }
                    self.run_check(Vec::new()).await;
                }
                () = tokio::time::sleep(LOADING_PAUSE), if is_fetching && next.is_none() => {
                    is_fetching = self.run_fetch().await;
                    continue;
                }
                () = requested(&mut stopping) => return,
            }
            following.allow_more();
            // A scan that is under way continues when it was to.
            let began = self.next_slice().await;
            next = began.map(|now| next.unwrap_or(now));
        }
    }

    async fn run_check(&self, paths: Vec<PathBuf>) {
        let this = self.clone();
        blocking(move || this.check_paths(&paths)).await;
    }

    /// Scans some of all files. Returns when to continue; `None` if the scan is done.
    async fn run_slice(&self) -> Option<Instant> {
        let this = self.clone();
        let scan = move || {
            this.scan_slice();
            this.scan_pause()
        };
        let pause = blocking(scan).await.flatten();
        pause.map(|pause| Instant::now() + pause)
    }

    /// Reads some of what is to be in memory and is not yet. Whether there is more.
    async fn run_fetch(&self) -> bool {
        let this = self.clone();
        blocking(move || this.fetch_certificates())
            .await
            .unwrap_or_default()
    }

    /// When to run the first slice of a scan, if one has begun.
    async fn next_slice(&self) -> Option<Instant> {
        let this = self.clone();
        let pause = blocking(move || this.scan_pause()).await.flatten();
        pause.map(|_| Instant::now())
    }

    /// Checks files: reloads the configuration if its own have changed, else reads only the
    /// certificates that have. `paths` says which may have changed; if there are none, a scan of all
    /// begins, which [`Self::scan_slice`] runs. Blocks on files.
    pub(crate) fn check_paths(&self, paths: &[PathBuf]) {
        let mut manager = self.engine.lock();
        // Certificates are maintained whether or not the configuration is in order.
        if self.reload_changed(&mut manager) {
            return;
        }
        if paths.is_empty() {
            manager.cert_files_mut().begin_scan();
            return;
        }
        let report = manager.refresh_paths(paths);
        self.publish_changes(&mut manager, &report);
    }

    /// Scans some of all files. Blocks on them.
    pub(crate) fn scan_slice(&self) {
        let mut manager = self.engine.lock();
        let was_loading = manager.cert_files().is_loading();
        let Some(report) = manager.scan_slice(SLICE) else {
            return;
        };
        if !was_loading {
            self.publish_changes(&mut manager, &report);
            return;
        }
        if report.loading.is_none() {
            tracing::info!(certificates = report.certificates, "certificates loaded");
        }
        log_problems(&report);
        manager.publish_report(&report);
        drop(manager);
        if report.loading.is_none() {
            // What files were read into.
            memory::give_back();
        }
    }

    /// How long to pause before [`Self::scan_slice`] continues a scan; `None` if none is under way.
    fn scan_pause(&self) -> Option<Duration> {
        let manager = self.engine.lock();
        let pause = if manager.cert_files().is_loading() {
            LOADING_PAUSE
        } else {
            SCAN_PAUSE
        };
        manager.cert_files().is_scanning().then_some(pause)
    }

    /// Reads some of what is only in files though it is to be in memory. Whether there is more.
    /// Blocks on files.
    fn fetch_certificates(&self) -> bool {
        let is_more = self.engine.lock().cert_files_mut().fetch_certificates();
        if !is_more {
            memory::give_back();
        }
        is_more
    }

    /// Publishes and logs what changed in files.
    fn publish_changes(&self, manager: &mut ManagerGuard<'_>, report: &Report) {
        log_changes(report);
        log_problems(report);
        // These may be the certificates of another configuration.
        if !self.reload_changed(manager) {
            manager.publish_report(report);
        }
    }

    fn reload_changed(&self, manager: &mut ManagerGuard<'_>) -> bool {
        let files = self.config_files.as_ref();
        files.is_some_and(|files| files.reload_changed(manager))
    }
}
