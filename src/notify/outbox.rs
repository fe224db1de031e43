//! What one recipient is still to get: the entries that wait, the notification that is being
//! delivered, and the troubles that it knows of.
//!
//! There is one notification at a time. While it cannot be delivered, entries are collected, so that
//! a recipient that was gone for long gets one digest. What waits is bounded: the least severe make
//! room first, the oldest before the others, and are counted. All of it is kept as values by keys, of
//! which [`Outbox::take_changes`] returns those that have changed; [`Outbox::restore`] is the inverse.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use super::escalation::{Progress, Reaction, Troubles};
use super::{Entry, EntryState, Notification};
use crate::clock::UnixTime;
use crate::event::{Event, Severity};

/// How many entries wait at most.
const MAX_WAITING: usize = 2000;

/// How many octets they take at most, as JSON.
const MAX_OCTETS: usize = 2 << 20;

/// The key of the notification that is being delivered.
const CURRENT: &str = "n";

/// The key of the number of entries that were left out.
const OMITTED: &str = "o";

/// A change of what is kept: a key, and its value if it has one.
pub(super) type Change = (String, Option<Value>);

/// What one recipient is still to get.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    troubles: Troubles,
    /// By the order of their arrival.
    waiting: BTreeMap<u64, Waiting>,
    by_trouble: HashMap<String, u64>,
    octets: usize,
    arrived: u64,
    /// How many entries were lost since the last notification.
    omitted: u64,
    current: Option<Notification>,
    changed: BTreeSet<u64>,
    is_current_changed: bool,
    is_omitted_changed: bool,
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    octets: usize,
}

impl Outbox {
    /// Takes note of an event, see [`Troubles::observe`]. Returns how many entries were lost.
    pub(super) fn observe(
        &mut self,
        event: &Event,
        is_wanted: bool,
        repeat: Option<Duration>,
        now: UnixTime,
    ) -> u64 {
        let reaction = self.troubles.observe(event, is_wanted, repeat, now);
        let lost = self.react(reaction);
        if is_wanted {
            self.update_waiting(event);
        }
        lost
    }

    /// Takes note that time has passed, see [`Troubles::pass_time`]. Returns how many entries were
    /// lost.
    pub(super) fn pass_time(&mut self, repeat: Option<Duration>, now: UnixTime) -> u64 {
        let reaction = self.troubles.pass_time(repeat, now);
        self.react(reaction)
    }

    /// Ends what an earlier process has reported, see [`Troubles::end_unconfirmed`]. Returns how many
    /// entries were lost.
    pub(super) fn end_unconfirmed(&mut self, progress: &Progress<'_>, now: UnixTime) -> u64 {
        let reaction = self.troubles.end_unconfirmed(progress, now);
        self.react(reaction)
    }

    /// When [`Self::pass_time`] has something to do next.
    pub(super) fn next_step(&self, repeat: Option<Duration>) -> Option<UnixTime> {
        self.troubles.next_step(repeat)
    }

