//! How an order's names are validated (RFC 8555, sections 7.5 and 8): proofs are made visible, the
//! CA is told to look, and when it has looked they are taken back, whatever it found.
//!
//! Where it may look still though nobody waits for it, since it cannot be reached or this stops,
//! they stay, as after a crash: the next attempt finishes the order. They expire by themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use instant_acme::{AuthorizationStatus, ChallengeStatus, Error, Order, OrderStatus};

use super::classify::Step;
use super::job::{Job, Stop, Tried, Unproved, may_go_on};
use super::problem::Problem;
use crate::challenge::{Challenge, ChallengeSolver, ChallengeType};
use crate::host::Identifier;
use crate::schedule::{Failure, FailureClass};

/// How long a CA may take to validate, and then to issue, before the order is left for later.
const PATIENCE: Duration = Duration::from_secs(240);

/// How soon it is asked at first how it stands, and at the latest.
const FIRST_PAUSE: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long is waited at most because a CA says so.
const LONGEST_WAIT: i64 = 60;

/// How often in a row a CA may not say how an order stands before that is a failure.
const FAULTS: u32 = 3;

impl Job<'_> {
    /// Brings a pending order out of that state.
    pub(super) async fn prove(&self, order: &mut Order, tried: &Tried) -> Result<(), Stop> {
        self.load(order).await?;
        let mut presented = Presented::default();
        let result = match self.answer(order, tried, &mut presented).await {
            Ok(()) => self.poll(order, OrderStatus::Pending).await,
            Err(stop) => Err(stop),
        };
        if matches!(&result, Err(stop @ Stop::Failed(_)) if may_go_on(stop)) {
            presented.leave_asked_for();
        }
        presented.clean_up().await;
        result
    }

    /// Waits for the certificate of an order that has been finalized.
    pub(super) async fn await_issue(&self, order: &mut Order) -> Result<(), Stop> {
        let status = order.state().status;
        self.poll(order, status).await
    }

    /// Answers a challenge of each pending authorization.
    async fn answer(
        &self,
        order: &mut Order,
        tried: &Tried,
        presented: &mut Presented,
    ) -> Result<(), Stop> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization =
                authorization.map_err(|error| self.stop(Step::Authorization, &error))?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => {
                    self.progress(format!("{name} needs no validation: it has been validated"));
                    continue;
                }
                // The order will not become anything, and its state is about to say so.
                _ => continue,
            }
            let offered: Vec<Offered> = authorization
                .challenges
                .iter()
                .map(|challenge| Offered {
                    kind: challenge.r#type.clone(),
                    token: challenge.token.clone(),
                    is_pending: challenge.status == ChallengeStatus::Pending,
                })
                .collect();
            let chosen = self.present(&name, &offered, tried, presented).await?;
            self.progress(format!(
                "{} validates {name} by {}",
                self.ca.host,
                chosen.as_str()
            ));
            let Some(mut challenge) = authorization.challenge(acme_kind(chosen)) else {
                continue;
            };
            // From now on the CA may look, whether it says so or not. A former attempt may have
            // said that it can, and it is looking already.
            presented.note_asked();
            if challenge.status != ChallengeStatus::Pending {
                continue;
            }
            match patiently!(challenge.set_ready().await) {
                Ok(()) => {}
                // A problem in a reply that is a success is what the CA found when it looked, and
                // is read off the authorization; "malformed" is what CAs say of a second answer.
                Err(Error::Api(problem))
                    if self.session.refusal().is_none()
                        || Problem::from(&problem).kind() == "malformed" => {}
                Err(error) => return Err(self.stop(Step::Challenge, &error)),
            }
        }
        Ok(())
    }

    /// Makes the proof of a name visible, by the first type that the CA offers and we can.
    async fn present(
        &self,
        name: &str,
        offered: &[Offered],
        tried: &Tried,
        presented: &mut Presented,
    ) -> Result<ChallengeType, Stop> {
        let domain: Identifier = name.parse().map_err(|_| {
            let message = format!("{} asks for the proof of {name:?}, no name", self.ca.host);
            Stop::Failed(Failure::new(FailureClass::Internal, message))
        })?;
        // What the CA is looking at already cannot be exchanged.
        let under_way = offered.iter().find(|offer| !offer.is_pending);
        let mut failure = None;
        for kind in self.issuer.kinds() {
            let offer = offered.iter().find(|offer| offer.kind == acme_kind(kind));
            let (Some(offer), Some(solver)) = (offer, self.issuer.solver(kind)) else {
                continue;
            };
            if tried.contains(&(name.to_owned(), kind))
                || under_way.is_some_and(|under_way| under_way.kind != offer.kind)
            {
                continue;
            }
            let thumbprint = self.account.key_thumbprint();
            let challenge = Challenge {
                kind,
                domain: domain.clone(),
                token: offer.token.clone(),
                key_authorization: format!("{}.{thumbprint}", offer.token),
            };
            match presented.present(solver, challenge).await {
                Ok(()) => return Ok(kind),
                Err(error) => failure = Some(error),
            }
        }
        Err(Stop::Failed(failure.unwrap_or_else(|| {
            let ours: Vec<&str> = self.issuer.kinds().map(ChallengeType::as_str).collect();
            let theirs: Vec<String> = offered.iter().map(Offered::text).collect();
            let message = format!(
                "{} validates {name} by {} alone, and this gateway is configured for {}; see \
                 'challenges' of the issuer",
                self.ca.host,
                list(&theirs),
                list(&ours),
            );
            Failure::new(FailureClass::Configuration, message)
        })))
    }

    /// Waits until the order is no longer in this state.
    async fn poll(&self, order: &mut Order, state: OrderStatus) -> Result<(), Stop> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut faults = 0;
        let mut turn = 0_u32;
        loop {
            let asked = self
                .session
                .retry_after()
                .map(|at| at.saturating_sub(self.now()));
            let asked = asked.filter(|seconds| *seconds > 0);
            let wait = asked.and_then(|seconds| u64::try_from(seconds.min(LONGEST_WAIT)).ok());
            tokio::time::sleep(wait.map_or(pause, Duration::from_secs)).await;
            pause = pause.mul_f32(1.5).min(LONGEST_PAUSE);
            turn = turn.wrapping_add(1);
            match patiently!(order.refresh().await.map(|state| state.status)) {
                Ok(status) if status != state => return Ok(()),
                Ok(OrderStatus::Pending) if turn.is_multiple_of(4) => {
                    // Some CAs let an order wait though one of its names has failed.
                    let unproved = self.unproved(order).await?;
                    if !unproved.is_empty() {
                        return Err(Stop::Unproved(unproved));
                    }
                    faults = 0;
                }
                Ok(_) => faults = 0,
                Err(error) => {
                    faults += 1;
                    match self.stop(Step::Poll, &error) {
                        Stop::Failed(failure)
                            if failure.class == FailureClass::Network && faults <= FAULTS => {}
                        stop => return Err(stop),
                    }
                }
            }
            if start.elapsed() > PATIENCE {
                let message = format!(
                    "{} did not come to an end with the order within {} s; the next attempt goes \
                     on with it",
                    self.ca.host,
                    PATIENCE.as_secs()
                );
                let failure = Failure::new(FailureClass::Network, message);
                return Err(Stop::Failed(failure));
            }
        }
    }

    /// Why an order has become invalid.
    pub(super) async fn diagnose(&self, order: &mut Order) -> Stop {
        match self.unproved(order).await {
            Ok(unproved) if !unproved.is_empty() => return Stop::Unproved(unproved),
            Ok(_) => {}
            Err(stop) => return stop,
        }
        let (host, names) = (&self.ca.host, &self.request.names);
        Stop::Failed(match &order.state().error {
            Some(problem) => super::classify::problem_in(
                host,
                Step::Finalize,
                &problem.into(),
                names,
                self.now(),
            ),
            None => {
                let message = format!("{host} ended the order and does not say why");
                Failure::new(FailureClass::Network, message)
            }
        })
    }

    /// The names of which the CA did not find the proof.
    async fn unproved(&self, order: &mut Order) -> Result<Vec<Unproved>, Stop> {
        self.load(order).await?;
        let mut unproved = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            if authorization.status != AuthorizationStatus::Invalid {
                continue;
            }
            let failed = authorization.challenges.iter().find_map(|challenge| {
                let problem = challenge.error.as_ref()?;
                Some((kind(&challenge.r#type), Problem::from(problem)))
            });
            let (kind, problem) = failed.unwrap_or_default();
            unproved.push(Unproved {
                name: authorization.identifier().to_string(),
                kind,
                problem,
            });
        }
        Ok(unproved)
    }

    /// Gives up an order: what is pending of it is deactivated, as well as it can be, since CAs
    /// allow so many pending authorizations and no more, and it is forgotten.
    pub(super) async fn abandon(&self, order: &mut Order) {
        if self.load(order).await.is_ok() {
            let mut authorizations = order.authorizations();
            while let Some(Ok(mut authorization)) = authorizations.next().await {
                if authorization.status != AuthorizationStatus::Pending {
                    continue;
                }
                if let Err(error) = patiently!(authorization.deactivate().await.map(|_| ())) {
                    let ca = &self.ca.host;
                    tracing::warn!(ca, %error, "an authorization stays pending until it expires");
                }
            }
        }
        self.forget().await;
    }

    /// Fetches the authorizations that have not been.
    async fn load(&self, order: &mut Order) -> Result<(), Stop> {
        let loaded = patiently!(fetch(order).await);
        loaded.map_err(|error| self.stop(Step::Authorization, &error))
    }
}

async fn fetch(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}

/// A challenge of a CA's.
struct Offered {
    kind: instant_acme::ChallengeType,
    token: String,
    is_pending: bool,
}

impl Offered {
    fn text(&self) -> String {
        match &self.kind {
            instant_acme::ChallengeType::Dns01 => "dns-01".to_owned(),
            instant_acme::ChallengeType::Unknown(kind) => kind.clone(),
            known => kind(known).map_or_else(|| format!("{known:?}"), |kind| kind.as_str().into()),
        }
    }
}

/// Proofs that are visible. When this is dropped, which is in the middle of things, those that the
/// CA has been told of stay, and others are taken back behind its back.
#[derive(Default)]
struct Presented(Vec<Proof>);

struct Proof {
    solver: Arc<dyn ChallengeSolver>,
    challenge: Challenge,
    /// Whether the CA has been told to look.
    is_asked_for: bool,
}

impl Presented {
    async fn present(
        &mut self,
        solver: &Arc<dyn ChallengeSolver>,
        challenge: Challenge,
    ) -> Result<(), Failure> {
        // Noted first: it may be cancelled half way, and half of a proof is to be taken back too.
        self.0.push(Proof {
            solver: Arc::clone(solver),
            challenge: challenge.clone(),
            is_asked_for: false,
        });
        solver.present(&challenge).await
    }

    /// The CA is about to be told of the latest.
    fn note_asked(&mut self) {
        if let Some(proof) = self.0.last_mut() {
            proof.is_asked_for = true;
        }
    }

    /// Lets go of what the CA may still look for.
    fn leave_asked_for(&mut self) {
        self.0.retain(|proof| {
            if proof.is_asked_for {
                proof.solver.leave(&proof.challenge);
            }
            !proof.is_asked_for
        });
    }

    async fn clean_up(mut self) {
        while let Some(proof) = self.0.last() {
            proof.solver.clean_up(&proof.challenge).await;
            self.0.pop();
        }
    }
}

impl Drop for Presented {
    fn drop(&mut self) {
        self.leave_asked_for();
        let left = std::mem::take(&mut self.0);
        if !left.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(Self(left).clean_up());
        }
    }
}

fn acme_kind(kind: ChallengeType) -> instant_acme::ChallengeType {
    match kind {
        ChallengeType::Http01 => instant_acme::ChallengeType::Http01,
        ChallengeType::TlsAlpn01 => instant_acme::ChallengeType::TlsAlpn01,
    }
}

fn kind(kind: &instant_acme::ChallengeType) -> Option<ChallengeType> {
    [ChallengeType::Http01, ChallengeType::TlsAlpn01]
        .into_iter()
        .find(|ours| acme_kind(*ours) == *kind)
}

fn list(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.is_empty() {
        true => "nothing".to_owned(),
        false => words.join(" or "),
    }
}
