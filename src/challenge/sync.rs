//! Syncs with the storage, so that this instance answers what others with the same storage have
//! asked a CA to validate, and sweeps what killed processes have left there.

use std::collections::HashSet;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::task;

use super::Challenges;
use super::record::ChallengeRecord;
use crate::clock::{Clock, UnixTime};
use crate::shutdown::{ShutdownWatch, requested};
use crate::storage::{Key, Storage, StorageError, Watch, blocking, keys};

/// How often the storage is read though it has signalled no change.
const EVERY: Duration = Duration::from_secs(60);

/// How often it is read where it cannot be watched: a CA does not wait. Others wait for two such
/// reads, see [`super::instance`].
pub(super) const WITHOUT_WATCH: Duration = Duration::from_secs(1);

/// The shortest time from one look to the next: hundreds of orders begin at a time.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a start waits for the storage.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How long a stop waits for the storage.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Reads the storage once, for a start that is about to accept connections: a CA that tries again
/// right after a crash finds the answer.
///
/// Blocks until that is done, for 2 s at most. What comes later than that is answered when it
/// comes; what fails is logged.
pub fn read_once(challenges: &Challenges, storage: &Arc<dyn Storage>, clock: &Arc<dyn Clock>) {
    let (done, outcome) = mpsc::channel();
    let (challenges, storage, now) = (challenges.clone(), Arc::clone(storage), clock.now());
    let started = thread::Builder::new()
        .name("challenges".into())
        .spawn(move || {
            // Nobody listens any more where it took too long.
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

/// Keeps `challenges` equal to what other instances have stored, until `shutdown` says stop.
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
    /// Whether the last read failed, which has been logged then.
    failing: bool,
}

/// What was found in the storage.
struct ActiveChallenges {
    stored: Vec<ChallengeRecord>,
    /// The first of what could not be read or deleted.
    error: Option<StorageError>,
}

impl Sync {
    async fn sync_until_shutdown(&mut self) {
        let mut watch = None;
        loop {
            // Watched first, read second: so no change falls in between.
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
            // That is no news of the storage.
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

    /// Lets others know that this instance answers no longer, as well as it can.
    async fn withdraw_instance(self) {
        let (challenges, storage) = (self.challenges, self.storage);
        let leave = task::spawn_blocking(move || {
            if let Err(error) = challenges.0.instance.delete_record(&*storage) {
                tracing::debug!(%error, "cannot withdraw this instance's record");
            }
        });
        // Others notice that it is gone.
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

/// Reads the storage as a whole; the first error as text. What was known is answered on where
/// it cannot be read.
fn read_challenges(
    challenges: &Challenges,
    storage: &dyn Storage,
    now: UnixTime,
) -> Result<(), String> {
    // One after the other: that of a start may be late.
    let looking = challenges.0.looking.lock();
    let _looking = looking.unwrap_or_else(PoisonError::into_inner);
    // Before it is read: whoever stores something after this knows that somebody is to be told.
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

/// Everything that is stored but for what is under `own` keys; deletes what has expired.
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
