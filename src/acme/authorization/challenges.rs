//! The challenges of one order: what a CA offers for each of its names, and what is presented.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::join_all;
use instant_acme::{AuthorizationHandle, AuthorizationStatus, ChallengeStatus};

use crate::challenge::{Challenge, ChallengeSolver, ChallengeType};
use crate::lock::MutexExt;
use crate::schedule::Failure;

/// A name that the CA has not authorized yet.
pub(super) struct PendingAuthorization {
    /// As in the certificate.
    pub(super) name: String,
    /// The name itself; for a wildcard the part after `*.`.
    pub(super) domain: String,
    pub(super) is_wildcard: bool,
    /// The challenges to choose from.
    pub(super) offered: Vec<OfferedChallenge>,
}

impl PendingAuthorization {
    /// The pending part of an authorization; `None` if there is nothing to do.
    pub(super) fn of(authorization: &AuthorizationHandle<'_>) -> Option<Self> {
        if authorization.status != AuthorizationStatus::Pending {
            return None;
        }
        let name = authorization.identifier().to_string();
        let domain = name.strip_prefix("*.").unwrap_or(&name).to_owned();
        let offered = authorization.challenges.iter();
        Some(Self {
            domain,
            is_wildcard: authorization.wildcard,
            offered: offered
                .map(|challenge| OfferedChallenge {
                    kind: challenge.r#type.clone(),
                    url: challenge.url.clone(),
                    token: challenge.token.clone(),
                    is_pending: challenge.status == ChallengeStatus::Pending,
                })
                .collect(),
            name,
        })
    }

    /// What the CA offers, for people.
    pub(super) fn list(&self) -> String {
        let types: Vec<String> = self.offered.iter().map(OfferedChallenge::text).collect();
        list(&types)
    }
}

/// A challenge that the CA offers.
pub(super) struct OfferedChallenge {
    pub(super) kind: instant_acme::ChallengeType,
    pub(super) url: String,
    pub(super) token: String,
    pub(super) is_pending: bool,
}

impl OfferedChallenge {
    fn text(&self) -> String {
        match &self.kind {
            instant_acme::ChallengeType::Unknown(kind) => kind.clone(),
            known => kind(known).map_or_else(|| format!("{known:?}"), |kind| kind.as_str().into()),
        }
    }
}

/// Challenges that are visible to the CA. If this is dropped midway, those that the CA was asked to
/// validate stay, and the others are cleaned up in the background.
#[derive(Default)]
pub(super) struct PresentedChallenges(Mutex<Vec<PresentedChallenge>>);

#[derive(Clone)]
struct PresentedChallenge {
    /// The name that it validates.
    name: String,
    solver: Arc<dyn ChallengeSolver>,
    challenge: Challenge,
    /// Whether the CA has been asked to validate it.
    is_asked_for: bool,
}

impl PresentedChallenges {
    pub(super) async fn present_challenge(
        &self,
        name: &str,
        solver: &Arc<dyn ChallengeSolver>,
        challenge: Challenge,
    ) -> Result<(), Failure> {
        // Recorded first: this may be cancelled midway, and half a challenge has to be cleaned up
        // too.
        self.proofs().push(PresentedChallenge {
            name: name.to_owned(),
            solver: Arc::clone(solver),
            challenge: challenge.clone(),
            is_asked_for: false,
        });
        solver.present(&challenge).await
    }

    /// Records that the CA is about to be asked to validate this challenge of `name`.
    pub(super) fn record_requested(&self, name: &str, kind: ChallengeType) {
        let mut proofs = self.proofs();
        let mut of_it = proofs.iter_mut().rev();
        let proof = of_it.find(|proof| proof.name == name && proof.challenge.kind == kind);
        if let Some(proof) = proof {
            proof.is_asked_for = true;
        }
    }

    /// Leaves the challenges that the CA may still validate.
    pub(super) fn leave_requested(&self) {
        self.proofs().retain(|proof| {
            if proof.is_asked_for {
                proof.solver.abandon(&proof.challenge);
            }
            !proof.is_asked_for
        });
    }

    /// Cleans up all challenges.
    pub(super) async fn clean_up(self) {
        let left = self.proofs().clone();
        clean_up_all(left).await;
        self.proofs().clear();
    }

    /// No critical section leaves a challenge half recorded.
    fn proofs(&self) -> MutexGuard<'_, Vec<PresentedChallenge>> {
        self.0.lock_unpoisoned()
    }
}

impl Drop for PresentedChallenges {
    fn drop(&mut self) {
        self.leave_requested();
        let left = std::mem::take(&mut *self.proofs());
        if !left.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // This must not be repeated when the task is dropped: a runtime that is shutting down
            // drops it immediately.
            runtime.spawn(clean_up_all(left));
        }
    }
}

/// Cleans up challenges concurrently: each may have to wait for its own server.
async fn clean_up_all(proofs: Vec<PresentedChallenge>) {
    let mut all = Vec::with_capacity(proofs.len());
    for proof in &proofs {
        all.push(proof.solver.clean_up(&proof.challenge));
    }
    join_all(all).await;
}

pub(super) fn acme_kind(kind: ChallengeType) -> instant_acme::ChallengeType {
    match kind {
        ChallengeType::Http01 => instant_acme::ChallengeType::Http01,
        ChallengeType::TlsAlpn01 => instant_acme::ChallengeType::TlsAlpn01,
        ChallengeType::Dns01 => instant_acme::ChallengeType::Dns01,
        ChallengeType::DnsAccount01 | ChallengeType::DnsPersist01 => {
            instant_acme::ChallengeType::Unknown(kind.as_str().to_owned())
        }
    }
}

pub(super) fn kind(kind: &instant_acme::ChallengeType) -> Option<ChallengeType> {
    let mut ours = ChallengeType::ALL.into_iter();
    ours.find(|ours| acme_kind(*ours) == *kind)
}

pub(super) fn list(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.is_empty() {
        true => "nothing".to_owned(),
        false => words.join(" or "),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::mpsc;
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;

    /// Never finishes a clean-up.
    struct Slow(mpsc::Sender<()>);

    #[async_trait]
    impl ChallengeSolver for Slow {
        fn kind(&self) -> ChallengeType {
            ChallengeType::Http01
        }

        async fn present(&self, _: &Challenge) -> Result<(), Failure> {
            let _ = self.0.send(());
            Ok(())
        }

        async fn clean_up(&self, _: &Challenge) {
            pending().await
        }
    }

    #[test]
    fn a_runtime_that_closes_ends_though_proofs_are_left() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (sender, shown) = mpsc::channel();
        runtime.spawn(async move {
            let solver: Arc<dyn ChallengeSolver> = Arc::new(Slow(sender));
            let presented = PresentedChallenges::default();
            let challenge = Challenge {
                kind: ChallengeType::Http01,
                domain: "a.example".parse().expect("a name"),
                token: "token".to_owned(),
                key_authorization: "token.thumbprint".to_owned(),
                dns: None,
            };
            let shown = presented
                .present_challenge("a.example", &solver, challenge)
                .await;
            shown.expect("it is shown");
            pending::<()>().await;
        });
        shown.recv().expect("the proof is shown");
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
}
