//! Scans of all files, in slices with room for other work in between.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TlsManager;
use super::report::Report;
use crate::cert_files::Flusher;
use crate::cert_store::READ_AGAIN;
use crate::certificate::Change;
use crate::certificate::sni::{Loading, Precedence};
use crate::clock::UnixTime;
use crate::config::model::Config;

/// How often what is loaded is published at most while everything is looked at. A map of a million
/// names takes some milliseconds.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// How many certificates are read at a time that are to be in memory.
const FETCHED: usize = 64;

impl TlsManager {
    /// Begins with `config`: loads certificates from files for as long as there is `patience`. What
    /// is left is loaded by [`Self::scan_slice`], and only then issuers are asked for anything.
    pub fn start(&mut self, config: &Config, patience: Duration) -> Report {
        self.configure(config);
        self.is_loading = true;
        let default = config.tls.default_certificate.clone();
        self.cert_files
            .begin_priority_load(self.load_priority.clone(), default);
        self.cert_files.watch_configured();
        self.begin_scan();
        let until = Instant::now() + patience;
        self.scan_until(Some(until))
    }

    /// Reads again what changed on disk, and does all else that is due.
    pub fn refresh(&mut self) -> Report {
        self.begin_scan();
        self.scan_until(None)
    }

    /// Like [`Self::refresh`], but looks only at what `paths` are part of: files of certificates,
    /// or directories of them.
    pub fn refresh_paths(&mut self, paths: &[PathBuf]) -> Report {
        let now = self.pass_time();
        match self.cert_files.reload_paths(paths, &self.loader, now) {
            Some(changes) => {
                let report = self.apply_changes(changes);
                self.finish_pass(report, now)
            }
            // What is under way begins anew, and goes on in slices.
            None if self.is_loading => {
                self.begin_scan();
                self.finish_pass(Report::default(), now)
            }
            None => self.refresh(),
        }
    }

    /// When [`Self::tick`] is due whatever else happens: the storage did not say what it holds, or a
    /// certificate whose file has vanished is not served much longer.
    pub fn next_pass(&self) -> Option<UnixTime> {
        let is_unread = self.renewals.is_unread() || self.local_certs.is_unopened();
        let read = is_unread.then(|| self.last_pass.saturating_add(READ_AGAIN));
        read.into_iter().chain(self.cert_files.next_end()).min()
    }

    /// Begins a scan of all files, from the start where one is under way. [`Self::scan_slice`] runs it.
    pub fn begin_scan(&mut self) {
        self.cert_files.begin_scan();
    }

    /// Whether files are being scanned.
    pub fn is_scanning(&self) -> bool {
        self.cert_files.is_scanning()
    }

    /// Whether they are for the first time.
    pub fn is_loading(&self) -> bool {
        self.is_loading
    }

    /// Scans files for so long. `None` where there is nothing to publish or report yet.
    pub fn scan_slice(&mut self, slice: Duration) -> Option<Report> {
        let now = self.pass_time();
        let hurried = self.cert_files.is_hurried();
        let (report, is_done) = self.scan_files(Some(Instant::now() + slice), now);
        let has_time = self.last_published.elapsed() < PUBLISH_EVERY
            || self.candidates.is_settled() && !self.is_loading;
        if !is_done && has_time && !hurried {
            return None;
        }
        self.last_published = Instant::now();
        Some(self.finish_pass(report, now))
    }

    /// Continues the scan until it is done or it is `until`.
    pub(super) fn scan_until(&mut self, until: Option<Instant>) -> Report {
        let now = self.pass_time();
        let (report, _) = self.scan_files(until, now);
        self.last_published = Instant::now();
        self.finish_pass(report, now)
    }

    /// Scans files until it is `until`. Returns what has changed, and whether the scan is done.
    fn scan_files(&mut self, until: Option<Instant>, now: UnixTime) -> (Report, bool) {
        let mut changes = self.cert_files.load_requested(&self.loader, now);
        let progress = self.cert_files.scan_until(until, &self.loader, now);
        changes.extend(progress.changes);
        if progress.is_done {
            self.is_loading = false;
            self.cert_files.end_priority_load();
            self.cert_files.forget_unclaimed();
        }
        (self.apply_changes(changes), progress.is_done)
    }

    /// Reads some of the certificates that are still in their files alone, though all are to be in
    /// memory. Whether there are more.
    pub fn fetch_certificates(&mut self) -> bool {
        self.cert_files.fetch_certificates(FETCHED)
    }

    /// What has the index of files written.
    pub fn flusher(&self) -> &Flusher {
        self.cert_files.flusher()
    }

    /// Whether it is known what files there are, if not what is in them: from then on who asks for
    /// certificates can be told which to wait for.
    pub fn is_listed(&self) -> bool {
        !self.is_loading || self.load_priority.is_listed()
    }

    /// Notes that what was published last is served.
    pub fn note_served(&self) {
        self.load_priority.mark_served();
    }

    /// Who says what handshakes wait for; `None` where everything is loaded.
    pub(super) fn load_progress(&self) -> Option<Arc<dyn Loading>> {
        self.is_loading
            .then(|| Arc::new(self.load_priority.clone()) as _)
    }

    fn apply_changes(&mut self, changes: Vec<Change>) -> Report {
        let mut report = Report::default();
        for change in changes {
            self.apply_change(change, Precedence::Configured, &mut report);
        }
        report
    }

    /// Serves what took the place of another, no longer what went.
    pub(super) fn apply_change(
        &mut self,
        Change { old, new }: Change,
        precedence: Precedence,
        report: &mut Report,
    ) {
        if let Some(old) = &old {
            self.candidates.remove(old);
            if let Some(gauges) = &mut self.gauges {
                gauges.remove(old);
            }
        }
        if let Some(new) = &new {
            self.candidates.add(new, precedence);
            if precedence != Precedence::OnDemand {
                self.names.recheck_covered(new.names());
            }
            if let Some(gauges) = &mut self.gauges {
                gauges.add(new);
            }
        }
        match (old, new) {
            (None, Some(new)) => report.added.push(new),
            (Some(_), Some(new)) => report.changed.push(new),
            (Some(old), None) => report.removed.push(old),
            (None, None) => {}
        }
    }
}
