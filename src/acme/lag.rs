//! What is borne of a CA within one call: a nonce that it does not take, and that one of its
//! servers does not know yet what another has just made.
//!
//! All of that is waited for with the same order and the same account.

use std::time::{Duration, Instant};

use instant_acme::Error;

use super::class::is_missing;
use super::classify::{self, Step};
use super::job::Job;
use super::lenient::Unreadable;

/// How long what a CA has named may be unknown to it, or unreadable.
const LAG: Duration = Duration::from_secs(10);

/// How long an account that was just made may be unknown, in seconds: no other is made before.
const ACCOUNT_LAG: i64 = 60;

/// How often a nonce may not be taken, beyond the few times that instant-acme bears by itself.
const NONCES: u32 = 6;

/// How soon a CA is asked again at first, and at the latest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(150);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long is waited at most because a CA says so, in seconds.
const LONGEST_WAIT: i64 = 60;

/// What has been borne of one call.
pub(super) struct Borne {
    nonces: u32,
    since: Instant,
    pub(super) pauses: Pauses,
}

/// The pauses between asking and asking again.
pub(super) struct Pauses(Duration);

impl Default for Borne {
    fn default() -> Self {
        Self {
            nonces: 0,
            since: Instant::now(),
            pauses: Pauses::default(),
        }
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

/// Makes a call of a job again while the job bears what came of it. A macro, since the calls lend
/// what a closure cannot.
macro_rules! persistently {
    ($job:expr, $step:expr, $call:expr) => {{
        let mut borne = $crate::acme::lag::Borne::default();
        loop {
            match $call {
                Err(error) if $job.bears($step, &error, &mut borne).await => {}
                result => break result,
            }
        }
    }};
}
pub(super) use persistently;

impl Job<'_> {
    /// Whether a call is to be made again, after a pause where it takes one.
    pub(super) async fn bears(&self, step: Step, error: &Error, borne: &mut Borne) -> bool {
        if classify::is_bad_nonce(error) {
            borne.nonces += 1;
            return borne.nonces <= NONCES;
        }
        let longest = match classify::is_account_lost(error, self.session) {
            true if self.kept.is_younger_than(ACCOUNT_LAG, self.now()) => {
                Duration::from_secs(ACCOUNT_LAG.unsigned_abs())
            }
            false if self.is_not_there_yet(step, error) => LAG,
            _ => return false,
        };
        if borne.since.elapsed() >= longest {
            return false;
        }
        self.pause(&mut borne.pauses).await;
        true
    }

    /// Whether a CA has not got yet, or not whole, what it has named itself.
    fn is_not_there_yet(&self, step: Step, error: &Error) -> bool {
        let is_named = matches!(
            step,
            Step::Authorization | Step::Challenge | Step::Finalize | Step::Poll
        );
        match self.session.refusal() {
            Some(refusal) => is_named && is_missing(refusal.status),
            // What was sent has been taken, and is not sent again.
            None => matches!(step, Step::Authorization | Step::Poll) && is_unreadable(error),
        }
    }

    /// Waits before the CA is asked again: as long as it said, or a little longer each time.
    pub(super) async fn pause(&self, pauses: &mut Pauses) {
        let asked = self.session.retry_after();
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
pub(super) fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::Other(inner) if inner.is::<Unreadable>())
}
