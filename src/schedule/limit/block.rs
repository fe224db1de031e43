//! A limit of a CA that was met: how long it lasts, and what several instances know of it.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::schedule::retry::UNSAID_LIMIT;

/// A limit of the CA that was met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Block {
    pub(super) since: UnixTime,
    pub(super) until: UnixTime,
    /// The CA's words.
    pub(super) message: String,
    /// Whether a person said at `since` that it is over. The record is kept until its end, so that
    /// other instances that still obey it learn this.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) lifted: bool,
    /// Whether the CA did not say what it limits.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) unknown: bool,
    /// Whether it was met by a renewal that named what it replaces: then such renewals are held
    /// too.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) renewals: bool,
}

impl Block {
    /// Returns true if it holds new orders.
    pub(super) fn holds(&self, now: UnixTime) -> bool {
        self.until > now && !self.lifted
    }

    /// Returns true if it holds an order; `replaces` says whether that names what it replaces.
    pub(super) fn holds_one(&self, replaces: bool, now: UnixTime) -> bool {
        self.holds(now) && (self.renewals || !replaces)
    }

    /// Replaces this with `new`, which a CA has just said, unless this is known to last longer.
    /// Returns true if it did.
    pub(super) fn record_limit(&mut self, new: Self) -> bool {
        let renewals = new.renewals || self.renewals && !self.lifted;
        let is_wider = renewals != self.renewals;
        let is_longer = self.lifted || new.until > self.until;
        if is_longer {
            *self = new;
        }
        self.renewals = renewals;
        is_longer || is_wider
    }

    /// Merges what another instance knows. A limit cleared after it was met is over; a CA may
    /// repeat it after that.
    pub(super) fn merge_from(&mut self, other: &Self) {
        match (self.lifted, other.lifted) {
            (false, true) if other.since >= self.since => {
                let until = self.until.max(other.until);
                *self = Self {
                    until,
                    ..other.clone()
                };
            }
            (true, false) if other.since > self.since => *self = other.clone(),
            (true, false) => self.until = self.until.max(other.until),
            (false, false) => {
                let renewals = self.renewals || other.renewals;
                if other.until > self.until {
                    *self = other.clone();
                }
                self.renewals = renewals;
            }
            _ => {}
        }
    }

    pub(super) fn clear_limits(&mut self, now: UnixTime) {
        self.lifted = true;
        self.since = now;
        // The stored record may not have been read yet.
        self.until = self.until.max(now + UNSAID_LIMIT);
        self.message.clear();
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(is: &bool) -> bool {
    !is
}
