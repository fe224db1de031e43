//! One certificate from one CA: an order left by an earlier attempt, or a new one, up to the chain;
//! and another order if a challenge failed and another type is available.

mod chain;
mod download;
mod new_order;
mod pending;
mod record;

use instant_acme::{Order, OrderStatus};
use openssl::pkey::{PKey, Private};
use zeroize::Zeroizing;

use self::chain::choose_chain;
use self::download::download_chain;
use self::new_order::{place_order, replaced, select_profile, warn_lifetime};
use self::pending::{abandon_order, delete_order, is_new_certificate, resume_order, store_order};
use super::authorization::{authorize_names, await_issue, diagnose_order};
use super::error::{self, Step};
use super::key;
use super::order_ctx::{
    FailedChallenge, OrderCtx, OrderError, TriedChallenges, can_resume, internal_error,
};
use super::preflight::caa::check_caa;
use super::retry::{is_unreadable, retry_transient};
use crate::challenge::ChallengeType;
use crate::issuer::Issued;
use crate::schedule::{FAILED_VALIDATIONS, Failure, FailureClass, Intent, Wait};

/// The maximum number of orders of one attempt.
const ORDERS: usize = 4;

/// Obtains the certificate.
pub(super) async fn obtain_certificate(ctx: &OrderCtx<'_>) -> Result<Issued, OrderError> {
    let mut spent = 0;
    let brought = complete_order(ctx, &mut spent).await;
    brought.map_err(|stop| match stop {
        OrderError::Failed(failure) if !ctx.is_rehearsal() => OrderError::Failed(Failure {
            failed_validations: spent,
            ..failure
        }),
        stop => stop,
    })
}

/// See [`obtain_certificate`]. `spent` counts the failed validations of any single name.
async fn complete_order(ctx: &OrderCtx<'_>, spent: &mut u32) -> Result<Issued, OrderError> {
    let mut left = resume_order(ctx, spent).await?;
    let mut tried = match left {
        Some(_) => TriedChallenges::new(),
        None => check_caa(ctx).await?,
    };
    for _ in 0..ORDERS {
        let (mut order, key, created) = match left.take() {
            Some((order, key, created)) => (order, key, Some(created)),
            None => {
                let (order, key) = begin_order(ctx).await?;
                (order, key, None)
            }
        };
        let mut is_finalized = false;
        let finished = finish_order(ctx, &mut order, &key, &tried, &mut is_finalized).await;
        let unproved = match finished {
            Ok(chain) => {
                if let Some(created) = created
                    && !is_new_certificate(ctx, &chain, created).await
                {
                    delete_order(ctx).await;
                    continue;
                }
                let key = key
                    .private_key_to_pem_pkcs8()
                    .map_err(|error| internal_error(&error))?;
                return Ok(Issued {
                    chain: chain.into_bytes(),
                    key: Zeroizing::new(key),
                });
            }
            Err(OrderError::ChallengesFailed(unproved)) => unproved,
            Err(stop) => {
                // A certificate that the CA is about to issue is downloaded by the next attempt.
                let is_over = order.state().status == OrderStatus::Invalid;
                let is_coming = is_finalized && !is_over;
                if !is_coming && !can_resume(&stop) {
                    abandon_order(ctx, &mut order).await;
                }
                return Err(stop);
            }
        };
        abandon_order(ctx, &mut order).await;
        *spent += 1;
        try_other_challenges(ctx, unproved, &mut tried, *spent)?;
    }
    let message = format!(
        "{} did not validate all names within {ORDERS} orders, by any type of challenge",
        ctx.ca.host
    );
    Err(OrderError::Failed(Failure::new(
        FailureClass::Validation,
        message,
    )))
}

/// Creates an order, and stores it with the key of its certificate.
async fn begin_order(ctx: &OrderCtx<'_>) -> Result<(Order, PKey<Private>), OrderError> {
    let (config, shared) = (&ctx.issuer.config, &ctx.issuer.shared);
    let profile = select_profile(ctx)?;
    let waiting = |wait: &Wait| {
        ctx.emit_progress(format!("an order at {}: {wait}", ctx.ca.host));
    };
    let names = &ctx.request.names;
    // Before the turn: generating an RSA key takes so long that the order would come too late.
    let key = new_or_reused_key(ctx).await?;
    let intent = Intent {
        names,
        replaces: replaced(ctx).is_some(),
    };
    let turn = shared.limits.wait_turn(ctx.ca, config, &intent, waiting);
    turn.await.map_err(OrderError::Held)?;
    let made = place_order(ctx, profile).await?;
    let order = store_order(ctx, made, &key).await?;
    ctx.emit_progress(format!("order created at {}", ctx.ca.host));
    Ok((order, key))
}

