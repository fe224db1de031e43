//! What a plan knows of one certificate, and where that puts it.
//!
//! Everything here follows from the facts of an [`Entry`] and the time; the queues are its plan's.

use serde::Serialize;

use crate::clock::UnixTime;
use crate::schedule::{Lifetime, Retry};

/// What is known of a certificate, to begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// That of the certificate at hand, `None` where there is none.
    pub life: Option<Lifetime>,
    /// Its failures since, as they were stored.
    pub retry: Option<Retry>,
}

/// How a managed certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CertState {
    /// There is none, and none was asked for yet.
    Missing,
    /// An issuer is being asked for it.
    Obtaining,
    /// There is one, and its renewal is not due.
    Valid,
    /// There is one, its renewal is due and was not tried yet.
    Due,
    /// There is none, or it is due or over, and trying has failed.
    Failed { failures: u32, next: UnixTime },
    /// It has failed, and is not tried until somebody has acted.
    Paused,
    /// There is one that is over, and no other was asked for yet.
    Expired,
}

/// One certificate of a plan.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) life: Option<Lifetime>,
    /// Not before this time, which no rule of the certificate gives.
    pub(super) held: UnixTime,
    /// When its CA advises to renew it.
    pub(super) advised: Option<UnixTime>,
    pub(super) retry: Option<Box<Retry>>,
    pub(super) wish: Wish,
    pub(super) place: Place,
}

/// Whether somebody asked for a certificate that is not due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    No,
    /// Since this time, whatever the back-off says.
    Now(UnixTime),
    /// It has failed since: with back-off.
    Again,
}

/// In which queue an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In none: it waits for a person.
    Idle,
    Running,
    Waiting(UnixTime),
    Asked(UnixTime),
    Missing(UnixTime),
    Renewal(UnixTime),
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            life: None,
            held: UnixTime::MIN,
            advised: None,
            retry: None,
            wish: Wish::No,
            place: Place::Idle,
        }
    }
}

impl Entry {
    /// How it stands.
    pub(super) fn state(&self, window: f64, now: UnixTime) -> CertState {
        if self.place == Place::Running {
            return CertState::Obtaining;
        }
        let is_advised = self.advised.is_some_and(|at| at <= now);
        let is_over = |life: Lifetime| life.is_due(window, now);
        let due = self.wish != Wish::No || is_advised || self.life.is_none_or(is_over);
        match (&self.retry, self.life) {
            // Also where failures of the one before were left behind.
            (_, Some(_)) if !due => CertState::Valid,
            (Some(retry), _) => retry
                .next
                .map_or(CertState::Paused, |next| CertState::Failed {
                    failures: retry.failures,
                    next,
                }),
            (None, None) => CertState::Missing,
            (None, Some(life)) if life.has_ended(now) => CertState::Expired,
            (None, Some(_)) => CertState::Due,
        }
    }

    /// When an attempt is due by the facts, `None` for never.
    pub(super) fn due_at(&self, window: f64) -> Option<UnixTime> {
        let due = match (self.life, self.wish) {
            (Some(life), Wish::No) => {
                let own = life.due_at(window).max(self.held);
                self.advised.map_or(own, |at| own.min(at))
            }
            // Wanted, whatever there is.
            _ => UnixTime::MIN,
        };
        match &self.retry {
            Some(retry) => retry.next.map(|next| next.max(due)),
            None => Some(due),
        }
    }

    /// The queue for what is due since `at`.
    pub(super) fn ready(&self, window: f64, at: UnixTime) -> Place {
        match (self.wish, self.life) {
            (Wish::Now(since), _) => Place::Asked(since),
            (_, None) => Place::Missing(at),
            // Urgent when a third of what was left is left, as for alerts.
            (_, Some(life)) => {
                let given = life.left(life.due_at(window));
                Place::Renewal(life.not_after.saturating_sub(given / 3))
            }
        }
    }
}
