//! The solvers of the two types of challenge that the gateway's own listeners respond to.
//!
//! A solver responds in this process immediately, and stores the challenge so that every instance
//! with the same storage responds too; other live instances are given time to learn of it. A
//! storage failure is no reason not to try: most gateways are alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task;
use tokio::time::Instant;

use super::record::ChallengeRecord;
use super::{Challenge, ChallengeSolver, ChallengeType, Challenges};
use crate::clock::Clock;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Storage, StorageError};

/// How long a challenge is responded to at most: CAs validate within minutes.
const LIFE: Duration = Duration::from_secs(3600);

/// How long the storage may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a validation over TLS waits for another of the same name, plus a random number of
/// milliseconds up to a second.
const TURN_PATIENCE: Duration = Duration::from_secs(90);
const TURN_SPREAD: u64 = 30_000;

/// How often to check whether another instance's validation is over.
const TURN_PAUSE: Duration = Duration::from_millis(250);

/// Solves `http-01` (RFC 8555, section 8.3) on the HTTP listeners.
pub struct Http01Solver(Solver);

/// Solves `tls-alpn-01` (RFC 8737) on the HTTPS listeners.
pub struct TlsAlpn01Solver(Solver);

/// What both solvers do.
struct Solver {
    challenges: Challenges,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
}

impl Http01Solver {
    /// A solver whose responses listeners find in `challenges`, and other instances in `storage`.
    pub fn new(challenges: Challenges, storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self(Solver {
            challenges,
            storage,
            clock,
        })
    }
}

impl TlsAlpn01Solver {
    /// A solver whose responses listeners find in `challenges`, and other instances in `storage`.
    pub fn new(challenges: Challenges, storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self(Solver {
            challenges,
            storage,
            clock,
        })
    }
}

#[async_trait]
impl ChallengeSolver for Http01Solver {
    fn kind(&self) -> ChallengeType {
        ChallengeType::Http01
    }

    async fn present(&self, challenge: &Challenge) -> Result<(), Failure> {
        self.0.present(self.kind(), challenge).await
    }

    async fn clean_up(&self, challenge: &Challenge) {
        self.0.clean_up(challenge).await;
    }
}

#[async_trait]
impl ChallengeSolver for TlsAlpn01Solver {
    fn kind(&self) -> ChallengeType {
        ChallengeType::TlsAlpn01
    }

    async fn present(&self, challenge: &Challenge) -> Result<(), Failure> {
        let start = Instant::now();
        // Two orders with two common names might wait for each other: chance decides which gives up
        // first.
        let patience = TURN_PATIENCE + Duration::from_millis(fastrand::u64(..TURN_SPREAD));
        let turn = self
            .0
            .challenges
            .0
            .name_locks
            .acquire(challenge, patience)
            .await;
        let turn = turn.ok_or_else(|| is_taken(challenge))?;
        let rest = patience.saturating_sub(start.elapsed());
        self.0.let_others_finish(challenge, rest).await?;
        self.0.present(self.kind(), challenge).await?;
        turn.keep_locked();
        Ok(())
    }

    async fn clean_up(&self, challenge: &Challenge) {
        // Released after the rest, whatever comes of it.
        let _turn = self.0.challenges.0.name_locks.resume_guard(challenge);
        self.0.clean_up(challenge).await;
    }

    fn abandon(&self, challenge: &Challenge) {
        drop(self.0.challenges.0.name_locks.resume_guard(challenge));
    }
}

/// Why a name cannot be validated over TLS now.
fn is_taken(challenge: &Challenge) -> Failure {
    Failure::new(
        FailureClass::Network,
        format!(
            "another order is validating {} by {} and does not finish: a name can answer only one \
             such validation at a time; the next attempt tries again",
            challenge.domain,
            challenge.kind.as_str(),
        ),
    )
}

