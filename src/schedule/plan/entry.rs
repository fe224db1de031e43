//! What a plan knows of one certificate, and where that puts it.
//!
//! Everything here follows from the facts of an [`Entry`] and the time; the queues belong to its
//! plan.

use serde::Serialize;

use crate::clock::UnixTime;
use crate::schedule::{Lifetime, Retry};

/// The initial facts about a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// That of the current certificate; `None` if there is none.
    pub life: Option<Lifetime>,
    /// Its failures since, as stored.
    pub retry: Option<Retry>,
}

/// The state of a managed certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CertState {
    /// There is none, and none has been requested yet.
    Missing,
    /// An issuer is being asked for it.
    Obtaining,
    /// There is one, and its renewal is not due.
    Valid,
    /// There is one, and its renewal is due but was not tried yet.
    Due,
    /// There is none, or it is due or expired, and attempts have failed.
    Failed { failures: u32, next: UnixTime },
    /// It has failed, and is not tried until somebody has acted.
    Paused,
    /// There is one that has expired, and no other has been requested yet.
    Expired,
}

/// One certificate of a plan.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) life: Option<Lifetime>,
    /// Not before this time, which is independent of the certificate's own rules.
    pub(super) held: UnixTime,
    /// When its CA suggests to renew it.
    pub(super) advised: Option<UnixTime>,
    pub(super) retry: Option<Box<Retry>>,
    pub(super) wish: Wish,
    pub(super) place: Place,
}

/// Whether somebody requested a certificate that is not due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    No,
    /// Since this time, whatever the back-off says.
    Now(UnixTime),
    /// It has failed since: with back-off.
    Again,
}

/// The queue of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// None: it waits for a person.
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
    /// Its state.
    pub(super) fn state(&self, window: f64, now: UnixTime) -> CertState {
        if self.place == Place::Running {
            return CertState::Obtaining;
        }
        let is_advised = self.advised.is_some_and(|at| at <= now);
        let is_over = |life: Lifetime| life.is_due(window, now);
        let due = self.wish != Wish::No || is_advised || self.life.is_none_or(is_over);
        match (&self.retry, self.life) {
            // Even if failures from before it were left behind.
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

    /// When its renewal is planned for, whatever has failed since; `None` if there is none to
    /// renew.
    pub(super) fn planned_at(&self, window: f64) -> Option<UnixTime> {
        let own = self.life?.due_at(window).max(self.held);
        Some(self.advised.map_or(own, |at| own.min(at)))
    }

    /// When an attempt is due by the facts; `None` for never.
    pub(super) fn due_at(&self, window: f64) -> Option<UnixTime> {
        let due = match (self.life, self.wish) {
            (Some(_), Wish::No) => self.planned_at(window).unwrap_or(UnixTime::MIN),
            // Requested, whatever there is.
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
            // Urgent when a third of the time for the renewal is left, as for alerts.
            (_, Some(life)) => {
                let given = life.left(life.due_at(window));
                Place::Renewal(life.not_after - given / 3)
            }
        }
    }
}
