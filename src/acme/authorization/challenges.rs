//! The challenges of one order: what a CA offers for each of its names, and what is presented.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use instant_acme::{AuthorizationHandle, AuthorizationStatus, ChallengeStatus};

use crate::challenge::{Challenge, ChallengeSolver, ChallengeType};
use crate::schedule::Failure;

/// A name that a CA is still to authorize.
pub(in crate::acme) struct PendingAuthorization {
    /// As it stands in the certificate.
    pub(in crate::acme) name: String,
    /// The name itself; of a wildcard what stands below `*`.
    pub(in crate::acme) domain: String,
    pub(in crate::acme) is_wildcard: bool,
    /// By what.
    pub(in crate::acme) offered: Vec<OfferedChallenge>,
}

impl PendingAuthorization {
    /// What an authorization asks for; `None` where nothing is to be done for it.
    pub(in crate::acme) fn of(authorization: &AuthorizationHandle<'_>) -> Option<Self> {
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
    pub(in crate::acme) fn list(&self) -> String {
        let types: Vec<String> = self.offered.iter().map(OfferedChallenge::text).collect();
        list(&types)
    }
}

/// A challenge of a CA's.
pub(in crate::acme) struct OfferedChallenge {
    pub(in crate::acme) kind: instant_acme::ChallengeType,
    pub(in crate::acme) url: String,
    pub(in crate::acme) token: String,
    pub(in crate::acme) is_pending: bool,
}

impl OfferedChallenge {
    fn text(&self) -> String {
        match &self.kind {
            instant_acme::ChallengeType::Unknown(kind) => kind.clone(),
            known => kind(known).map_or_else(|| format!("{known:?}"), |kind| kind.as_str().into()),
        }
    }
}

/// Proofs that are visible. When this is dropped, which is in the middle of things, those that the
/// CA has been told of stay, and others are cleaned up in the background.
#[derive(Default)]
pub(in crate::acme) struct PresentedChallenges(Mutex<Vec<PresentedChallenge>>);

#[derive(Clone)]
struct PresentedChallenge {
    /// Of what.
    name: String,
    solver: Arc<dyn ChallengeSolver>,
    challenge: Challenge,
    /// Whether the CA has been told to validate it.
    is_asked_for: bool,
}

impl PresentedChallenges {
    pub(in crate::acme) async fn present_challenge(
        &self,
        name: &str,
        solver: &Arc<dyn ChallengeSolver>,
        challenge: Challenge,
    ) -> Result<(), Failure> {
        // Recorded first: it may be cancelled half way, and half of a challenge is to be cleaned up
        // too.
        self.proofs().push(PresentedChallenge {
            name: name.to_owned(),
            solver: Arc::clone(solver),
            challenge: challenge.clone(),
            is_asked_for: false,
        });
        solver.present(&challenge).await
    }

    /// The CA is about to be told of the challenge of this type for `name`.
    pub(in crate::acme) fn record_requested(&self, name: &str, kind: ChallengeType) {
        let mut proofs = self.proofs();
        let mut of_it = proofs.iter_mut().rev();
        let proof = of_it.find(|proof| proof.name == name && proof.challenge.kind == kind);
        if let Some(proof) = proof {
            proof.is_asked_for = true;
        }
    }

    /// Leaves what the CA may still validate.
    pub(in crate::acme) fn leave_requested(&self) {
        self.proofs().retain(|proof| {
            if proof.is_asked_for {
                proof.solver.abandon(&proof.challenge);
            }
            !proof.is_asked_for
        });
    }

    /// Takes all back.
    pub(in crate::acme) async fn clean_up(self) {
        let left = self.proofs().clone();
        clean_up_all(left).await;
        self.proofs().clear();
    }

    /// No critical section leaves a challenge half recorded.
    fn proofs(&self) -> MutexGuard<'_, Vec<PresentedChallenge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PresentedChallenges {
    fn drop(&mut self) {
        self.leave_requested();
        let left = std::mem::take(&mut *self.proofs());
        if !left.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Nothing that does this again when it is dropped: a runtime that is closing drops it
            // at once, here and now.
            runtime.spawn(clean_up_all(left));
        }
    }
}

/// Cleans up challenges at once: each may have to wait for a server of its own.
async fn clean_up_all(proofs: Vec<PresentedChallenge>) {
    let mut all = Vec::with_capacity(proofs.len());
    for proof in &proofs {
        all.push(proof.solver.clean_up(&proof.challenge));
    }
    join_all(all).await;
}

pub(in crate::acme) fn acme_kind(kind: ChallengeType) -> instant_acme::ChallengeType {
    match kind {
        ChallengeType::Http01 => instant_acme::ChallengeType::Http01,
        ChallengeType::TlsAlpn01 => instant_acme::ChallengeType::TlsAlpn01,
        ChallengeType::Dns01 => instant_acme::ChallengeType::Dns01,
        ChallengeType::DnsAccount01 | ChallengeType::DnsPersist01 => {
            instant_acme::ChallengeType::Unknown(kind.as_str().to_owned())
        }
    }
}

pub(in crate::acme) fn kind(kind: &instant_acme::ChallengeType) -> Option<ChallengeType> {
    let mut ours = ChallengeType::ALL.into_iter();
    ours.find(|ours| acme_kind(*ours) == *kind)
}

pub(in crate::acme) fn list(words: &[impl AsRef<str>]) -> String {
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

    /// Never done with a clean-up.
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
