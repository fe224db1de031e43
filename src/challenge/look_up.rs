//! Lookups in the storage for tokens that a CA asks for over HTTP before this instance has heard of
//! them.
//!
//! A CA may come to any instance within milliseconds. But anyone may ask for any token, so the
//! number of lookups per second and at a time is limited; beyond that, only known tokens are
//! answered. There are no such lookups over TLS: a handshake cannot wait for the storage.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::{Instant, timeout};

use super::record::ChallengeRecord;
use super::{ChallengeType, Challenges};
use crate::clock::Clock;
use crate::lock::MutexExt;
use crate::storage::{Storage, keys};

/// How many lookups run at once.
const AT_A_TIME: usize = 8;

/// How many lookups there are in a second; CAs validate a name from about five places.
const PER_SECOND: u32 = 100;

/// How long a request waits for a lookup.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where [`Challenges`] look up unknown tokens.
pub(super) struct LookUps {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    /// Passed on to the working thread, so that a lookup that hangs counts.
    permits: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

/// How many lookups there were in the second that began then.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    count: u32,
}

impl LookUps {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self {
            storage,
            clock,
            permits: Arc::new(Semaphore::new(AT_A_TIME)),
            pace: Mutex::default(),
        }
    }

    /// The stored challenge for `token`, if a lookup is allowed now and succeeds in time.
    async fn http01(&self, token: &str) -> Option<ChallengeRecord> {
        let key = keys::http01_challenge(token).ok()?;
        if !self.is_admitted() {
            return None;
        }
        let (permits, storage) = (Arc::clone(&self.permits), Arc::clone(&self.storage));
        let work = async move {
            let permit = permits.acquire_owned().await.ok()?;
            let load = task::spawn_blocking(move || {
                let loaded = storage.load(&key);
                drop(permit);
                let value = loaded.inspect_err(|error| {
                    tracing::debug!(%error, "cannot look for a challenge in the storage");
                });
                ChallengeRecord::from_json(&key, &value.ok()??)
            });
            load.await.ok()?
        };
        let stored = timeout(PATIENCE, work).await.ok()??;
        (stored.expires >= self.clock.now()).then_some(stored)
    }

    fn is_admitted(&self) -> bool {
        let mut pace = self.pace.lock_unpoisoned();
        pace.admit(Instant::now())
    }
}

impl Pace {
    fn admit(&mut self, now: Instant) -> bool {
        let second = Duration::from_secs(1);
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= second)
        {
            *self = Self {
                since: Some(now),
                count: 0,
            };
        }
        let is_admitted = self.count < PER_SECOND;
        self.count += u32::from(is_admitted);
        is_admitted
    }
}

impl Challenges {
    /// Looks up `token` in the storage if it is unknown. A response that is found is used from then
    /// on.
    pub async fn look_up_token(&self, token: &str) {
        let Some(look_ups) = &self.0.look_ups else {
            return;
        };
        let question = (ChallengeType::Http01, token.to_owned());
        if !keys::is_token(token) || !self.is_empty() && self.look_up(question).is_some() {
            return;
        }
        if let Some(stored) = look_ups.http01(token).await {
            self.add_other(&stored);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_admitted_in_a_second() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut admitted = |after| {
            let now = start + Duration::from_millis(after);
            (0..1000).filter(|_| pace.admit(now)).count()
        };
        assert_eq!(admitted(0), 100);
        assert_eq!(admitted(999), 0);
        assert_eq!(admitted(1000), 100);
        assert_eq!(admitted(1500), 0);
        assert_eq!(admitted(9000), 100);
    }
}
