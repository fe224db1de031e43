//! The solvers of the two types of challenge that the gateway's own listeners answer.
//!
//! A solver answers in this process at once, and stores the challenge so that every instance with
//! the same storage answers as well; where others live they are given time to hear of it. A storage that fails is no reason not to try: most gateways
//! are alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task;

use super::stored::Stored;
use super::{Challenge, ChallengeSolver, ChallengeType, Challenges};
use crate::clock::{Clock, UnixTime};
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, Storage, StorageError};

/// For how long a validation is answered at most, in seconds: CAs look within minutes.
const LIFE: UnixTime = 3600;

/// How long the storage may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Solves `http-01` (RFC 8555, section 8.3) on the HTTP listeners.
pub struct Http01Solver(Solver);

/// Solves `tls-alpn-01` (RFC 8737) on the HTTPS listeners.
pub struct TlsAlpn01Solver(Solver);

/// What both do.
struct Solver {
    challenges: Challenges,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
}

impl Http01Solver {
    /// A solver whose answers the listeners find in `challenges`, and other instances in
    /// `storage`.
    pub fn new(challenges: Challenges, storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self(Solver {
            challenges,
            storage,
            clock,
        })
    }
}

impl TlsAlpn01Solver {
    /// A solver whose answers the listeners find in `challenges`, and other instances in
    /// `storage`.
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
        self.0.present(self.kind(), challenge).await
    }

    async fn clean_up(&self, challenge: &Challenge) {
        self.0.clean_up(challenge).await;
    }
}

impl Solver {
    async fn present(&self, kind: ChallengeType, challenge: &Challenge) -> Result<(), Failure> {
        let internal = |why: String| Failure::new(FailureClass::Internal, why);
        if challenge.kind != kind {
            return Err(internal(format!(
                "the {} challenge for {} was given to the solver of {}, which is a defect",
                challenge.kind.as_str(),
                challenge.domain,
                kind.as_str(),
            )));
        }
        let stored = Stored {
            challenge: challenge.clone(),
            expires: self.clock.now().saturating_add(LIFE),
        };
        self.challenges.add(&stored)?;
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
            // The CA may come to others, which have to hear of it first.
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
        if !self.challenges.remove(challenge) {
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

/// Deletes what is stored of a challenge, where another instance has not put its own there.
fn delete(storage: &dyn Storage, key: &Key, challenge: &Challenge) -> Result<(), StorageError> {
    match storage.load(key)? {
        Some(value)
            if Stored::from_json(key, &value)
                .is_some_and(|stored| stored.challenge != *challenge) =>
        {
            Ok(())
        }
        Some(_) => storage.delete(key),
        None => Ok(()),
    }
}

/// Does something with the storage on a thread that may block; the error as text.
async fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done.map_err(|error| error.to_string()),
        Ok(Err(broken)) => Err(format!("it broke off: {broken}")),
        Err(_) => Err(format!(
            "the storage has not answered for {} s",
            PATIENCE.as_secs()
        )),
    }
}