impl Solver {
    /// Waits, with a limit, while another live instance has its own challenge at this key. Two that
    /// store at the same moment may miss each other.
    async fn let_others_finish(
        &self,
        challenge: &Challenge,
        patience: Duration,
    ) -> Result<(), Failure> {
        let key = challenge.check()?;
        let start = Instant::now();
        loop {
            let (storage, challenges) = (Arc::clone(&self.storage), self.challenges.clone());
            let (key, ours, now) = (key.clone(), challenge.clone(), self.clock.now());
            let look = move || {
                let value = storage.load(&key)?;
                let stored = value.and_then(|value| ChallengeRecord::from_json(&key, &value));
                let theirs =
                    stored.filter(|stored| stored.challenge != ours && stored.expires >= now);
                match theirs.and_then(|theirs| theirs.instance) {
                    Some(instance) => challenges.0.instance.is_other(&*storage, &instance),
                    None => Ok(false),
                }
            };
            match in_time(look).await {
                Ok(true) if start.elapsed() < patience => tokio::time::sleep(TURN_PAUSE).await,
                Ok(true) => return Err(is_taken(challenge)),
                // A storage failure is no reason not to try.
                Ok(false) | Err(_) => return Ok(()),
            }
        }
    }

    async fn present(&self, kind: ChallengeType, challenge: &Challenge) -> Result<(), Failure> {
        let internal = |why: String| Failure::new(FailureClass::Internal, why);
        if challenge.kind != kind {
            return Err(internal(format!(
                "the {} challenge for {} was given to the solver for {}; this is a bug, please \
                 report it",
                challenge.kind.as_str(),
                challenge.domain,
                kind.as_str(),
            )));
        }
        let stored = ChallengeRecord {
            challenge: challenge.clone(),
            expires: self.clock.now() + LIFE,
            instance: Some(self.challenges.0.instance.id().to_owned()),
        };
        self.challenges.add_answer(&stored)?;
        let key = challenge.check()?;
        let json = stored
            .to_json()
            .map_err(|error| internal(format!("cannot encode a challenge: {error}")))?;
        let (storage, challenges) = (Arc::clone(&self.storage), self.challenges.clone());
        let store = move || {
            storage.store(&key, &json)?;
            challenges.0.instance.delay(&*storage)
        };
        match in_time(store).await {
            // The CA may come to other instances, which have to learn of the challenge first.
            Ok(Some(delay)) => tokio::time::sleep(delay).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(
                domain = %challenge.domain,
                challenge = challenge.kind.as_str(),
                %error,
                "cannot store a challenge: only this instance can answer the CA"
            ),
        }
        Ok(())
    }

    async fn clean_up(&self, challenge: &Challenge) {
        if !self.challenges.remove_answer(challenge) {
            return;
        }
        let Ok(key) = challenge.check() else {
            return;
        };
        let storage = Arc::clone(&self.storage);
        let ours = challenge.clone();
        if let Err(error) = in_time(move || delete(&*storage, &key, &ours)).await {
            tracing::debug!(
                domain = %challenge.domain,
                challenge = challenge.kind.as_str(),
                %error,
                "cannot delete a challenge from the storage: it expires there"
            );
        }
    }
}

/// Deletes the stored challenge, unless another instance has put its own there.
fn delete(storage: &dyn Storage, key: &Key, challenge: &Challenge) -> Result<(), StorageError> {
    match storage.load(key)? {
        Some(value)
            if ChallengeRecord::from_json(key, &value)
                .is_some_and(|stored| stored.challenge != *challenge) =>
        {
            Ok(())
        }
        Some(_) => storage.delete(key),
        None => Ok(()),
    }
}

/// Works with the storage on a thread that may block. The error is text.
async fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done.map_err(|error| error.to_string()),
        Ok(Err(broken)) => Err(format!("it was interrupted by a bug: {broken}")),
        Err(_) => Err(format!(
            "the storage has not responded for {} s",
            PATIENCE.as_secs()
        )),
    }
}
