//! Follows the storage, so that this instance answers what others with the same storage have
//! asked a CA to validate, and sweeps what killed processes have left there.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task;

use super::Challenges;
use super::stored::Stored;
use crate::clock::{Clock, UnixTime};
use crate::shutdown::{ShutdownWatch, requested};
use crate::storage::{Key, Storage, StorageError, Watch, keys};

/// How often the storage is looked at though it has told of no change.
const EVERY: Duration = Duration::from_secs(60);

/// How often it is looked at where it cannot be watched: a CA does not wait.
const WITHOUT_WATCH: Duration = Duration::from_secs(2);

/// The shortest time from one look to the next: hundreds of orders begin at a time.
const PAUSE: Duration = Duration::from_millis(50);

/// Keeps `challenges` equal to what other instances have stored, until `shutdown` says stop.
pub async fn follow(
    challenges: Challenges,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    mut shutdown: ShutdownWatch,
) {
    let mut follower = Follower {
        challenges,
        storage,
        clock,
        failing: false,
    };
    tokio::select! {
        () = follower.run() => {}
        () = requested(&mut shutdown) => {}
    }
}

struct Follower {
    challenges: Challenges,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    /// Whether the last look failed, which has been logged then.
    failing: bool,
}

/// What was found in the storage.
struct Found {
    stored: Vec<Stored>,
    /// The first of what could not be read or deleted.
    error: Option<StorageError>,
}

impl Follower {
    async fn run(&mut self) {
        let mut watch = None;
        loop {
            // Watched first, looked at second: so no change falls in between.
            if watch.is_none() {
                watch = self.watch().await;
            }
            self.look().await;
            tokio::time::sleep(PAUSE).await;
            match &mut watch {
                Some(watch) => _ = tokio::time::timeout(EVERY, watch.changed()).await,
                None => tokio::time::sleep(WITHOUT_WATCH).await,
            }
        }
    }

    async fn watch(&self) -> Option<Watch> {
        let storage = Arc::clone(&self.storage);
        let watch = task::spawn_blocking(move || storage.watch(&keys::challenges()?)).await;
        watch
            .ok()?
            .inspect_err(|error| {
                tracing::debug!(%error, "cannot watch the storage for challenges, looking often");
            })
            .ok()
    }

    async fn look(&mut self) {
        let now = self.clock.now();
        self.challenges.expire(now);
        let own = self.challenges.own_keys();
        let storage = Arc::clone(&self.storage);
        let found = task::spawn_blocking(move || find(&*storage, &own, now)).await;
        let error = match found {
            Ok(Ok(found)) => {
                self.challenges.set_others(&found.stored);
                found.error.map(|error| error.to_string())
            }
            // What was known is answered on.
            Ok(Err(error)) => Some(error.to_string()),
            Err(broken) => Some(broken.to_string()),
        };
        if let Some(error) = &error
            && !self.failing
        {
            tracing::warn!(
                %error,
                "cannot read the storage for challenges: validations that other instances have \
                 asked for may fail"
            );
        }
        self.failing = error.is_some();
    }
}

/// Everything that is stored but for what is under `own` keys; deletes what has expired.
fn find(storage: &dyn Storage, own: &HashSet<Key>, now: UnixTime) -> Result<Found, StorageError> {
    let mut found = Found {
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
            match Stored::from_json(&key, &value) {
                Some(stored) if stored.expires >= now => found.stored.push(stored),
                Some(_) => storage.delete(&key)?,
                None => tracing::debug!(%key, "this is no challenge, leaving it alone"),
            }
            Ok(())
        });
        if let Err(error) = outcome {
            found.error.get_or_insert(error);
        }
    }
    Ok(found)
}
