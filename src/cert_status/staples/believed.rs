//! What counts of what a responder says.

use super::super::query::Outcome;
use crate::certificate::status::KnownStatus;
use crate::clock::UnixTime;

/// What counts of `outcome` at `now`, where this is known: what a cache or somebody else has kept does
/// not take the place of what is newer.
pub(super) fn believed(outcome: Outcome, known: &KnownStatus, now: UnixTime) -> Outcome {
    let is_older = "the responder has an older response than before";
    let present = known.staple.as_ref().map(|staple| staple.this_update);
    match outcome {
        Outcome::Good(staple) if known.has_at_least(&staple, now) => {
            Outcome::Failed("the responder has no newer response".to_owned())
        }
        Outcome::Good(staple) if known.revoked.by_responder >= Some(staple.this_update) => {
            Outcome::Failed(is_older.to_owned())
        }
        Outcome::Revoked { since, .. } if present > Some(since) => {
            Outcome::Failed(is_older.to_owned())
        }
        other => other,
    }
}
