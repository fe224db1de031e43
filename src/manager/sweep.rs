//! Looking at all files, in slices that let others come in between.

use std::time::{Duration, Instant};

use super::TlsManager;
use super::report::Report;
use crate::certificate::sni::Standing;

/// How often what is loaded is published at most while everything is looked at. A map of a million
/// names takes some milliseconds.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

impl TlsManager {
    /// Begins to look at all files, anew where that is under way. [`Self::sweep`] does it.
    pub fn begin_sweep(&mut self) {
        self.sources.begin_sweep();
    }

    /// Whether files are being looked at.
    pub fn is_sweeping(&self) -> bool {
        self.sources.is_sweeping()
    }

    /// Whether they are for the first time.
    pub fn is_loading(&self) -> bool {
        self.is_loading
    }

    /// Looks at files for so long. `None` where nothing is to be published or told yet.
    pub fn sweep(&mut self, slice: Duration) -> Option<Report> {
        let until = Instant::now() + slice;
        let now = self.pass_time();
        let progress = self.sources.sweep(Some(until), &self.loader, now);
        let mut report = Report::default();
        for change in progress.changes {
            self.take(change, Standing::Configured, &mut report);
        }
        if progress.is_done {
            self.is_loading = false;
        } else if self.last_published.elapsed() < PUBLISH_EVERY
            || self.candidates.is_settled() && !self.is_loading
        {
            return None;
        }
        self.last_published = Instant::now();
        Some(self.conclude(report, now))
    }

    /// Goes on with the sweep until it is done or it is `until`.
    pub(super) fn go_on(&mut self, until: Option<Instant>) -> Report {
        let now = self.pass_time();
        let progress = self.sources.sweep(until, &self.loader, now);
        self.is_loading &= !progress.is_done;
        let mut report = Report::default();
        for change in progress.changes {
            self.take(change, Standing::Configured, &mut report);
        }
        self.last_published = Instant::now();
        self.conclude(report, now)
    }
}
