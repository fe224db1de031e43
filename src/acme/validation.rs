//! How an order's names are validated (RFC 8555, sections 7.5 and 8): proofs are made visible, the
//! CA is told to look, and when it has looked they are taken back, whatever it found.
//!
//! Where it may look still though nobody waits for it, since it cannot be reached or this stops,
//! they stay, as after a crash: the next attempt finishes the order. They expire by themselves.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use instant_acme::{AuthorizationStatus, ChallengeStatus, Error, Order, OrderStatus};

use super::classify::{self, Step};
use super::job::{Job, Stop, Tried, Unproved, may_go_on};
use super::lag::{Pauses, persistently};
use super::problem::Problem;
use super::proofs::{Offered, Presented, Wanted, acme_kind, kind, list};
use crate::challenge::{Challenge, ChallengeType, OverDns};
use crate::host::Identifier;
use crate::schedule::{Failure, FailureClass};

/// How many proofs of an order are made visible at a time.
const AT_ONCE: usize = 16;

/// How long a CA may take to validate, and then to issue, before the order is left for later.
pub(super) const PATIENCE: Duration = Duration::from_secs(240);

/// How often in a row a CA may not say how an order stands before that is a failure.
pub(super) const FAULTS: u32 = 3;

impl Job<'_> {
    /// Brings a pending order out of that state.
    pub(super) async fn prove(&self, order: &mut Order, tried: &Tried) -> Result<(), Stop> {
        self.load(order).await?;
        let presented = Presented::default();
        let result = match self.answer(order, tried, &presented).await {
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

    /// Answers a challenge of each pending authorization: all proofs are made visible, then the CA
    /// is told of each. A proof in the DNS takes its time, and they take it together.
    async fn answer(
        &self,
        order: &mut Order,
        tried: &Tried,
        presented: &Presented,
    ) -> Result<(), Stop> {
        let mut wanted = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization =
                authorization.map_err(|error| self.stop(Step::Authorization, &error))?;
            if authorization.status == AuthorizationStatus::Valid {
                let name = authorization.identifier();
                self.progress(format!("{name} needs no validation: it has been validated"));
            }
            // Others are no longer of any use: the order will not become anything, and its state
            // is about to say so.
            wanted.extend(Wanted::of(&authorization));
        }
        let mut proofs = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            proofs.push(self.present(wanted, tried, presented));
        }
        let proofs = stream::iter(proofs).buffer_unordered(AT_ONCE);
        let chosen: Vec<(&str, ChallengeType)> = proofs.try_collect().await?;
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Some((_, kind)) = chosen.iter().find(|(chosen, _)| *chosen == name) else {
                continue;
            };
            self.progress(format!(
                "{} validates {name} by {}",
                self.ca.host,
                kind.as_str()
            ));
            let Some(mut challenge) = authorization.challenge(acme_kind(*kind)) else {
                continue;
            };
            // From now on the CA may look, whether it says so or not. A former attempt may have
            // said that it can, and it is looking already.
            presented.note_asked(&name, *kind);
            if challenge.status != ChallengeStatus::Pending {
                continue;
            }
            match persistently!(self, Step::Challenge, challenge.set_ready().await) {
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
    async fn present<'w>(
        &self,
        wanted: &'w Wanted,
        tried: &Tried,
        presented: &Presented,
    ) -> Result<(&'w str, ChallengeType), Stop> {
        let domain: Identifier = wanted.domain.parse().map_err(|_| {
            let (host, name) = (&self.ca.host, &wanted.name);
            let message = format!("{host} asks for the proof of {name:?}, no name");
            Stop::Failed(Failure::new(FailureClass::Internal, message))
        })?;
        // What the CA is looking at already cannot be exchanged.
        let under_way = wanted.offered.iter().find(|offer| !offer.is_pending);
        let mut failure = None;
        for solver in self.ways.for_name(&wanted.name) {
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
                dns: kind.is_over_dns().then(|| self.over_dns(wanted, offer)),
            };
            match presented.present(&wanted.name, solver, challenge).await {
                Ok(()) => return Ok((&wanted.name, kind)),
                Err(error) => failure = Some(error),
            }
        }
        Err(Stop::Failed(failure.unwrap_or_else(|| {
            let ways = self.ways.for_name(&wanted.name);
            let ours: Vec<&str> = ways.map(|solver| solver.kind().as_str()).collect();
            let message = format!(
                "{} validates {} by {} alone, and this gateway is configured for {}; see \
                 'challenges' of the issuer",
                self.ca.host,
                wanted.name,
                wanted.list(),
                list(&ours),
            );
            Failure::new(FailureClass::Configuration, message)
        })))
    }

    /// What a proof in the DNS takes beside.
    fn over_dns(&self, wanted: &Wanted, offer: &Offered) -> OverDns {
        let lasting = self.session.lasting(&offer.url).unwrap_or_default();
        let account = lasting
            .account
            .unwrap_or_else(|| self.account.id().to_owned());
        OverDns {
            account,
            is_wildcard: wanted.is_wildcard,
            issuers: lasting.issuers,
        }
    }

    /// Waits until the order is no longer in this state.
    async fn poll(&self, order: &mut Order, state: OrderStatus) -> Result<(), Stop> {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        let mut faults = 0;
        let mut turn = 0_u32;
        loop {
            self.pause(&mut pauses).await;
            turn = turn.wrapping_add(1);
            let status = persistently!(
                self,
                Step::Poll,
                order.refresh().await.map(|state| state.status)
            );
            match status {
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
            Some(problem) => {
                let (step, problem) = (Step::Finalize, problem.into());
                let failure = classify::problem_in(host, step, &problem, names, self.now());
                self.as_rehearsed(problem.kind(), failure)
            }
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
        if patiently!(fetch(order).await).is_ok() {
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
        let loaded = persistently!(self, Step::Authorization, fetch(order).await);
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
