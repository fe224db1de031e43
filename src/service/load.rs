//! Scans all files while everything else continues: at the start, and now and then.

use std::time::Duration;

use super::report;
use super::state::GatewayState;
use crate::memory;

/// For how long all files are looked at before others have their turn.
const SLICE: Duration = Duration::from_millis(20);

/// The pause between two slices of the first look, in which whoever waits has his turn.
pub(super) const BREATH: Duration = Duration::from_millis(1);

/// The pause between those of a later one, for which nobody waits: most of a core is left to others.
const REST: Duration = SLICE.saturating_mul(4);

/// How far the first scan of all files is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadPhase {
    Begun,
    /// It is known which files there are: what a client asks for is loaded first.
    Listed,
    Done,
}

impl GatewayState {
    /// Whether all files are being scanned, by [`Self::scan_slice`], and how long to pause before it
    /// continues.
    pub fn scan_pause(&self) -> Option<Duration> {
        let manager = &self.writer().manager;
        let rest = if manager.is_loading() { BREATH } else { REST };
        manager.is_scanning().then_some(rest)
    }

    /// Scans some of all files. Blocks on them.
    pub fn scan_slice(&self) {
        let mut writer = self.writer();
        let was_loading = writer.manager.is_loading();
        let Some(report) = writer.manager.scan_slice(SLICE) else {
            return;
        };
        if !was_loading {
            self.publish_report(&mut writer, &report);
            return;
        }
        if report.loading.is_none() {
            tracing::info!(certificates = report.certificates, "certificates loaded");
        }
        report::log_certificates(&report);
        let config = &self.current.load().config;
        self.publish_certificates(config, &mut writer, &report);
        drop(writer);
        if report.loading.is_none() {
            // What files were read into.
            memory::give_back();
        }
    }

    /// Reads some of what is only in files though it is to be in memory. Whether there is more.
    /// Blocks on files.
    pub fn fetch_certificates(&self) -> bool {
        let is_more = self.writer().manager.fetch_certificates();
        if !is_more {
            memory::give_back();
        }
        is_more
    }

    /// Waits until what is known of files is written down, for so long at most; not for the writer,
    /// who may be stuck in a storage that hangs.
    pub fn flush_index(&self, patience: Duration) {
        self.flusher.flush(patience);
    }

    /// Waits until the loading of certificates has come so far.
    pub async fn wait_until_loaded(&self, enough: LoadPhase) {
        // The sender is this one's own.
        let _ = self.loaded.subscribe().wait_for(|is| *is >= enough).await;
    }

    /// The shortest life of a certificate from a file so far, in seconds.
    pub(super) fn shortest_life(&self) -> Option<i64> {
        self.writer().manager.shortest_life()
    }
}