    /// Forgets troubles that the recipient no longer wants to know of, and what waits about them.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Event) -> bool) {
        for key in self.troubles.retain(is_wanted) {
            self.drop_waiting(&key);
        }
    }

    /// Counts entries that were lost before they came here.
    pub(super) fn count_lost(&mut self, lost: u64) {
        self.omitted = self.omitted.saturating_add(lost);
        self.is_omitted_changed |= lost > 0;
    }

    /// How many entries wait or are being delivered.
    pub(super) fn depth(&self) -> usize {
        let current = self.current.as_ref();
        self.waiting.len() + current.map_or(0, |current| current.entries.len())
    }

    /// Returns true if entries wait to be composed.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The notification that is to be delivered.
    pub(super) fn current(&self) -> Option<&Notification> {
        self.current.as_ref()
    }

    /// Composes the next notification from what waits, unless there is one: from all of it, or with
    /// `is_single` from the entry that came first. Ends of troubles for which there is no room wait
    /// for the next one: the recipient would take the troubles to last.
    pub(super) fn compose(
        &mut self,
        (gateway, now): (&str, UnixTime),
        is_single: bool,
        max_entries: usize,
    ) {
        if self.current.is_some() || self.waiting.is_empty() {
            return;
        }
        let count = if is_single { 1 } else { self.waiting.len() };
        let mut entries = Vec::with_capacity(count);
        while entries.len() < count
            && let Some(number) = self.waiting.keys().next().copied()
        {
            entries.extend(self.remove(number));
        }
        // The order of arrival remains among equals.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.event.severity));
        let cut = entries.split_off(max_entries.max(1).min(entries.len()));
        let mut omitted = std::mem::take(&mut self.omitted);
        for entry in cut {
            match entry.state {
                EntryState::Recovered => self.insert(entry),
                EntryState::Happened | EntryState::Ongoing => omitted += 1,
            }
        }
        self.is_omitted_changed = true;
        for key in entries.iter().filter_map(|entry| entry.trouble.as_deref()) {
            self.troubles.set_known(key, true);
        }
        self.current = Some(Notification {
            id: new_id(),
            at: now,
            gateway: gateway.to_owned(),
            severity: entries
                .first()
                .map_or(Severity::Info, |entry| entry.event.severity),
            entries,
            omitted: usize::try_from(omitted).unwrap_or(usize::MAX),
        });
        self.is_current_changed = true;
    }

    /// The current notification has been delivered.
    pub(super) fn delivered(&mut self) {
        self.current = None;
        self.is_current_changed = true;
    }

    /// The current notification is not delivered: the recipient does not know of its new troubles.
    pub(super) fn give_up(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        self.is_current_changed = true;
        for entry in current.entries.iter().filter(|entry| entry.repeats == 0) {
            if let Some(key) = &entry.trouble {
                self.troubles.set_known(key, false);
            }
        }
    }

    /// What has changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        // First of all: an entry that is in it must not be lost if the rest is not written.
        if std::mem::take(&mut self.is_current_changed) {
            changes.push((
                CURRENT.to_owned(),
                self.current.as_ref().map(|one| json!(one)),
            ));
        }
        if std::mem::take(&mut self.is_omitted_changed) {
            let omitted = (self.omitted > 0).then(|| json!(self.omitted));
            changes.push((OMITTED.to_owned(), omitted));
        }
        for number in std::mem::take(&mut self.changed) {
            let waiting = self.waiting.get(&number);
            changes.push((waiting_key(number), waiting.map(|one| json!(one.entry))));
        }
        for (key, trouble) in self.troubles.take_changes() {
            changes.push((format!("t/{key}"), trouble.map(|one| json!(one))));
        }
        changes
    }

    /// All of it, for a file that is begun anew.
    pub(super) fn snapshot(&mut self) -> Vec<(String, Value)> {
        self.take_changes();
        let mut all = Vec::new();
        if let Some(current) = &self.current {
            all.push((CURRENT.to_owned(), json!(current)));
        }
        if self.omitted > 0 {
            all.push((OMITTED.to_owned(), json!(self.omitted)));
        }
        let waiting = self.waiting.iter();
        all.extend(waiting.map(|(number, one)| (waiting_key(*number), json!(one.entry))));
        let troubles = self.troubles.iter();
        all.extend(troubles.map(|(key, one)| (format!("t/{key}"), json!(one))));
        all
    }

    /// Adds what an earlier process has kept, before what is there already. What cannot be understood
    /// is left out.
    pub(super) fn restore(&mut self, kept: BTreeMap<String, Value>) {
        let mut entries: Vec<Entry> = Vec::new();
        for (key, value) in kept {
            if key == CURRENT {
                let Ok(current) = serde_json::from_value(value) else {
                    continue;
                };
                match self.current {
                    None => self.current = Some(current),
                    Some(_) => entries.extend(current.entries),
                }
            } else if key == OMITTED {
                self.omitted = self.omitted.saturating_add(value.as_u64().unwrap_or(0));
            } else if let Some(key) = key.strip_prefix("t/") {
                if let Ok(trouble) = serde_json::from_value(value) {
                    self.troubles.restore(key.to_owned(), trouble);
                }
            } else if key.starts_with("p/") {
                entries.extend(serde_json::from_value::<Entry>(value));
            }
        }
        let newer = std::mem::take(&mut self.waiting);
        self.by_trouble.clear();
        (self.octets, self.arrived) = (0, 0);
        let newer = newer.into_values().map(|waiting| waiting.entry);
        for entry in entries.into_iter().chain(newer) {
            self.put(entry);
        }
    }

    fn react(&mut self, reaction: Reaction) -> u64 {
        for key in &reaction.over {
            self.drop_waiting(key);
        }
        let entries = reaction.entries.into_iter();
        entries.map(|entry| self.put(entry)).sum()
    }

    /// Has an entry wait. Returns how many were lost to make room.
    fn put(&mut self, entry: Entry) -> u64 {
        if let Some(key) = &entry.trouble {
            let before = self.drop_waiting(key);
            // It is back before the recipient has heard that it was over.
            if before.is_some_and(|before| before.state == EntryState::Recovered) {
                self.troubles.set_known(key, true);
            }
        }
        self.insert(entry);
        let mut lost = 0;
        while self.waiting.len() > MAX_WAITING || self.octets > MAX_OCTETS {
            let waiting = self.waiting.iter();
            let least = waiting.min_by_key(|(number, one)| (weight(&one.entry), **number));
            let Some(number) = least.map(|(number, _)| *number) else {
                break;
            };
            let key = self.remove(number).and_then(|entry| entry.trouble);
            if let Some(key) = key {
                self.troubles.take_back(&key);
            }
            lost += 1;
        }
        self.count_lost(lost);
        lost
    }

    /// Has an entry wait after all others.
    fn insert(&mut self, entry: Entry) {
        let octets = serde_json::to_vec(&entry).map_or(0, |json| json.len());
        let number = self.arrived;
        self.arrived += 1;
        if let Some(key) = &entry.trouble {
            self.by_trouble.insert(key.clone(), number);
        }
        self.octets += octets;
        self.waiting.insert(number, Waiting { entry, octets });
        self.changed.insert(number);
    }

    /// What waits to be reported about a trouble becomes what was emitted last.
    fn update_waiting(&mut self, event: &Event) {
        let key = super::trouble::key(event);
        let number = key.and_then(|key| self.by_trouble.get(&key).copied());
        let Some(number) = number else { return };
        let Some(one) = self.waiting.get_mut(&number) else {
            return;
        };
        let is_end = one.entry.state == EntryState::Recovered;
        if !is_end && one.entry.event != *event && one.entry.event.severity <= event.severity {
            one.entry.event = event.clone();
            let octets = serde_json::to_vec(&one.entry).map_or(0, |json| json.len());
            self.octets = self.octets - one.octets + octets;
            one.octets = octets;
            self.changed.insert(number);
        }
    }

    /// Drops what waits to be reported about a trouble.
    fn drop_waiting(&mut self, key: &str) -> Option<Entry> {
        let number = self.by_trouble.get(key).copied()?;
        self.remove(number)
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let Waiting { entry, octets } = self.waiting.remove(&number)?;
        self.octets -= octets;
        if let Some(key) = &entry.trouble {
            self.by_trouble.remove(key);
        }
        self.changed.insert(number);
        Some(entry)
    }
}

/// How late an entry makes room. The end of a trouble is as important as an error: without it, an
/// alert that was raised for the trouble stays open.
fn weight(entry: &Entry) -> Severity {
    match entry.state {
        EntryState::Recovered => Severity::Error,
        EntryState::Happened | EntryState::Ongoing => entry.event.severity,
    }
}

/// A name for a notification that no other has.
pub(super) fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// In the order of numbers.
fn waiting_key(number: u64) -> String {
    format!("p/{number:016x}")
}

#[cfg(test)]
mod tests;
