//! Look-ups in the storage of what a CA asks for by HTTP before this instance has heard of it.
//!
//! A CA may come to any instance within milliseconds. Anyone may ask for any token as well, so only
//! so many look-ups are done in a second and at a time; beyond that what is known is answered. Over
//! TLS there is no such look-up: a handshake cannot wait for the storage.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::{Instant, timeout};

use super::record::ChallengeRecord;
use super::{ChallengeType, Challenges};
use crate::clock::Clock;
use crate::storage::{Storage, keys};

/// How many are done at a time.
const AT_A_TIME: usize = 8;

/// How many are done in a second; CAs look at a name from some five places.
const PER_SECOND: u32 = 100;

/// How long a request waits for one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where [`Challenges`] look for what they do not know.
pub(super) struct LookUps {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    /// Passed on to the thread at work, so that one that hangs counts.
    permits: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

/// How many there were in the second that began then.
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

    /// What is stored for `token`, where that may be looked up now and is found in time.
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
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// Looks in the storage for what answers `token`, where that is not known yet: what is found is
    /// answered from then on.
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
