//! Keeps an outbox in its journal, off the threads that must not block.
//!
//! What cannot be kept stays in memory; the whole outbox is written as soon as that works.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::journal::Journal;
use super::outbox::Outbox;
use super::spool::Spool;

/// How long after a failure the next attempt is made.
const PAUSE: Duration = Duration::from_secs(5);

/// The journal of one outbox.
pub(super) struct Keeper {
    spool: Option<Arc<Spool>>,
    id: Arc<str>,
    /// `None` until it has been begun, or if it could not be written.
    journal: Option<Journal>,
    /// Whether what an earlier process has kept has been read.
    is_loaded: bool,
    retry_at: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(spool: Option<Arc<Spool>>, id: Arc<str>) -> Self {
        Self {
            spool,
            id,
            journal: None,
            is_loaded: false,
            retry_at: None,
        }
    }

    /// Waits until nobody else in this process keeps this outbox.
    pub(super) async fn claim(&self) -> Option<OwnedMutexGuard<()>> {
        match &self.spool {
            Some(spool) => Some(spool.claim(&self.id).await),
            None => None,
        }
    }

    /// When the next attempt is to be made after a failure.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Keeps what has changed in an outbox. At the first time, adds to it what an earlier process has
    /// kept.
    pub(super) async fn keep(&mut self, outbox: &mut Outbox) {
        let Some(spool) = self.spool.clone() else {
            return;
        };
        if self.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let result = self.try_keep(&spool, outbox).await;
        self.retry_at = match &result {
            Ok(()) => None,
            Err(_) => {
                // Its end may be half a line.
                self.journal = None;
                Some(Instant::now() + PAUSE)
            }
        };
        spool.record(&result);
    }

    /// Deletes the journal.
    pub(super) async fn delete(self) {
        let Some(spool) = self.spool else { return };
        drop(self.journal);
        let id = self.id;
        // A panic leaves it for the next start.
        let _ = tokio::task::spawn_blocking(move || spool.delete(&id)).await;
    }

    async fn try_keep(&mut self, spool: &Arc<Spool>, outbox: &mut Outbox) -> io::Result<()> {
        if !self.is_loaded {
            let (spool, id) = (Arc::clone(spool), Arc::clone(&self.id));
            let kept = blocking(move || spool.load(&id)).await?;
            outbox.restore(kept);
            self.is_loaded = true;
        }
        let journal = self.journal.take().filter(|journal| !journal.is_long());
        let journal = match journal {
            None => {
                let (spool, id) = (Arc::clone(spool), Arc::clone(&self.id));
                let all = outbox.snapshot();
                blocking(move || spool.begin(&id, all)).await?
            }
            Some(mut journal) => {
                let changes = outbox.take_changes();
                if changes.is_empty() {
                    self.journal = Some(journal);
                    return Ok(());
                }
                blocking(move || journal.append(&changes).map(|()| journal)).await?
            }
        };
        self.journal = Some(journal);
        Ok(())
    }
}

/// Does what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