async fn new_or_reused_key(ctx: &OrderCtx<'_>) -> Result<PKey<Private>, OrderError> {
    let config = &ctx.issuer.config;
    let previous = ctx.request.previous_key.as_deref();
    if config.reuse_key
        && let Some(key) = previous.and_then(|pem| key::reuse(pem, config.key_type))
    {
        return Ok(key);
    }
    let kind = config.key_type;
    match tokio::task::spawn_blocking(move || key::generate(kind)).await {
        Ok(key) => key.map_err(|error| internal_error(&error)),
        Err(error) => Err(internal_error(&error)),
    }
}

/// Completes an order, whatever its state.
async fn finish_order(
    ctx: &OrderCtx<'_>,
    order: &mut Order,
    key: &PKey<Private>,
    tried: &TriedChallenges,
    is_finalized: &mut bool,
) -> Result<String, OrderError> {
    loop {
        match order.state().status {
            OrderStatus::Pending => authorize_names(ctx, order, tried).await?,
            OrderStatus::Ready if !*is_finalized => {
                ctx.emit_progress(format!(
                    "validated; asking {} for the certificate",
                    ctx.ca.host
                ));
                finalize_order(ctx, order, key).await?;
                *is_finalized = true;
            }
            OrderStatus::Ready | OrderStatus::Processing => await_issue(ctx, order).await?,
            OrderStatus::Valid => break,
            OrderStatus::Invalid => return Err(diagnose_order(ctx, order).await),
        }
    }
    *is_finalized = true;
    let chain = download_chain(ctx, order).await?;
    let chain = choose_chain(ctx, chain).await;
    ctx.emit_progress(format!("downloaded from {}", ctx.ca.host));
    warn_lifetime(ctx, &chain);
    Ok(chain)
}

async fn finalize_order(
    ctx: &OrderCtx<'_>,
    order: &mut Order,
    key: &PKey<Private>,
) -> Result<(), OrderError> {
    let terms = &ctx.issuer.config.order;
    let request = key::request(key, &ctx.request.names, terms);
    let request = request.map_err(|error| internal_error(&error))?;
    let finalized = retry_transient!(ctx, Step::Finalize, order.finalize_csr(&request).await);
    match finalized {
        // The CA accepted the request, and polling shows the state of the order.
        Err(error) if is_unreadable(&error) => Ok(()),
        finalized => finalized.map_err(|error| ctx.to_error(Step::Finalize, &error)),
    }
}

/// Records the types of challenge that have failed.
///
/// # Errors
/// If no other type is left for one of the names, or the CA allows no more failures for now.
fn try_other_challenges(
    ctx: &OrderCtx<'_>,
    unproved: Vec<FailedChallenge>,
    tried: &mut TriedChallenges,
    spent: u32,
) -> Result<(), OrderError> {
    let before = ctx.request.failed_validations;
    let is_borne = ctx.is_rehearsal() || before.saturating_add(spent) < FAILED_VALIDATIONS;
    for unproved in &unproved {
        tried.extend(unproved.kind.map(|kind| (unproved.name.clone(), kind)));
    }
    let others = unproved.len().saturating_sub(1);
    for FailedChallenge {
        name,
        kind,
        problem,
    } in unproved
    {
        let kind_or_any = kind.unwrap_or(ChallengeType::Http01);
        let failure = error::validation_failure(&ctx.ca.host, &name, kind_or_any, &problem);
        let mut failure = ctx.mark_rehearsed(problem.kind(), failure);
        let solvers = ctx.solvers.for_name(&name);
        let next = solvers
            .map(|solver| solver.kind())
            .find(|kind| !tried.contains(&(name.clone(), *kind)));
        match next {
            Some(next) if is_borne && kind.is_some() && error::may_fall_back(&problem) => {
                let next = next.as_str();
                ctx.emit_progress(format!("{}; trying {next} instead", failure.message));
            }
            _ => {
                if others > 0 {
                    failure
                        .message
                        .push_str(&format!(" (and {others} more of its names)"));
                }
                return Err(OrderError::Failed(failure));
            }
        }
    }
    Ok(())
}
