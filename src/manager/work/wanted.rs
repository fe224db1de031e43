//! Whether a certificate that a client once asked for is still wanted.

use std::sync::Arc;

use super::super::health::Use;
use super::super::job::{Job, Outcome, Tools};
use super::super::on_demand::name_of;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Storage, blocking};

impl Job {
    /// What comes of it where whoever decides on names has to be asked first, and says no. One who
    /// cannot be reached takes no certificate away that is there, and gives none.
    pub(super) async fn unwanted(&self, tools: &Tools) -> Option<Outcome> {
        let wanted = self.wanted.as_ref()?;
        let name = name_of(&self.ticket.need)?;
        match wanted.is_wanted(name).await {
            Some(true) => None,
            Some(false) => Some(Outcome::Unwanted),
            None if self.has_one => None,
            None => Some(self.untold(tools).await),
        }
    }

    /// Nobody says whether it is wanted: that is a failure, of a day on which nothing works.
    async fn untold(&self, tools: &Tools) -> Outcome {
        let lease = match self.lease(tools).await {
            Ok(Some(lease)) => Arc::new(lease),
            Ok(None) => return Outcome::Elsewhere,
            Err(error) => {
                tools.health.failed(Use::Writing, &error);
                return Outcome::Elsewhere;
            }
        };
        let why = "whether it may have one cannot be told now, since nobody answers 'ask'";
        let failure = Failure::new(FailureClass::Network, why);
        let first = self.first();
        let outcome = self.failed(vec![(&first, failure)], &lease, tools).await;
        let end = move |_: &dyn Storage| {
            drop(lease);
            Ok(())
        };
        let _ = blocking(&tools.storage, end).await;
        outcome
    }
}
