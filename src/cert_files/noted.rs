//! Which entries there is something to say about, found without going through all of them.

use std::collections::BTreeSet;

use super::entry::{self, Entries, Entry};
use super::files::EntryId;
use crate::clock::UnixTime;
use crate::schedule::{Deadlines, Passed};

/// The entries that there is something to say about.
#[derive(Default)]
pub(super) struct Noted {
    ids: BTreeSet<EntryId>,
    /// When there will be something to say about which.
    deadlines: Deadlines<EntryId>,
}

impl Noted {
    pub(super) fn ids(&self) -> impl Iterator<Item = &EntryId> {
        self.ids.iter()
    }

    /// Notes whether there is something to say about an entry, and when there will be.
    pub(super) fn note(&mut self, entry: &Entry, now: UnixTime) {
        if is_odd(entry, now) {
            self.ids.insert(entry.id.clone());
        } else if !self.ids.is_empty() {
            self.ids.remove(&entry.id);
        }
        if let Some(at) = next_change(entry, now)
            && self.deadlines.is_near(at)
        {
            self.deadlines.add(at, entry.id.clone());
        }
    }

    pub(super) fn forget(&mut self, id: &EntryId) {
        self.ids.remove(id);
    }

    /// Certificates begin and end.
    pub(super) fn pass_time(&mut self, entries: &Entries, now: UnixTime) {
        match self.deadlines.pass_time(now) {
            Passed::These(ids) => {
                for entry in ids.iter().filter_map(|id| entries.get(id)) {
                    self.note(entry, now);
                }
            }
            Passed::Unknown => {
                self.ids.clear();
                for entry in entries.iter() {
                    let is_near = |at| self.deadlines.is_near(at);
                    if is_odd(entry, now) || next_change(entry, now).is_some_and(is_near) {
                        self.note(entry, now);
                    }
                }
            }
        }
    }
}

/// Whether there is something to say about an entry.
fn is_odd(entry: &Entry, now: UnixTime) -> bool {
    entry.odd.is_some()
        || entry.certificate.as_ref().is_some_and(|certificate| {
            entry::invalidity(certificate, now).is_some() || certificate.served_until() < now
        })
}

/// When there will next be something to say about a certificate, or no longer.
fn next_change(entry: &Entry, now: UnixTime) -> Option<UnixTime> {
    let certificate = entry.certificate.as_ref()?;
    let life = certificate.served_lifetime();
    let times = [
        life.not_before,
        life.not_after + 1,
        certificate.not_after() + 1,
    ];
    times.into_iter().filter(|time| *time > now).min()
}
