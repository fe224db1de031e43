//! Keeps an outbox in its journal, off the threads that must not block.
//!
//! What cannot be kept stays in memory; the whole outbox is written as soon as that works. A disk that
//! does not respond is not waited for: it may be what there is to report.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::journal::Journal;
use super::outbox::Outbox;
use super::spool::Spool;

/// How long after a failure the next attempt is made.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the disk may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The journal of one outbox.
pub(super) struct Keeper {
    spool: Option<Arc<Spool>>,
    id: Arc<str>,
    /// `None` until it has been begun, or if it could not be written.
    journal: Option<Journal>,
    /// Whether what an earlier process has kept has been read.
    is_loaded: bool,
    retry_at: Option<Instant>,
    /// How long the disk may take.
    patience: Duration,
    /// What the disk has not done yet. Nothing else is begun before.
    overdue: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn new(spool: Option<Arc<Spool>>, id: Arc<str>) -> Self {
        Self {
            spool,
            id,
            journal: None,
            is_loaded: false,
            retry_at: None,
            patience: PATIENCE,
            overdue: None,
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
        let deleted = tokio::task::spawn_blocking(move || spool.delete(&id));
        // A panic leaves it for the next start, and so does a disk that does not respond.
        let _ = timeout(PATIENCE, deleted).await;
    }

    async fn try_keep(&mut self, spool: &Arc<Spool>, outbox: &mut Outbox) -> io::Result<()> {
        if self
            .overdue
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return Err(no_response());
        }
        self.overdue = None;
        if !self.is_loaded {
            let (spool, id) = (Arc::clone(spool), Arc::clone(&self.id));
            let kept = self.run_blocking(move || spool.load(&id)).await?;
            outbox.restore(kept);
            self.is_loaded = true;
        }
        let journal = self.journal.take().filter(|journal| !journal.is_long());
        let journal = match journal {
            None => {
                let (spool, id) = (Arc::clone(spool), Arc::clone(&self.id));
                let all = outbox.snapshot();
                self.run_blocking(move || spool.begin(&id, all)).await?
            }
            Some(mut journal) => {
                let changes = outbox.take_changes();
                if changes.is_empty() {
                    self.journal = Some(journal);
                    return Ok(());
                }
                self.run_blocking(move || journal.append(&changes).map(|()| journal))
                    .await?
            }
        };
        self.journal = Some(journal);
        Ok(())
    }

    /// Does what blocks on a thread that may, within the time that the disk has.
    async fn run_blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let task = tokio::task::spawn_blocking(move || {
            // Otherwise nobody waits for it any more.
            let _ = done.send(work());
        });
        match timeout(self.patience, result).await {
            Ok(result) => result.unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(_) => {
                self.overdue = Some(task);
                Err(no_response())
            }
        }
    }
}

fn no_response() -> io::Error {
    let message = format!("the disk has not responded within {PATIENCE:?}");
    io::Error::new(io::ErrorKind::TimedOut, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::clock::unix;
    use crate::event::{Event, EventKind, Severity};

    #[tokio::test]
    async fn a_disk_that_does_not_respond_is_not_waited_for() {
        let parent = tempfile::tempdir().expect("a directory");
        let spool = Arc::new(Spool::new(parent.path(), "gw", Path::new("/a.yaml")));
        assert!(spool.load("id").expect("nothing").is_empty());
        let mut directories = fs::read_dir(parent.path()).expect("a directory");
        let directory = directories.next().expect("one").expect("it").path();
        // Opening it takes until somebody reads it.
        let pipe = directory.join("id.new");
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let mut outbox = Outbox::default();
        let failed = Event::new(
            unix(1),
            EventKind::CertificateFailed,
            Severity::Error,
            "a.test",
            "",
        );
        outbox.observe(&failed, true, None, unix(1));
        let mut keeper = Keeper::new(Some(Arc::clone(&spool)), "id".into());
        keeper.patience = Duration::from_millis(200);
        keeper.keep(&mut outbox).await;
        assert!(keeper.retry_at().is_some());
        let overdue = || Instant::now() + Duration::from_secs(1);
        // It is not asked again before it has responded.
        let before = overdue();
        keeper.retry_at = None;
        keeper.keep(&mut outbox).await;
        assert!(Instant::now() < before && keeper.retry_at().is_some());
        assert_eq!(outbox.depth(), 1, "what waits is sent from memory");

        let reading = pipe.clone();
        let reader = std::thread::spawn(move || fs::read(reading));
        let task = keeper.overdue.take().expect("it is under way");
        task.await.expect("it has ended");
        let _ = reader.join().expect("it was read");
        let _ = fs::remove_file(&pipe);
        keeper.retry_at = None;
        keeper.keep(&mut outbox).await;
        assert!(keeper.retry_at().is_none());
        assert_eq!(
            spool.load("id").expect("kept").len(),
            2,
            "the entry and its trouble"
        );
    }
}
