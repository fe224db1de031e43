//! Which reports of a trouble a recipient gets: the first one, then some with growing gaps, those that
//! are graver than before or of another kind, and one when it is over.
//!
//! The time is an argument, and nothing here reads or writes: the outbox keeps the troubles.

mod lasting;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use self::lasting::Trouble;
use super::trouble::{self, Confirmation, Ended};
use super::{Entry, EntryState};
use crate::clock::UnixTime;
use crate::event::{Event, Severity, Survey};

/// How many troubles are known at most.
const MAX_TROUBLES: usize = 20_000;

/// From which report on the severity of a trouble that lasts is raised by one.
const RAISED_AFTER: u32 = 3;

/// The troubles that last.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    troubles: BTreeMap<String, Trouble>,
    /// The keys of those that have changed since they were last saved.
    changed: BTreeSet<String>,
    /// The keys of those that an earlier process has reported, and this one has not found yet. They
    /// may be over.
    unconfirmed: BTreeSet<String>,
    /// The keys of those that are emitted again some time if they last, and have not been since the
    /// start.
    unheard: BTreeSet<String>,
}

/// How far this process has come with what it finds after its start.
pub(super) struct Progress<'a> {
    /// How long it has been running, by a clock that nobody sets.
    pub(super) uptime: Duration,
    pub(super) is_complete: &'a dyn Fn(Survey) -> bool,
    /// How long the health checks of each upstream need to find that a server is down.
    pub(super) checks: &'a HashMap<Arc<str>, Duration>,
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
        let key = trouble::key(event);
        if !is_wanted {
            let lesser = key.filter(|key| {
                let one = self.troubles.get(key);
                one.is_some_and(|one| one.is_more_than(event))
            });
            if let Some(key) = lesser {
                let event = at_end(event, "it is no longer as grave", now);
                reaction.entries.extend(self.end(&key, &event).flatten());
                reaction.over.push(key);
            }
            return reaction;
        }
        match key {
            Some(key) if self.is_known_otherwise(&key) => {}
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

    /// Returns true if a trouble that has not begun says nothing new: the renewal of a certificate is
    /// overdue because of a trouble that is known.
    fn is_known_otherwise(&self, key: &str) -> bool {
        let causes = key.strip_prefix("overdue/").map(|domain| {
            let families = ["issuance", "validity"].into_iter();
            families.map(move |family| format!("{family}/{domain}"))
        });
        let mut causes = causes.into_iter().flatten();
        !self.troubles.contains_key(key) && causes.any(|key| self.troubles.contains_key(&key))
    }

    /// What is due by now without another event: reports of what lasts, and the end of limits.
    pub(super) fn pass_time(&mut self, repeat: Option<Duration>, now: UnixTime) -> Reaction {
        let mut reaction = Reaction::default();
        let mut due = Vec::new();
        for (key, one) in &mut self.troubles {
            one.set_back(now);
            let is_confirmed = !self.unconfirmed.contains(key) && !self.unheard.contains(key);
            let step = one.next_step(key, is_confirmed, repeat);
            if step.is_some_and(|at| at <= now) {
                due.push(key.clone());
            }
        }
        for key in due {
            let Some(one) = self.troubles.get(&key) else {
                continue;
            };
            if one.is_forgotten(&key, now) {
                self.remove(&key);
                reaction.over.push(key);
            } else if one.limit_end().is_some_and(|end| end <= now) {
                self.end_by_time(key, "the limit has ended", now, &mut reaction);
            } else {
                reaction.entries.extend(self.add_report(&key, now));
            }
        }
        reaction
    }

    /// Ends what an earlier process has reported, and this one would have found by now.
    pub(super) fn end_unconfirmed(&mut self, progress: &Progress<'_>, now: UnixTime) -> Reaction {
        let mut reaction = Reaction::default();
        if self.unconfirmed.is_empty() {
            return reaction;
        }
        let over: Vec<String> = self
            .unconfirmed
            .iter()
            .filter(|key| {
                let one = self.troubles.get(*key);
                one.is_none_or(|one| !may_last(key, &one.event, progress))
            })
            .cloned()
            .collect();
        let why = "not found again since the gateway was restarted";
        for key in over {
            self.unconfirmed.remove(&key);
            self.end_by_time(key, why, now, &mut reaction);
        }
        reaction
    }

    /// When [`Self::pass_time`] has something to do next.
    pub(super) fn next_step(&self, repeat: Option<Duration>) -> Option<UnixTime> {
        let troubles = self.troubles.iter();
        troubles
            .filter_map(|(key, one)| {
                let is_confirmed = !self.unconfirmed.contains(key) && !self.unheard.contains(key);
                one.next_step(key, is_confirmed, repeat)
            })
            .min()
    }

    /// A report was not kept until it could be sent: the next event leads to another, or time does.
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

    /// Forgets troubles that the recipient no longer wants to know of. Returns their keys.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Event) -> bool) -> Vec<String> {
        let troubles = self.troubles.iter();
        let unwanted = troubles.filter(|(_, one)| !is_wanted(&one.event));
        let unwanted: Vec<String> = unwanted.map(|(key, _)| key.clone()).collect();
        for key in &unwanted {
            self.remove(key);
        }
        unwanted
    }

    /// Adds what an earlier process knew, unless more is known already.
    pub(super) fn restore(&mut self, key: String, trouble: Trouble) {
        if self.troubles.contains_key(&key) {
            return;
        }
        let is_heard_again = trouble::confirmation(&key) == Confirmation::Emission;
        match is_heard_again {
            true => self.unheard.insert(key.clone()),
            false => self.unconfirmed.insert(key.clone()),
        };
        self.troubles.insert(key, trouble);
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

    /// Ends a trouble because of what has, or has not, happened by now.
    fn end_by_time(&mut self, key: String, why: &str, now: UnixTime, reaction: &mut Reaction) {
        let Some(one) = self.troubles.get(&key) else {
            return;
        };
        let event = at_end(&one.event, why, now);
        reaction.entries.extend(self.end(&key, &event).flatten());
        reaction.over.push(key);
    }

    /// What was reported before the start has been found again, or is over.
    fn confirm(&mut self, key: &str) {
        self.unconfirmed.remove(key);
        self.unheard.remove(key);
    }

    fn remove(&mut self, key: &str) -> Option<Trouble> {
        self.confirm(key);
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
        self.confirm(&key);
        if !self.troubles.contains_key(&key) && self.troubles.len() >= MAX_TROUBLES {
            let troubles = self.troubles.iter();
            let least = troubles.min_by_key(|(_, one)| (one.severity, one.seen));
            let least = least.map(|(key, _)| key.clone());
            least.and_then(|least| self.remove(&least));
        }
        let one = self.troubles.entry(key.clone()).or_insert_with(|| Trouble {
            event: event.clone(),
            since: event.at,
            seen: now,
            severity: event.severity,
            reported: None,
            told: None,
            reports: 0,
            is_known: false,
        });
        one.set_back(now);
        one.event = event.clone();
        one.seen = now;
        let is_news = event.severity > one.severity || one.is_of_another_kind();
        let is_due = match one.reported {
            None => true,
            Some(at) => one.gap(repeat).is_some_and(|gap| at + gap <= now),
        };
        (is_news || is_due)
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
        one.told = Some(entry.event.kind);
        one.reports = one.reports.saturating_add(1);
        self.changed.insert(key.to_owned());
        Some(entry)
    }
}

/// An event that ends the trouble of another one.
fn at_end(event: &Event, why: &str, now: UnixTime) -> Event {
    Event {
        at: now,
        severity: Severity::Info,
        message: format!("{why}: {}", event.message),
        ..event.clone()
    }
}

/// Returns true if a trouble that an earlier process has reported may last, though this one has not
/// found it yet.
fn may_last(key: &str, event: &Event, progress: &Progress<'_>) -> bool {
    match trouble::confirmation(key) {
        Confirmation::Emission => true,
        Confirmation::Survey(survey) => {
            !(progress.is_complete)(survey) && progress.uptime < trouble::DAY
        }
        Confirmation::Within(time) => progress.uptime < time,
        Confirmation::HealthChecks => {
            let needed = event.upstream.as_ref();
            let needed = needed.and_then(|upstream| progress.checks.get(upstream));
            needed.is_some_and(|needed| progress.uptime < *needed)
        }
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
