//! Which reports of a trouble a recipient gets: the first one, then some with growing gaps, those that
//! are graver than before, and one when it is over.
//!
//! The time is an argument, and nothing here reads or writes: the outbox keeps the troubles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::trouble::{self, Ended};
use super::{Entry, EntryState};
use crate::clock::UnixTime;
use crate::event::{Event, EventKind, Severity};

/// The longest time between two reports.
const LONGEST_GAP: Duration = Duration::from_secs(24 * 3600);

/// How long after its last event a trouble is forgotten, in case its end is never reported.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long after a start a trouble is emitted again that lasts silently.
const CONFIRMED: Duration = Duration::from_secs(120);

/// How many troubles are known at most.
const MAX_TROUBLES: usize = 20_000;

/// From which report on the severity of a trouble that lasts is raised by one.
const RAISED_AFTER: u32 = 3;

/// A trouble that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trouble {
    /// The last event about it.
    event: Event,
    since: UnixTime,
    /// When it was last emitted.
    seen: UnixTime,
    /// The severity that was reported last.
    severity: Severity,
    /// When it was last reported; `None` if that came to nothing.
    reported: Option<UnixTime>,
    /// How many times it was reported.
    reports: u32,
    /// Whether the recipient may know of it, and so wants to know its end.
    is_known: bool,
    /// When it is taken to be over, unless an event says otherwise: an earlier process has reported
    /// it, and the one that runs now may begin without it.
    #[serde(skip)]
    unconfirmed_until: Option<UnixTime>,
}

/// The troubles that last.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    troubles: BTreeMap<String, Trouble>,
    /// The keys of those that have changed since they were last saved.
    changed: BTreeSet<String>,
}

/// What an event leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reaction {
    /// What is to be reported.
    pub(super) entries: Vec<Entry>,
    /// The keys of troubles that are over: what waits to be reported about them is obsolete.
    pub(super) over: Vec<String>,
}

impl Troubles {
    /// Takes note of an event. `is_wanted` says whether the recipient is to get it: the end of a
    /// trouble that it knows of it gets in any case.
    pub(super) fn observe(
        &mut self,
        event: &Event,
        is_wanted: bool,
        repeat: Option<Duration>,
        now: UnixTime,
    ) -> Reaction {
        let mut reaction = Reaction::default();
        let over = match trouble::ended(event) {
            Ended::Keys(keys) => keys,
            Ended::Prefix(prefix) => {
                let first = self.troubles.range(prefix.to_owned()..);
                let under = first.take_while(|(key, _)| key.starts_with(prefix));
                under.map(|(key, _)| key.clone()).collect()
            }
        };
        for key in over {
            if let Some(entry) = self.end(&key, event) {
                reaction.entries.extend(entry);
                reaction.over.push(key);
            }
        }
        if !is_wanted {
            return reaction;
        }
        match trouble::key(event) {
            Some(key) => reaction
                .entries
                .extend(self.report(key, event, repeat, now)),
            // Its news is in the entries about what has ended.
            None if !reaction.entries.is_empty() => {}
            None => reaction.entries.push(Entry {
                event: event.clone(),
                state: EntryState::Happened,
                trouble: None,
                since: event.at,
                repeats: 0,
            }),
        }
        reaction
    }

    /// What is due by now without another event: reports of what lasts silently, and the end of
    /// limits.
    pub(super) fn pass_time(&mut self, repeat: Option<Duration>, now: UnixTime) -> Reaction {
        let mut reaction = Reaction::default();
        let due: Vec<String> = self
            .troubles
            .iter()
            .filter(|(key, one)| one.next_step(key, repeat).is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let Some(one) = self.troubles.get(&key) else {
                continue;
            };
            if one.seen + FORGOTTEN <= now {
                self.remove(&key);
                reaction.over.push(key);
            } else if let Some(why) = one.over_by(now) {
                let mut event = one.event.clone();
                (event.at, event.severity) = (now, Severity::Info);
                event.message = format!("{why}: {}", event.message);
                reaction.entries.extend(self.end(&key, &event).flatten());
                reaction.over.push(key);
            } else {
                reaction.entries.extend(self.add_report(&key, now));
            }
        }
        reaction
    }

    /// When [`Self::pass_time`] has something to do next.
    pub(super) fn next_step(&self, repeat: Option<Duration>) -> Option<UnixTime> {
        let troubles = self.troubles.iter();
        troubles
            .filter_map(|(key, one)| one.next_step(key, repeat))
            .min()
    }

    /// A report was not kept until it could be sent: the next event leads to another.
    pub(super) fn take_back(&mut self, key: &str) {
        if let Some(one) = self.troubles.get_mut(key) {
            one.reported = None;
            one.reports = one.reports.saturating_sub(1);
            self.changed.insert(key.to_owned());
        }
    }

    /// A report is being sent, or has been refused by the recipient.
    pub(super) fn set_known(&mut self, key: &str, is_known: bool) {
        if let Some(one) = self.troubles.get_mut(key) {
            one.is_known = is_known;
            self.changed.insert(key.to_owned());
        }
    }

