//! One trouble that lasts, and when time alone leads to its next report or to its end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::trouble;
use crate::clock::UnixTime;
use crate::event::{Event, EventKind, Severity};

/// The longest time between two reports.
const LONGEST_GAP: Duration = Duration::from_secs(24 * 3600);

/// How long after its last event a trouble is forgotten that would be emitted again if it lasted.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// When a report is made again that was lost, if troubles are not repeated otherwise.
const AGAIN: Duration = Duration::from_secs(3600);

/// A trouble that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::notify) struct Trouble {
    /// The last event about it.
    pub(super) event: Event,
    pub(super) since: UnixTime,
    /// When it was last emitted.
    pub(super) seen: UnixTime,
    /// The severity that was reported last.
    pub(super) severity: Severity,
    /// When it was last reported; `None` if that came to nothing.
    pub(super) reported: Option<UnixTime>,
    /// The kind that was reported last; `None` if an earlier version has kept this.
    #[serde(default)]
    pub(super) told: Option<EventKind>,
    /// How many times it was reported.
    pub(super) reports: u32,
    /// Whether the recipient may know of it, and so wants to know its end.
    pub(super) is_known: bool,
}

impl Trouble {
    /// The time from the last report to the next one.
    pub(super) fn gap(&self, repeat: Option<Duration>) -> Option<Duration> {
        let doublings = self.reports.saturating_sub(1).min(16);
        Some((repeat? * (1 << doublings)).min(LONGEST_GAP))
    }

    /// When a limit of a CA ends by itself.
    pub(super) fn limit_end(&self) -> Option<UnixTime> {
        let is_limit = self.event.kind == EventKind::CaLimited;
        self.event.next.filter(|_| is_limit)
    }

    /// Returns true if nothing was heard of it for so long that it is taken to be over.
    pub(super) fn is_forgotten(&self, key: &str, now: UnixTime) -> bool {
        !trouble::is_silent(key) && self.seen + FORGOTTEN <= now
    }

    /// Returns true if an event says that it is less grave than it was.
    pub(super) fn is_more_than(&self, event: &Event) -> bool {
        let is_other_degree = event.kind != self.event.kind
            && trouble::degrees(event.kind).contains(&self.event.kind);
        event.severity < self.event.severity || is_other_degree
    }

    /// Returns true if it is of another kind than the one that was reported last, and that is news:
    /// what was about to expire has expired.
    pub(super) fn is_of_another_kind(&self) -> bool {
        let others = trouble::degrees(self.event.kind);
        self.told
            .is_some_and(|told| told != self.event.kind && others.contains(&told))
    }

    /// Forgets times that are still to come: the clock was set back, and would put off all reports.
    pub(super) fn set_back(&mut self, now: UnixTime) {
        self.seen = self.seen.min(now);
        self.reported = self.reported.map(|at| at.min(now));
    }

    /// When time alone leads to something.
    pub(super) fn next_step(
        &self,
        key: &str,
        is_confirmed: bool,
        repeat: Option<Duration>,
    ) -> Option<UnixTime> {
        let again = match self.reported {
            // It may be over.
            _ if !is_confirmed => None,
            Some(at) => self.gap(repeat).map(|gap| at + gap),
            None => Some(self.seen + repeat.unwrap_or(AGAIN)),
        };
        let forgotten = (!trouble::is_silent(key)).then(|| self.seen + FORGOTTEN);
        [again, self.limit_end(), forgotten]
            .into_iter()
            .flatten()
            .min()
    }
}
