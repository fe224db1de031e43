//! The certificates that come from files, kept up to date with them.
//!
//! A file that cannot be used never replaces what was loaded from it before. There may be a
//! million files, and reading all of them takes seconds. So they are scanned in slices, between
//! which everything else continues; a change of one file is read on its own.

mod directory;
mod entry;
mod entry_table;
mod files;
mod folders;
mod index;
mod lazy;
mod load_priority;
mod naming;
mod noted;
mod priority_load;
mod problems;
mod scan;
mod sources;
mod vanished;
mod watched_paths;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use prometheus::IntCounter;

pub use self::index::Flusher;

use self::entry_table::EntryTable;
use self::load_priority::LoadPriority;
use self::priority_load::PriorityLoad;
use self::scan::{Scan, ScanParts};
use self::sources::Sources;
use self::watched_paths::WatchedPaths;
use crate::certificate::sni::Loading;
use crate::certificate::{Change, Loader, TlsCertificate};
use crate::clock::{Clock, UnixTime};
use crate::config::model::{CertificateSource, InMemory};
use crate::host::Identifier;
use crate::problem::Problem;
use crate::schedule::WarnFrom;

/// Every configured file and directory, with what was loaded from it.
pub(crate) struct CertFiles {
    loader: Arc<Loader>,
    sources: Sources,
    table: EntryTable,
    watched: WatchedPaths,
    scan: Option<Scan>,
    load_priority: LoadPriority,
    /// There until the first scan is done.
    priority_load: Option<PriorityLoad>,
}

/// What a slice of a scan has done.
pub(crate) struct Progress {
    pub(crate) changes: Vec<Change>,
    /// Whether everything has been looked at.
    pub(crate) is_done: bool,
}

impl CertFiles {
    /// No files yet. Without an `index` all files are read at each start. `reads` counts the
    /// entries whose files were read.
    pub(crate) fn new(
        in_memory: InMemory,
        loader: &Arc<Loader>,
        clock: &Arc<dyn Clock>,
        index: Option<PathBuf>,
        reads: Option<IntCounter>,
    ) -> Self {
        Self {
            loader: Arc::clone(loader),
            sources: Sources::default(),
            table: EntryTable::new(in_memory, loader, clock, index, reads),
            watched: WatchedPaths::default(),
            scan: None,
            load_priority: LoadPriority::new(Arc::clone(clock)),
            priority_load: None,
        }
    }

    /// Takes the files and directories of another configuration; the next scan loads them.
    pub(crate) fn configure(&mut self, sources: &[CertificateSource]) {
        self.sources = Sources::from_config(sources);
        self.watched.clear();
        self.scan = None;
    }

    /// Begins the first scan. Until it is done, files that clients wait for are loaded before the
    /// rest, and the one for `default` first.
    pub(crate) fn begin_first_scan(&mut self, default: Option<Identifier>) {
        let load_priority = self.load_priority.clone();
        self.priority_load = Some(PriorityLoad::new(load_priority, &self.sources, default));
        self.watched.watch_configured(&self.sources);
        self.begin_scan();
    }

    /// Begins a scan of all files, from the start where one is under way. [`Self::scan_until`] runs
    /// it.
    pub(crate) fn begin_scan(&mut self) {
        self.table.begin_scan();
        let has_changed = self.watched.paths().is_empty() || self.is_loading();
        self.scan = Some(Scan::new(&self.sources, self.table.is_empty(), has_changed));
    }

    /// Whether a scan is under way.
    pub(crate) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Whether the first scan is under way.
    pub(crate) fn is_loading(&self) -> bool {
        self.priority_load.is_some()
    }

    /// How many files the current scan has looked at, and of how many as far as is known.
    pub(crate) fn scan_progress(&self) -> (usize, usize) {
        self.scan.as_ref().map_or((0, 0), Scan::progress)
    }

    /// Whether a client waits for files to be loaded before the rest.
    pub(crate) fn is_hurried(&self) -> bool {
        let priority_load = self.priority_load.as_ref();
        priority_load.is_some_and(PriorityLoad::is_hurried)
    }

    /// Loads the files that clients wait for, then continues the scan until it is done or it is
    /// `until`.
    pub(crate) fn scan_until(&mut self, until: Option<Instant>, now: UnixTime) -> Progress {
        let mut changes = self.load_requested(now);
        let is_done = match self.scan.take() {
            Some(scan) => self.continue_scan(scan, until, now, &mut changes),
            None => true,
        };
        if is_done {
            // What was needed for the first scan alone.
            self.priority_load = None;
            self.table.forget_unclaimed();
        }
        Progress { changes, is_done }
    }

