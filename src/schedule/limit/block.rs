//! One limit of a CA that was met: until when it holds, and what several instances know of it.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::schedule::retry::UNSAID_LIMIT;

/// A limit of the CA that was met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Block {
    pub(super) since: UnixTime,
    pub(super) until: UnixTime,
    /// What the CA said.
    pub(super) message: String,
    /// Whether a person said at `since` that it is over. It stays known until its end, so that
    /// instances which still keep to it learn so.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) lifted: bool,
    /// Whether the CA did not say what it limits.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) unknown: bool,
    /// Whether a renewal met it that named what it replaces: then such renewals are held too.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) renewals: bool,
}

impl Block {
    /// Whether it holds new orders.
    pub(super) fn holds(&self, now: UnixTime) -> bool {
        self.until > now && !self.lifted
    }

    /// Whether it holds an order that replaces a certificate, or none.
    pub(super) fn holds_one(&self, replaces: bool, now: UnixTime) -> bool {
        self.holds(now) && (self.renewals || !replaces)
    }

    /// Takes `new`, which a CA has said just now, unless it is known to last longer. Whether it did.
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

    /// Takes over what another instance knows. What was lifted after it was met is over, and a CA
    /// may say it again after that.
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
        // What is in the storage may not have been read yet.
        self.until = self.until.max(now.saturating_add(UNSAID_LIMIT));
        self.message.clear();
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(is: &bool) -> bool {
    !is
}
