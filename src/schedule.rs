//! When certificates are obtained, renewed and tried again: decisions alone.
//!
//! Everything here is a function of what is known and of the time; nothing here waits, stores or
//! asks anyone. `manager` and `service` carry out what is decided.
//!
//! | part | decides |
//! |---|---|
//! | [`window`] | when in its life a certificate is renewed |
//! | [`advice`] | what becomes of a CA's advice on when to renew |
//! | [`alert`] | what people have to be told about a certificate |
//! | [`retry`] | when a certificate is tried again that could not be had |
//! | [`retries`] | the same of several CAs |
//! | [`limit`] | whether a CA may be asked now |
//! | [`scope`] | what a limit of a CA holds |
//! | [`plan`] | which of all certificates is worked on next |
//! | [`leap`] | whether the clock was set |
//! | [`deadlines`] | what comes when, of very many certificates |

pub mod advice;
pub mod alert;
pub mod clock_step;
pub mod deadlines;
pub mod failure;
pub mod limit;
pub mod plan;
pub mod retries;
pub mod retry;
pub mod scope;
pub mod window;

pub use self::advice::{Advice, RenewalInfo};
pub use self::alert::{Alert, RenewedBy, Watch};
pub use self::clock_step::ClockStep;
pub use self::deadlines::{Deadlines, Passed};
pub use self::failure::{Failure, FailureClass};
pub use self::limit::{Limiter, Pace, Wait, WaitReason};
pub use self::plan::{CertState, Facts, Plan};
pub use self::retries::Retries;
pub use self::retry::{FAILED_VALIDATIONS, Retry};
pub use self::scope::{Intent, Scope};
pub use self::window::Lifetime;

use crate::clock::UnixTime;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// A time for people.
fn text(time: UnixTime) -> String {
    jiff::Timestamp::from_second(time).map_or_else(|_| time.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
