//! Syncs with the storage, so that this instance responds to validations that others with the same
//! storage have requested, and sweeps what killed processes have left there.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::task;

use super::Challenges;
use super::record::ChallengeRecord;
use crate::clock::{Clock, UnixTime};
use crate::lock::MutexExt;
use crate::shutdown::{ShutdownWatch, requested};
use crate::storage::{Key, Storage, StorageError, Watch, blocking, keys};

/// How often the storage is read if it signals no change.
const EVERY: Duration = Duration::from_secs(60);

/// How often it is read if it cannot be watched: a CA does not wait. Others wait for two such
/// reads, see [`super::instance`].
pub(super) const WITHOUT_WATCH: Duration = Duration::from_secs(1);

/// The minimum time between two reads: hundreds of orders may begin at once.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a start waits for the storage.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How long a stop waits for the storage.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Reads the storage once, before a start accepts connections: a CA that retries right after a
/// crash finds the response.
///
/// Blocks until that is done, for 2 s at most. Anything that arrives later is used when it arrives;
/// failures are logged.
pub fn read_once(challenges: &Challenges, storage: &Arc<dyn Storage>, clock: &Arc<dyn Clock>) {
    let (done, outcome) = mpsc::channel();
    let (challenges, storage, now) = (challenges.clone(), Arc::clone(storage), clock.now());
    let started = thread::Builder::new()
        .name("challenges".into())
        .spawn(move || {
            // Nobody is listening any more if this took too long.
            let _ = done.send(read_challenges(&challenges, &*storage, now));
        });
    let error = match started.map(|_| outcome.recv_timeout(START_PATIENCE)) {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error))) => error,
        Ok(Err(RecvTimeoutError::Timeout)) => format!(
            "the storage has not responded for {} s",
            START_PATIENCE.as_secs()
        ),
        Ok(Err(RecvTimeoutError::Disconnected)) => "it was interrupted by a bug".to_owned(),
        Err(error) => error.to_string(),
    };
    report_unreadable(&error);
}

/// Keeps `challenges` in sync with other instances, until `shutdown` says stop.
pub async fn sync_with_storage(
    challenges: Challenges,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    mut shutdown: ShutdownWatch,
) {
    let mut sync = Sync {
        challenges,
        storage,
        clock,
        failing: false,
    };
    tokio::select! {
        () = sync.sync_until_shutdown() => {}
        () = requested(&mut shutdown) => {}
    }
    sync.withdraw_instance().await;
}

struct Sync {
    challenges: Challenges,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    /// Whether the last read failed, which was logged.
    failing: bool,
}

/// The challenges in the storage.
struct ActiveChallenges {
    stored: Vec<ChallengeRecord>,
    /// The first error of reading or deleting.
    error: Option<StorageError>,
}

impl Sync {
    async fn sync_until_shutdown(&mut self) {
        let mut watch = None;
        loop {
            // Watched first, read second, so that no change is missed.
            if watch.is_none() {
                watch = self.watch_storage().await;
            }
            self.sync_once().await;
            tokio::time::sleep(PAUSE).await;
            match &mut watch {
                Some(watch) => _ = tokio::time::timeout(EVERY, watch.changed()).await,
                None => tokio::time::sleep(WITHOUT_WATCH).await,
            }
        }
    }

    async fn watch_storage(&self) -> Option<Watch> {
        let storage = Arc::clone(&self.storage);
        let watch = task::spawn_blocking(move || storage.watch(&keys::challenges()?)).await;
        watch
            .ok()?
            .inspect_err(|error| {
                tracing::debug!(
                    %error,
                    "cannot watch the storage for challenges, polling it instead"
                );
            })
            .ok()
    }

    async fn sync_once(&mut self) {
        let (challenges, now) = (self.challenges.clone(), self.clock.now());
        let work = move |storage: &dyn Storage| Ok(read_challenges(&challenges, storage, now));
        let outcome = match blocking(&self.storage, work).await {
            // This says nothing about the storage.
            Err(StorageError::Ending) => return,
            looked => looked.unwrap_or_else(|broken| Err(broken.to_string())),
        };
        if let Err(error) = &outcome
            && !self.failing
        {
            report_unreadable(error);
        }
        self.failing = outcome.is_err();
    }

    /// Lets others know that this instance no longer responds, as well as possible.
    async fn withdraw_instance(self) {
        let (challenges, storage) = (self.challenges, self.storage);
        let leave = task::spawn_blocking(move || {
            if let Err(error) = challenges.0.instance.delete_record(&*storage) {
                tracing::debug!(%error, "cannot withdraw this instance's record");
            }
        });
        // Others will notice that it is gone.
        let _ = tokio::time::timeout(END_PATIENCE, leave).await;
    }
}

fn report_unreadable(error: &str) {
    tracing::warn!(
        %error,
        "cannot read the storage for challenges: validations requested by other instances, or by \
         this one before a crash, may fail"
    );
}

/// Reads the whole storage; the first error as text. If it cannot be read, known responses stay in
/// use.
fn read_challenges(
    challenges: &Challenges,
    storage: &dyn Storage,
    now: UnixTime,
) -> Result<(), String> {
    // One read at a time: that of the start may be late.
    let _looking = challenges.0.looking.lock_unpoisoned();
    // Before the read: whoever stores a challenge after this knows of this instance.
    if let Err(error) = challenges.0.instance.write_record(storage) {
        tracing::debug!(
            %error,
            "cannot store this instance's record: others will not wait for it"
        );
    }
    challenges.remove_expired(now);
    let own = challenges.own_keys();
    let found = load_challenges(storage, &own, now).map_err(|error| error.to_string())?;
    challenges.set_others(&found.stored);
    found.error.map_or(Ok(()), |error| Err(error.to_string()))
}

/// All stored challenges except those under `own` keys; deletes expired ones.
fn load_challenges(
    storage: &dyn Storage,
    own: &HashSet<Key>,
    now: UnixTime,
) -> Result<ActiveChallenges, StorageError> {
    let mut found = ActiveChallenges {
        stored: Vec::new(),
        error: None,
    };
    for key in storage.list(&keys::challenges()?)? {
        if own.contains(&key) {
            continue;
        }
        let outcome = storage.load(&key).and_then(|value| {
            let Some(value) = value else {
                return Ok(());
            };
            match ChallengeRecord::from_json(&key, &value) {
                Some(stored) if stored.expires >= now => found.stored.push(stored),
                Some(_) => storage.delete(&key)?,
                None => tracing::debug!(%key, "this is not a challenge, leaving it alone"),
            }
            Ok(())
        });
        if let Err(error) = outcome {
            found.error.get_or_insert(error);
        }
    }
    Ok(found)
}
