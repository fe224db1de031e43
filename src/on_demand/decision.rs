//! The decision of a program or a service whether a name may have a certificate on demand.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::host::HostName;

/// Decides which names may have a certificate on demand. It is asked once for all clients that wait
/// for a name, and again before a renewal.
///
/// What it says is remembered, so that it need not be quick. It is left alone for a while where it
/// fails again and again.
#[async_trait]
pub trait Decider: Send + Sync {
    /// Who decides, for people: it begins messages about failures.
    fn place(&self) -> &str {
        "the decision function"
    }

    /// Whether `name` may have a certificate. `client` has asked for it; `None` where nobody waits,
    /// as before a renewal. Dropped where it takes too long.
    ///
    /// # Errors
    /// If it cannot be decided now. Then there is no new certificate, and nothing is remembered.
    async fn decide(&self, name: &HostName, client: Option<IpAddr>) -> Result<Decision, Undecided>;
}

/// Whether a name may have a certificate, and for how long that is remembered: for the configured
/// time where it does not say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow {
        /// How long this is remembered, in whole seconds; not at all for zero.
        valid_for: Option<Duration>,
    },
    /// It may not.
    Refuse {
        /// How long this is remembered, in whole seconds; not at all for zero.
        valid_for: Option<Duration>,
    },
}

/// Why a decision could not be made, for people: what is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided(pub String);

impl From<bool> for Decision {
    /// `true` allows the name.
    fn from(allowed: bool) -> Self {
        match allowed {
            true => Self::Allow { valid_for: None },
            false => Self::Refuse { valid_for: None },
        }
    }
}

/// What a decision function may return: `bool` or a [`Decision`], or either in a `Result` whose
/// error says why it cannot be decided now.
pub trait IntoDecision {
    /// What was decided.
    ///
    /// # Errors
    /// Why nothing was.
    fn into_decision(self) -> Result<Decision, Undecided>;
}

impl IntoDecision for bool {
    fn into_decision(self) -> Result<Decision, Undecided> {
        Ok(self.into())
    }
}

impl IntoDecision for Decision {
    fn into_decision(self) -> Result<Decision, Undecided> {
        Ok(self)
    }
}

impl<T: Into<Decision>, E: Display> IntoDecision for Result<T, E> {
    fn into_decision(self) -> Result<Decision, Undecided> {
        self.map(Into::into)
            .map_err(|error| Undecided(error.to_string()))
    }
}

/// A [`Decider`] that calls `decide` with the name.
pub fn decide_with<F, R, D>(decide: F) -> Arc<dyn Decider>
where
    F: Fn(HostName) -> R + Send + Sync + 'static,
    R: Future<Output = D> + Send + 'static,
    D: IntoDecision + 'static,
{
    Arc::new(FnDecider(decide))
}

/// A function that decides.
struct FnDecider<F>(F);

#[async_trait]
impl<F, R, D> Decider for FnDecider<F>
where
    F: Fn(HostName) -> R + Send + Sync,
    R: Future<Output = D> + Send,
    D: IntoDecision,
{
    async fn decide(&self, name: &HostName, _: Option<IpAddr>) -> Result<Decision, Undecided> {
        let decided = (self.0)(name.clone()).await.into_decision();
        decided.map_err(|Undecided(why)| Undecided(format!("{}: {why}", self.place())))
    }
}
