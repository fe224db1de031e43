//! How an order's names are authorized (RFC 8555, sections 7.5 and 8): challenges are presented,
//! the CA is told to validate, and when it has they are cleaned up, whatever it found.
//!
//! Where it may look still though nobody waits for it, since it cannot be reached or this stops,
//! they stay, as after a crash: the next attempt finishes the order. They expire by themselves.

pub(super) mod challenges;
pub(super) mod solvers;

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use instant_acme::{AuthorizationStatus, ChallengeStatus, Error, Order, OrderStatus};

use super::error::{self, Step};
use super::order::{FailedChallenge, OrderError, OrderJob, TriedChallenges, can_resume};
use crate::acme::authorization::challenges::{
    OfferedChallenge, PendingAuthorization, PresentedChallenges, acme_kind, kind, list,
};
use crate::acme::error::problem::Problem;
use crate::acme::order::retry::{RetryPauses, retry_transient};
use crate::challenge::{Challenge, ChallengeType, DnsContext};
use crate::host::Identifier;
use crate::schedule::{Failure, FailureClass};

/// How many challenges of an order are presented at a time.
const AT_ONCE: usize = 16;

/// How long a CA may take to validate, and then to issue, before the order is left for later.
pub(super) const PATIENCE: Duration = Duration::from_secs(240);

/// How often in a row a CA may not say how an order stands before that is a failure.
pub(super) const FAULTS: u32 = 3;

