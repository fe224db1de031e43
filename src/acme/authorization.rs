//! How an order's names are authorized (RFC 8555, sections 7.5 and 8): challenges are presented,
//! the CA is asked to validate, and when it has, they are cleaned up, whatever the result.
//!
//! If the CA may still validate after nobody waits for it, because it is unreachable or this
//! process stops, the challenges stay, as after a crash: the next attempt completes the order. They
//! expire by themselves.

mod challenges;

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use instant_acme::{AuthorizationStatus, ChallengeStatus, Error, Order, OrderStatus};

use self::challenges::{
    OfferedChallenge, PendingAuthorization, PresentedChallenges, acme_kind, kind, list,
};
use super::error::{self, Step};
use super::order_ctx::{FailedChallenge, OrderCtx, OrderError, TriedChallenges, can_resume};
use super::problem::Problem;
use super::retry::{RetryPauses, pause_before_retry, retry_transient};
use crate::challenge::{Challenge, ChallengeType, DnsContext};
use crate::host::Identifier;
use crate::schedule::{Failure, FailureClass};

/// How many challenges of an order are presented at once.
const AT_ONCE: usize = 16;

/// How long a CA may take to validate, and then to issue, before the order is left for the next
/// attempt.
pub(super) const PATIENCE: Duration = Duration::from_secs(240);

/// How many times in a row a CA may fail to report an order's status before that is a failure.
pub(super) const FAULTS: u32 = 3;

/// Brings a pending order to another state.
pub(super) async fn authorize_names(
    ctx: &OrderCtx<'_>,
    order: &mut Order,
    tried: &TriedChallenges,
) -> Result<(), OrderError> {
    fetch_order(ctx, order).await?;
    let presented = PresentedChallenges::default();
    let result = match answer_challenges(ctx, order, tried, &presented).await {
        Ok(()) => poll_order(ctx, order, OrderStatus::Pending).await,
        Err(stop) => Err(stop),
    };
    if matches!(&result, Err(stop @ OrderError::Failed(_)) if can_resume(stop)) {
        presented.leave_requested();
    }
    presented.clean_up().await;
    result
}

/// Waits for the certificate of a finalized order.
pub(super) async fn await_issue(ctx: &OrderCtx<'_>, order: &mut Order) -> Result<(), OrderError> {
    let status = order.state().status;
    poll_order(ctx, order, status).await
}

/// Responds to one challenge of each pending authorization: all are presented first, then the CA is
/// asked to validate each. DNS records take time, and this way they take it together.
async fn answer_challenges(
    ctx: &OrderCtx<'_>,
    order: &mut Order,
    tried: &TriedChallenges,
    presented: &PresentedChallenges,
) -> Result<(), OrderError> {
    let mut wanted = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization =
            authorization.map_err(|error| ctx.to_error(Step::Authorization, &error))?;
        if authorization.status == AuthorizationStatus::Valid {
            let name = authorization.identifier();
            ctx.emit_progress(format!(
                "{name} needs no validation: it is already validated"
            ));
        }
        // Authorizations in other states no longer matter: the order has failed and is about to say
        // so.
        wanted.extend(PendingAuthorization::of(&authorization));
    }
    let mut proofs = Vec::with_capacity(wanted.len());
    for wanted in &wanted {
        proofs.push(present_challenges(ctx, wanted, tried, presented));
    }
    let proofs = stream::iter(proofs).buffer_unordered(AT_ONCE);
    let chosen: Vec<(&str, ChallengeType)> = proofs.try_collect().await?;
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let Some((_, kind)) = chosen.iter().find(|(chosen, _)| *chosen == name) else {
            continue;
        };
        ctx.emit_progress(format!(
            "{} validates {name} by {}",
            ctx.ca.host,
            kind.as_str()
        ));
        let Some(mut challenge) = authorization.challenge(acme_kind(*kind)) else {
            continue;
        };
        // From now on the CA may validate, whatever it responds. An earlier attempt may have asked
        // already, and then validation is under way.
        presented.record_requested(&name, *kind);
        if challenge.status != ChallengeStatus::Pending {
            continue;
        }
        match retry_transient!(ctx, Step::Challenge, challenge.set_ready().await) {
            Ok(()) => {}
            // A problem in a successful reply is the result of the validation, and is read from the
            // authorization; "malformed" is how CAs respond to a second request.
            Err(Error::Api(problem))
                if ctx.client.refusal().is_none()
                    || Problem::from(&problem).kind() == "malformed" => {}
            Err(error) => return Err(ctx.to_error(Step::Challenge, &error)),
        }
    }
    Ok(())
}

