//! When certificates are obtained, renewed and retried: decisions only.
//!
//! Everything here is a function of what is known and of the time; nothing here waits, stores or
//! asks anyone. `manager` and `service` carry out what is decided.
//!
//! | part | decides |
//! |---|---|
//! | [`window`] | when in its lifetime a certificate is renewed |
//! | [`advice`] | what follows from a CA's advice on when to renew |
//! | [`alert`] | what people should know about a certificate |
//! | [`retry`] | when a certificate that could not be obtained is retried |
//! | [`retries`] | the same for several CAs |
//! | [`limit`] | whether a CA may be asked now |
//! | [`scope`] | what a limit of a CA covers |
//! | [`plan`] | which of all certificates is worked on next |
//! | [`clock_step`] | whether the clock was set |
//! | [`deadlines`] | upcoming deadlines of a great many certificates |

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
pub use self::alert::{Alert, RenewedBy, WarnFrom, is_overdue};
pub use self::clock_step::ClockStep;
pub use self::deadlines::{Deadlines, Passed};
pub use self::failure::{Failure, FailureClass};
pub use self::limit::{Limiter, Pace, Wait, WaitReason};
pub use self::plan::{CertState, Facts, Plan};
pub use self::retries::Retries;
pub use self::retry::{FAILED_VALIDATIONS, Retry};
pub use self::scope::{Intent, Scope};
pub use self::window::Lifetime;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

#[cfg(test)]
mod tests;
