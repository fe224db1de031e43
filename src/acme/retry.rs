//! Retries within one call to a CA: for a rejected nonce, and for a server of the CA that does not
//! know yet what another has just created.
//!
//! The order and the account stay the same.

use std::time::{Duration, Instant};

use instant_acme::Error;

use crate::acme::error::class::is_missing;
use crate::acme::error::{self, Step};
use crate::acme::lenient::Unreadable;
use crate::acme::order_ctx::OrderCtx;

/// How long a resource that a CA has named may be unknown or unreadable.
const LAG: Duration = Duration::from_secs(10);

/// How long a new account may be unknown: no other is created before.
const ACCOUNT_LAG: Duration = Duration::from_secs(60);

/// How many nonces may be rejected, beyond the few times that instant-acme retries by itself.
const NONCES: u32 = 6;

/// The first and the longest pause before a CA is asked again.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(150);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause that a CA may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The retries of one call.
pub(super) struct Retries {
    nonces: u32,
    since: Instant,
    pub(super) pauses: RetryPauses,
}

/// The pauses between requests.
pub(super) struct RetryPauses(Duration);

impl Default for Retries {
    fn default() -> Self {
        Self {
            nonces: 0,
            since: Instant::now(),
            pauses: RetryPauses::default(),
        }
    }
}

impl Default for RetryPauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

/// Repeats a call while its error is transient. A macro, because the calls borrow in ways that a
/// closure cannot.
macro_rules! retry_transient {
    ($ctx:expr, $step:expr, $call:expr) => {{
        let mut retries = $crate::acme::retry::Retries::default();
        loop {
            match $call {
                Err(error)
                    if $crate::acme::retry::should_retry($ctx, $step, &error, &mut retries)
                        .await => {}
                result => break result,
            }
        }
    }};
}
pub(super) use retry_transient;

/// Returns true if a call should be repeated, after a pause if it needs one.
pub(super) async fn should_retry(
    ctx: &OrderCtx<'_>,
    step: Step,
    error: &Error,
    retries: &mut Retries,
) -> bool {
    if error::is_bad_nonce(error) {
        retries.nonces += 1;
        return retries.nonces <= NONCES;
    }
    let longest = match error::is_account_lost(error, ctx.client) {
        true if ctx.stored_account.is_younger_than(ACCOUNT_LAG, ctx.now()) => ACCOUNT_LAG,
        false if is_not_there_yet(ctx, step, error) => LAG,
        _ => return false,
    };
    if retries.since.elapsed() >= longest {
        return false;
    }
    pause_before_retry(ctx, &mut retries.pauses).await;
    true
}

/// Returns true if a CA does not have, or not completely, a resource that it has named itself.
fn is_not_there_yet(ctx: &OrderCtx<'_>, step: Step, error: &Error) -> bool {
    let is_named = matches!(
        step,
        Step::Authorization | Step::Challenge | Step::Finalize | Step::Poll
    );
    match ctx.client.refusal() {
        Some(refusal) => is_named && is_missing(refusal.status),
        // A request that was accepted is not sent again.
        None => matches!(step, Step::Authorization | Step::Poll) && is_unreadable(error),
    }
}

/// Pauses before the CA is asked again: as long as it said, or a little longer each time.
pub(super) async fn pause_before_retry(ctx: &OrderCtx<'_>, pauses: &mut RetryPauses) {
    let asked = ctx.client.retry_after();
    let asked = asked.map(|at| at.since(ctx.now()).min(LONGEST_WAIT));
    let asked = asked.filter(|wait| !wait.is_zero());
    tokio::time::sleep(asked.unwrap_or(pauses.0)).await;
    pauses.0 = pauses.0.mul_f32(1.5).min(LONGEST_PAUSE);
}

/// Returns true if a successful reply could not be read.
pub(super) fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::Other(inner) if inner.is::<Unreadable>())
}