impl OrderJob<'_> {
    /// Brings a pending order out of that state.
    pub(super) async fn authorize_names(
        &self,
        order: &mut Order,
        tried: &TriedChallenges,
    ) -> Result<(), OrderError> {
        self.fetch_order(order).await?;
        let presented = PresentedChallenges::default();
        let result = match self.answer_challenges(order, tried, &presented).await {
            Ok(()) => self.poll_order(order, OrderStatus::Pending).await,
            Err(stop) => Err(stop),
        };
        if matches!(&result, Err(stop @ OrderError::Failed(_)) if can_resume(stop)) {
            presented.leave_requested();
        }
        presented.clean_up().await;
        result
    }

    /// Waits for the certificate of an order that has been finalized.
    pub(super) async fn await_issue(&self, order: &mut Order) -> Result<(), OrderError> {
        let status = order.state().status;
        self.poll_order(order, status).await
    }

    /// Answers a challenge of each pending authorization: all are presented, then the CA is told of
    /// each. A record in the DNS takes its time, and they take it together.
    async fn answer_challenges(
        &self,
        order: &mut Order,
        tried: &TriedChallenges,
        presented: &PresentedChallenges,
    ) -> Result<(), OrderError> {
        let mut wanted = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization =
                authorization.map_err(|error| self.to_error(Step::Authorization, &error))?;
            if authorization.status == AuthorizationStatus::Valid {
                let name = authorization.identifier();
                self.emit_progress(format!(
                    "{name} needs no validation: it is already validated"
                ));
            }
            // Others are no longer of any use: the order will not become anything, and its state
            // is about to say so.
            wanted.extend(PendingAuthorization::of(&authorization));
        }
        let mut proofs = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            proofs.push(self.present_challenges(wanted, tried, presented));
        }
        let proofs = stream::iter(proofs).buffer_unordered(AT_ONCE);
        let chosen: Vec<(&str, ChallengeType)> = proofs.try_collect().await?;
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Some((_, kind)) = chosen.iter().find(|(chosen, _)| *chosen == name) else {
                continue;
            };
            self.emit_progress(format!(
                "{} validates {name} by {}",
                self.ca.host,
                kind.as_str()
            ));
            let Some(mut challenge) = authorization.challenge(acme_kind(*kind)) else {
                continue;
            };
            // From now on the CA may look, whether it says so or not. A former attempt may have
            // said that it can, and it is looking already.
            presented.record_requested(&name, *kind);
            if challenge.status != ChallengeStatus::Pending {
                continue;
            }
            match retry_transient!(self, Step::Challenge, challenge.set_ready().await) {
                Ok(()) => {}
                // A problem in a reply that is a success is what the CA found when it looked, and
                // is read off the authorization; "malformed" is what CAs say of a second answer.
                Err(Error::Api(problem))
                    if self.client.refusal().is_none()
                        || Problem::from(&problem).kind() == "malformed" => {}
                Err(error) => return Err(self.to_error(Step::Challenge, &error)),
            }
        }
        Ok(())
    }

    /// Presents the challenge of a name, by the first type that the CA offers and we can solve.
    async fn present_challenges<'w>(
        &self,
        wanted: &'w PendingAuthorization,
        tried: &TriedChallenges,
        presented: &PresentedChallenges,
    ) -> Result<(&'w str, ChallengeType), OrderError> {
        let domain: Identifier = wanted.domain.parse().map_err(|_| {
            let (host, name) = (&self.ca.host, &wanted.name);
            let message = format!("{host} asks to validate {name:?}, which is not a name");
            OrderError::Failed(Failure::new(FailureClass::Internal, message))
        })?;
        // What the CA is looking at already cannot be exchanged.
        let under_way = wanted.offered.iter().find(|offer| !offer.is_pending);
        let mut failure = None;
        for solver in self.solvers.for_name(&wanted.name) {
            let kind = solver.kind();
            let mut offers = wanted.offered.iter();
            let Some(offer) = offers.find(|offer| offer.kind == acme_kind(kind)) else {
                continue;
            };
            if tried.contains(&(wanted.name.clone(), kind))
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
                dns: kind.is_over_dns().then(|| self.dns_context(wanted, offer)),
            };
            match presented
                .present_challenge(&wanted.name, solver, challenge)
                .await
            {
                Ok(()) => return Ok((&wanted.name, kind)),
                Err(error) => failure = Some(error),
            }
        }
        Err(OrderError::Failed(failure.unwrap_or_else(|| {
            let solvers = self.solvers.for_name(&wanted.name);
            let ours: Vec<&str> = solvers.map(|solver| solver.kind().as_str()).collect();
            let message = format!(
                "{} validates {} only by {}, but this gateway is configured for {}; see the \
                 issuer's 'challenges'",
                self.ca.host,
                wanted.name,
                wanted.list(),
                list(&ours),
            );
            Failure::new(FailureClass::Configuration, message)
        })))
    }

    /// What a challenge in the DNS needs beside its token.
    fn dns_context(&self, wanted: &PendingAuthorization, offer: &OfferedChallenge) -> DnsContext {
        let lasting = self.client.lasting(&offer.url).unwrap_or_default();
        let account = lasting
            .account
            .unwrap_or_else(|| self.account.id().to_owned());
        DnsContext {
            account,
            is_wildcard: wanted.is_wildcard,
            issuers: lasting.issuers,
        }
    }

    /// Waits until the order is no longer in this state.
    async fn poll_order(&self, order: &mut Order, state: OrderStatus) -> Result<(), OrderError> {
        let start = Instant::now();
        let mut pauses = RetryPauses::default();
        let mut faults = 0;
        let mut turn = 0_u32;
        loop {
            self.pause_before_retry(&mut pauses).await;
            turn = turn.wrapping_add(1);
            let status = retry_transient!(
                self,
                Step::Poll,
                order.refresh().await.map(|state| state.status)
            );
            match status {
                Ok(status) if status != state => return Ok(()),
                Ok(OrderStatus::Pending) if turn.is_multiple_of(4) => {
                    // Some CAs let an order wait though one of its names has failed.
                    let unproved = self.failed_challenges(order).await?;
                    if !unproved.is_empty() {
                        return Err(OrderError::ChallengesFailed(unproved));
                    }
                    faults = 0;
                }
                Ok(_) => faults = 0,
                Err(error) => {
                    faults += 1;
                    match self.to_error(Step::Poll, &error) {
                        OrderError::Failed(failure)
                            if failure.class == FailureClass::Network && faults <= FAULTS => {}
                        stop => return Err(stop),
                    }
                }
            }
            if start.elapsed() > PATIENCE {
                let message = format!(
                    "{} did not finish the order within {} s; the next attempt will continue it",
                    self.ca.host,
                    PATIENCE.as_secs()
                );
                let failure = Failure::new(FailureClass::Network, message);
                return Err(OrderError::Failed(failure));
            }
        }
    }

    /// Why an order has become invalid.
    pub(super) async fn diagnose_order(&self, order: &mut Order) -> OrderError {
        match self.failed_challenges(order).await {
            Ok(unproved) if !unproved.is_empty() => return OrderError::ChallengesFailed(unproved),
            Ok(_) => {}
            Err(stop) => return stop,
        }
        let (host, names) = (&self.ca.host, &self.request.names);
        OrderError::Failed(match &order.state().error {
            Some(problem) => {
                let (step, problem) = (Step::Finalize, problem.into());
                let failure = error::problem_in(host, step, &problem, names, self.now());
                self.mark_rehearsed(problem.kind(), failure)
            }
            None => {
                let message = format!("{host} ended the order without saying why");
                Failure::new(FailureClass::Network, message)
            }
        })
    }

    /// The challenges that the CA did not validate.
    async fn failed_challenges(
        &self,
        order: &mut Order,
    ) -> Result<Vec<FailedChallenge>, OrderError> {
        self.fetch_order(order).await?;
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
            unproved.push(FailedChallenge {
                name: authorization.identifier().to_string(),
                kind,
                problem,
            });
        }
        Ok(unproved)
    }

    /// Gives up an order: what is pending of it is deactivated, as well as it can be, since CAs
    /// allow so many pending authorizations and no more, and it is forgotten.
    pub(super) async fn abandon_order(&self, order: &mut Order) {
        if retry_bad_nonce!(refresh_state(order).await).is_ok() {
            let mut authorizations = order.authorizations();
            while let Some(Ok(mut authorization)) = authorizations.next().await {
                if authorization.status != AuthorizationStatus::Pending {
                    continue;
                }
                if let Err(error) = retry_bad_nonce!(authorization.deactivate().await.map(|_| ())) {
                    let ca = &self.ca.host;
                    tracing::warn!(ca, %error, "an authorization stays pending until it expires");
                }
            }
        }
        self.delete_order().await;
    }

    /// Fetches the authorizations that have not been.
    async fn fetch_order(&self, order: &mut Order) -> Result<(), OrderError> {
        let loaded = retry_transient!(self, Step::Authorization, refresh_state(order).await);
        loaded.map_err(|error| self.to_error(Step::Authorization, &error))
    }
}

async fn refresh_state(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}
