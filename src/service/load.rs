//! Looking at all files while everything else goes on: at the start, and now and then.

use std::time::Duration;

use super::live::Live;
use super::outcome;

/// For how long all files are looked at before others have their turn.
const SLICE: Duration = Duration::from_millis(20);

/// How far the first look at all files is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loading {
    Begun,
    /// It is known which files there are: what a client asks for is loaded first.
    Listed,
    Done,
}

impl Live {
    /// Whether files are being looked at, by [`Self::sweep`].
    pub fn is_sweeping(&self) -> bool {
        self.writer().manager.is_sweeping()
    }

    /// Looks at some of all files. Blocks on them.
    pub fn sweep(&self) {
        let mut writer = self.writer();
        let was_loading = writer.manager.is_loading();
        let Some(report) = writer.manager.sweep(SLICE) else {
            return;
        };
        if !was_loading {
            self.take_certificates(&mut writer, &report);
            return;
        }
        if report.loading.is_none() {
            tracing::info!(certificates = report.certificates, "certificates loaded");
        }
        outcome::tell_certificates(&report);
        let config = &self.current.load().config;
        self.publish_certificates(config, &mut writer, &report);
    }

    /// Reads some of what is only in files though it is to be in memory. Whether there is more.
    /// Blocks on files.
    pub fn fetch(&self) -> bool {
        self.writer().manager.fetch()
    }

    /// Waits until what is known of files is written down, for so long at most; not for the writer,
    /// who may be stuck in a storage that hangs.
    pub fn flush_index(&self, patience: Duration) {
        self.flusher.flush(patience);
    }

    /// Waits until the loading of certificates has come so far.
    pub async fn loaded(&self, enough: Loading) {
        // The sender is this one's own.
        let _ = self.loaded.subscribe().wait_for(|is| *is >= enough).await;
    }

    /// The shortest life of a certificate from a file so far, in seconds.
    pub(super) fn shortest_life(&self) -> Option<i64> {
        self.writer().manager.shortest_life()
    }
}
