//! What is retried within one call to a CA: a nonce that it does not take, and that one of its
//! servers does not know yet what another has just made.
//!
//! All of that is waited for with the same order and the same account.

use std::time::{Duration, Instant};

use instant_acme::Error;

use crate::acme::error::class::is_missing;
use crate::acme::error::{self, Step};
use crate::acme::lenient::Unreadable;
use crate::acme::order::OrderJob;

/// How long what a CA has named may be unknown to it, or unreadable.
const LAG: Duration = Duration::from_secs(10);

/// How long an account that was just made may be unknown, in seconds: no other is made before.
const ACCOUNT_LAG: i64 = 60;

/// How often a nonce may not be taken, beyond the few times that instant-acme retries by itself.
const NONCES: u32 = 6;

/// How soon a CA is asked again at first, and at the latest.
pub(in crate::acme) const FIRST_PAUSE: Duration = Duration::from_millis(150);
pub(in crate::acme) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long is waited at most because a CA says so, in seconds.
const LONGEST_WAIT: i64 = 60;

/// The retries of one call.
pub(in crate::acme) struct Retries {
    nonces: u32,
    since: Instant,
    pub(in crate::acme) pauses: RetryPauses,
}

/// The pauses between asking and asking again.
pub(in crate::acme) struct RetryPauses(Duration);

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

/// Repeats a call of a job while its error is transient. A macro, since the calls lend
/// what a closure cannot.
macro_rules! retry_transient {
    ($job:expr, $step:expr, $call:expr) => {{
        let mut retries = $crate::acme::order::retry::Retries::default();
        loop {
            match $call {
                Err(error) if $job.should_retry($step, &error, &mut retries).await => {}
                result => break result,
            }
        }
    }};
}
pub(in crate::acme) use retry_transient;

impl OrderJob<'_> {
    /// Whether a call is to be made again, after a pause where it takes one.
    pub(in crate::acme) async fn should_retry(
        &self,
        step: Step,
        error: &Error,
        retries: &mut Retries,
    ) -> bool {
        if error::is_bad_nonce(error) {
            retries.nonces += 1;
            return retries.nonces <= NONCES;
        }
        let longest = match error::is_account_lost(error, self.client) {
            true if self.stored_account.is_younger_than(ACCOUNT_LAG, self.now()) => {
                Duration::from_secs(ACCOUNT_LAG.unsigned_abs())
            }
            false if self.is_not_there_yet(step, error) => LAG,
            _ => return false,
        };
        if retries.since.elapsed() >= longest {
            return false;
        }
        self.pause_before_retry(&mut retries.pauses).await;
        true
    }

    /// Whether a CA has not got yet, or not whole, what it has named itself.
    fn is_not_there_yet(&self, step: Step, error: &Error) -> bool {
        let is_named = matches!(
            step,
            Step::Authorization | Step::Challenge | Step::Finalize | Step::Poll
        );
        match self.client.refusal() {
            Some(refusal) => is_named && is_missing(refusal.status),
            // What was sent has been taken, and is not sent again.
            None => matches!(step, Step::Authorization | Step::Poll) && is_unreadable(error),
        }
    }

    /// Waits before the CA is asked again: as long as it said, or a little longer each time.
    pub(in crate::acme) async fn pause_before_retry(&self, pauses: &mut RetryPauses) {
        let asked = self.client.retry_after();
        let asked = asked.map(|at| at.saturating_sub(self.now()).min(LONGEST_WAIT));
        let asked = asked.and_then(|seconds| u64::try_from(seconds).ok());
        let asked = asked
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs);
        tokio::time::sleep(asked.unwrap_or(pauses.0)).await;
        pauses.0 = pauses.0.mul_f32(1.5).min(LONGEST_PAUSE);
    }
}

/// Whether an answer, a success, could not be read.
pub(in crate::acme) fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::Other(inner) if inner.is::<Unreadable>())
}
