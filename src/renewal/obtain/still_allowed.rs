//! Whether a name that a client once asked for may still have a certificate.

use super::super::job::{Deps, Job, Outcome};
use crate::schedule::{Failure, FailureClass};

impl Job {
    /// What comes of it where whoever decides on names has to be asked first, and says no. One who
    /// cannot be reached takes no certificate away that is there, and gives none.
    pub(super) async fn check_still_allowed(&self, deps: &Deps) -> Option<Outcome> {
        let policy = self.policy.as_ref()?;
        let name = self.guard.spec.on_demand_name()?;
        match policy.still_allows(name).await {
            Some(true) => None,
            Some(false) => Some(Outcome::Unwanted),
            None if self.has_one => None,
            None => Some(self.unanswered(deps)),
        }
    }

    /// Nobody says whether it is wanted: that is a failure, of a day on which nothing works.
    fn unanswered(&self, deps: &Deps) -> Outcome {
        let why = "cannot tell whether it may have one: 'ask' does not respond";
        self.failed_without_issuer(Failure::new(FailureClass::Network, why), deps)
    }
}