    /// Loads the files that clients wait for.
    fn load_requested(&mut self, now: UnixTime) -> Vec<Change> {
        let Some(priority_load) = &self.priority_load else {
            return Vec::new();
        };
        let found = priority_load.take_requested(&self.sources);
        self.table.reload(found, &self.loader, now)
    }

    fn continue_scan(
        &mut self,
        mut scan: Scan,
        until: Option<Instant>,
        now: UnixTime,
        changes: &mut Vec<Change>,
    ) -> bool {
        let mut parts = ScanParts {
            sources: &mut self.sources,
            table: &mut self.table,
            priority_load: self.priority_load.as_mut(),
            loader: &self.loader,
            now,
        };
        let is_done = scan.run(until, &mut parts);
        let (scanned, has_changed) = scan.take_changes();
        changes.extend(scanned);
        if !is_done {
            self.scan = Some(scan);
            return false;
        }
        changes.extend(self.table.complete_chains(&self.loader, now));
        self.sources.judge_directories();
        // Links may lead elsewhere where something changed, and hardly where nothing did.
        if has_changed || self.watched.lacks_folders(&self.sources) {
            self.watched.find_all(&self.sources);
        }
        true
    }

    /// Reloads the entries that `paths` belong to. `None` where that may be any: then a scan is
    /// needed.
    pub(crate) fn reload_paths(&mut self, paths: &[PathBuf], now: UnixTime) -> Option<Vec<Change>> {
        let survey = self
            .sources
            .survey_paths(paths, self.table.entries(), |path, is_file| {
                self.watched.may_lead_through(path, is_file)
            })?;
        let mut changes = Vec::new();
        for id in &survey.superseded {
            changes.extend(self.table.remove(id));
        }
        for id in &survey.gone {
            changes.extend(self.table.mark_vanished(id, now));
        }
        let found = survey.found.iter().map(|found| &found.id);
        self.watched.add_links(found, &self.sources);
        changes.extend(self.table.reload(survey.found, &self.loader, now));
        changes.extend(self.table.complete_chains(&self.loader, now));
        Some(changes)
    }

    /// Begins a pass at `now`: certificates begin and end.
    pub(crate) fn pass_time(&mut self, now: UnixTime) {
        self.table.pass_time(now);
    }

    /// Removes the entries whose files have vanished and stay away.
    pub(crate) fn end_vanished(&mut self, now: UnixTime) -> Vec<Change> {
        self.table.end_vanished(now)
    }

    /// When the next certificate whose file has vanished is no longer served.
    pub(crate) fn next_end(&self) -> Option<UnixTime> {
        self.table.next_end()
    }

    /// Reads some of the certificates that are still in their files alone, though all are to be in
    /// memory. Whether there are more.
    pub(crate) fn fetch_certificates(&mut self) -> bool {
        self.table.fetch_certificates()
    }

    /// Reports what is wrong with files, and what is odd about what is served at `now`.
    pub(crate) fn report_problems(
        &self,
        now: UnixTime,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        problems::report(&self.sources, &self.table, now, problems, warnings);
    }

    /// Of which certificates the end is near at `now`, or that of their chain.
    pub(crate) fn near_ends(&self, warn: WarnFrom, now: UnixTime) -> Vec<Problem> {
        problems::near_ends(&self.table, warn, now)
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        let entries = self.table.entries().iter();
        entries.filter_map(|entry| entry.certificate.as_ref())
    }

    /// How many certificates there are.
    pub(crate) fn loaded(&self) -> usize {
        self.table.loaded()
    }

    /// The shortest life that a certificate has had, in seconds.
    pub(crate) fn shortest_life(&self) -> Option<i64> {
        self.table.shortest_life()
    }

    /// The directories and files of which a change may concern an entry.
    pub(crate) fn watched_paths(&self) -> &Arc<BTreeSet<PathBuf>> {
        self.watched.paths()
    }

    /// What has the index of files written.
    pub(crate) fn flusher(&self) -> &Flusher {
        self.table.flusher()
    }

    /// What handshakes ask for certificates that are not loaded yet; `None` once all are.
    pub(crate) fn load_progress(&self) -> Option<Arc<dyn Loading>> {
        self.is_loading()
            .then(|| Arc::new(self.load_priority.clone()) as _)
    }

    /// Whether all files are known, if not what is in them: from then on a client can be told what
    /// to wait for.
    pub(crate) fn is_listed(&self) -> bool {
        !self.is_loading() || self.load_priority.is_listed()
    }

    /// Notes that the certificates loaded so far are served.
    pub(crate) fn mark_served(&self) {
        self.load_priority.mark_served();
    }
}