/// Presents the challenge of a name, of the first type that the CA offers and we can solve.
async fn present_challenges<'w>(
    ctx: &OrderCtx<'_>,
    wanted: &'w PendingAuthorization,
    tried: &TriedChallenges,
    presented: &PresentedChallenges,
) -> Result<(&'w str, ChallengeType), OrderError> {
    let domain: Identifier = wanted.domain.parse().map_err(|_| {
        let (host, name) = (&ctx.ca.host, &wanted.name);
        let message = format!("{host} asks to validate {name:?}, which is not a name");
        OrderError::Failed(Failure::new(FailureClass::Internal, message))
    })?;
    // A challenge that the CA is already validating cannot be exchanged.
    let under_way = wanted.offered.iter().find(|offer| !offer.is_pending);
    let mut failure = None;
    for solver in ctx.solvers.for_name(&wanted.name) {
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
        let thumbprint = ctx.account.key_thumbprint();
        let challenge = Challenge {
            kind,
            domain: domain.clone(),
            token: offer.token.clone(),
            key_authorization: format!("{}.{thumbprint}", offer.token),
            dns: kind.is_over_dns().then(|| dns_context(ctx, wanted, offer)),
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
        let solvers = ctx.solvers.for_name(&wanted.name);
        let ours: Vec<&str> = solvers.map(|solver| solver.kind().as_str()).collect();
        let message = format!(
            "{} validates {} only by {}, but this gateway is configured for {}; see the \
             issuer's 'challenges'",
            ctx.ca.host,
            wanted.name,
            wanted.list(),
            list(&ours),
        );
        Failure::new(FailureClass::Configuration, message)
    })))
}

/// What a DNS challenge needs besides its token.
fn dns_context(
    ctx: &OrderCtx<'_>,
    wanted: &PendingAuthorization,
    offer: &OfferedChallenge,
) -> DnsContext {
    let lasting = ctx.client.lasting(&offer.url).unwrap_or_default();
    let account = lasting
        .account
        .unwrap_or_else(|| ctx.account.id().to_owned());
    DnsContext {
        account,
        is_wildcard: wanted.is_wildcard,
        issuers: lasting.issuers,
    }
}

/// Waits until the order leaves this state.
async fn poll_order(
    ctx: &OrderCtx<'_>,
    order: &mut Order,
    state: OrderStatus,
) -> Result<(), OrderError> {
    let start = Instant::now();
    let mut pauses = RetryPauses::default();
    let mut faults = 0;
    let mut turn = 0_u32;
    loop {
        pause_before_retry(ctx, &mut pauses).await;
        turn = turn.wrapping_add(1);
        let status = retry_transient!(
            ctx,
            Step::Poll,
            order.refresh().await.map(|state| state.status)
        );
        match status {
            Ok(status) if status != state => return Ok(()),
            Ok(OrderStatus::Pending) if turn.is_multiple_of(4) => {
                // Some CAs keep an order pending although one of its names has failed.
                let unproved = failed_challenges(ctx, order).await?;
                if !unproved.is_empty() {
                    return Err(OrderError::ChallengesFailed(unproved));
                }
                faults = 0;
            }
            Ok(_) => faults = 0,
            Err(error) => {
                faults += 1;
                match ctx.to_error(Step::Poll, &error) {
                    OrderError::Failed(failure)
                        if failure.class == FailureClass::Network && faults <= FAULTS => {}
                    stop => return Err(stop),
                }
            }
        }
        if start.elapsed() > PATIENCE {
            let message = format!(
                "{} did not finish the order within {} s; the next attempt will continue it",
                ctx.ca.host,
                PATIENCE.as_secs()
            );
            let failure = Failure::new(FailureClass::Network, message);
            return Err(OrderError::Failed(failure));
        }
    }
}

/// Why an order has become invalid.
pub(super) async fn diagnose_order(ctx: &OrderCtx<'_>, order: &mut Order) -> OrderError {
    match failed_challenges(ctx, order).await {
        Ok(unproved) if !unproved.is_empty() => return OrderError::ChallengesFailed(unproved),
        Ok(_) => {}
        Err(stop) => return stop,
    }
    let (host, names) = (&ctx.ca.host, &ctx.request.names);
    OrderError::Failed(match &order.state().error {
        Some(problem) => {
            let (step, problem) = (Step::Finalize, problem.into());
            let failure = error::problem_in(host, step, &problem, names, ctx.now());
            ctx.mark_rehearsed(problem.kind(), failure)
        }
        None => {
            let message = format!("{host} ended the order without saying why");
            Failure::new(FailureClass::Network, message)
        }
    })
}

/// The challenges that failed.
async fn failed_challenges(
    ctx: &OrderCtx<'_>,
    order: &mut Order,
) -> Result<Vec<FailedChallenge>, OrderError> {
    fetch_order(ctx, order).await?;
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

/// Fetches the authorizations that have not been fetched yet.
async fn fetch_order(ctx: &OrderCtx<'_>, order: &mut Order) -> Result<(), OrderError> {
    let loaded = retry_transient!(ctx, Step::Authorization, refresh_state(order).await);
    loaded.map_err(|error| ctx.to_error(Step::Authorization, &error))
}

pub(super) async fn refresh_state(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}