    /// Ends troubles of upstreams that are no longer configured. Nobody wants to know.
    pub(super) fn retain_upstreams(&mut self, is_configured: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self
            .troubles
            .iter()
            .filter(|(_, one)| {
                let upstream = one.event.upstream.as_deref();
                upstream.is_some_and(|upstream| !is_configured(upstream))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.remove(key);
        }
        gone
    }

    /// Adds what an earlier process knew, unless more is known already.
    pub(super) fn restore(&mut self, key: String, mut trouble: Trouble, now: UnixTime) {
        trouble.unconfirmed_until = trouble::is_found_again(&key).then(|| now + CONFIRMED);
        self.troubles.entry(key).or_insert(trouble);
    }

    /// All troubles by their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Trouble)> {
        self.troubles.iter()
    }

    /// The troubles that have changed since the last call, `None` for those that are over.
    pub(super) fn take_changes(&mut self) -> Vec<(String, Option<Trouble>)> {
        let changed = std::mem::take(&mut self.changed);
        let changes = changed.into_iter().map(|key| {
            let trouble = self.troubles.get(&key).cloned();
            (key, trouble)
        });
        changes.collect()
    }

    /// Ends a trouble, if it is one: what to report if the recipient knows of it.
    fn end(&mut self, key: &str, event: &Event) -> Option<Option<Entry>> {
        let one = self.remove(key)?;
        Some(one.is_known.then(|| Entry {
            event: event.clone(),
            state: EntryState::Recovered,
            trouble: Some(key.to_owned()),
            since: one.since,
            repeats: one.reports,
        }))
    }

    fn remove(&mut self, key: &str) -> Option<Trouble> {
        let one = self.troubles.remove(key)?;
        self.changed.insert(key.to_owned());
        Some(one)
    }

    /// Takes note of an event about a trouble: what to report, if anything.
    fn report(
        &mut self,
        key: String,
        event: &Event,
        repeat: Option<Duration>,
        now: UnixTime,
    ) -> Option<Entry> {
        self.changed.insert(key.clone());
        if !self.troubles.contains_key(&key) && self.troubles.len() >= MAX_TROUBLES {
            let first = self.troubles.keys().next().cloned();
            first.and_then(|first| self.remove(&first));
        }
        let one = self.troubles.entry(key.clone()).or_insert_with(|| Trouble {
            event: event.clone(),
            since: event.at,
            seen: now,
            severity: event.severity,
            reported: None,
            reports: 0,
            is_known: false,
            unconfirmed_until: None,
        });
        one.unconfirmed_until = None;
        one.event = event.clone();
        one.seen = now;
        let is_graver = event.severity > one.severity;
        let is_due = match one.reported {
            None => true,
            Some(at) => one.gap(repeat).is_some_and(|gap| at + gap <= now),
        };
        (is_graver || is_due)
            .then(|| self.add_report(&key, now))
            .flatten()
    }

    /// Reports a trouble as it is.
    fn add_report(&mut self, key: &str, now: UnixTime) -> Option<Entry> {
        let one = self.troubles.get_mut(key)?;
        let mut event = one.event.clone();
        if trouble::is_flat(key) && one.reports >= RAISED_AFTER {
            event.severity = raised(event.severity);
        }
        let entry = Entry {
            state: match one.reports {
                0 => EntryState::Happened,
                _ => EntryState::Ongoing,
            },
            trouble: Some(key.to_owned()),
            since: one.since,
            repeats: one.reports,
            event,
        };
        one.severity = entry.event.severity;
        one.reported = Some(now);
        one.reports = one.reports.saturating_add(1);
        self.changed.insert(key.to_owned());
        Some(entry)
    }
}

impl Trouble {
    /// The time from the last report to the next one.
    fn gap(&self, repeat: Option<Duration>) -> Option<Duration> {
        let doublings = self.reports.saturating_sub(1).min(16);
        Some((repeat? * (1 << doublings)).min(LONGEST_GAP))
    }

    /// When a limit of a CA ends by itself.
    fn limit_end(&self) -> Option<UnixTime> {
        let is_limit = self.event.kind == EventKind::CaLimited;
        self.event.next.filter(|_| is_limit)
    }

    /// Why it is over by this time, if it is.
    fn over_by(&self, now: UnixTime) -> Option<&'static str> {
        if self.limit_end().is_some_and(|end| end <= now) {
            Some("the limit has ended")
        } else if self.unconfirmed_until.is_some_and(|until| until <= now) {
            Some("not found again since the gateway was restarted")
        } else {
            None
        }
    }

    /// When time alone leads to something.
    fn next_step(&self, key: &str, repeat: Option<Duration>) -> Option<UnixTime> {
        let again = match self.reported {
            Some(at) if trouble::is_silent(key) => self.gap(repeat).map(|gap| at + gap),
            _ => None,
        };
        let forgotten = Some(self.seen + FORGOTTEN);
        [again, self.limit_end(), self.unconfirmed_until, forgotten]
            .into_iter()
            .flatten()
            .min()
    }
}

fn raised(severity: Severity) -> Severity {
    match severity {
        Severity::Info => Severity::Info,
        Severity::Warning => Severity::Error,
        Severity::Error | Severity::Critical => Severity::Critical,
    }
}

#[cfg(test)]
mod tests;
