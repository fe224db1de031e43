//! Certificates whose files have vanished from a directory: served a moment longer, since a
//! program that replaces files may remove them first.

use std::fs;

use super::files::EntryId;
use super::{CertFiles, Change};
use crate::certificate::Validity;
use crate::clock::UnixTime;

/// For how many seconds a valid certificate is served whose file has vanished.
const LINGERS: i64 = 5;

impl CertFiles {
    /// Notes that the file of an entry has vanished. One without a valid certificate is forgotten.
    pub(super) fn mark_vanished(&mut self, id: &EntryId, now: UnixTime) -> Option<Change> {
        let certificate = self.entries.get(id)?.certificate.as_ref();
        if certificate.is_none_or(|one| one.validity(now) != Validity::Valid) {
            return self.remove_entry(id);
        }
        let until = now.saturating_add(LINGERS);
        self.vanished.entry(id.clone()).or_insert(until);
        None
    }

    /// When the next of them is no longer served.
    pub(crate) fn next_end(&self) -> Option<UnixTime> {
        self.vanished.values().min().copied()
    }

    /// Forgets the entries whose files stay away.
    pub(crate) fn end_vanished(&mut self, now: UnixTime) -> Vec<Change> {
        let vanished = self.vanished.iter();
        let over: Vec<_> = vanished
            // A clock that was set back does not keep them.
            .filter(|(_, until)| **until <= now || until.saturating_sub(now) > LINGERS)
            .map(|(id, _)| id.clone())
            .collect();
        let mut changes = Vec::new();
        for id in over {
            if fs::symlink_metadata(id.chain()).is_ok() {
                // It is back, and told as a change of its own.
                self.vanished.remove(&id);
            } else {
                changes.extend(self.remove_entry(&id));
            }
        }
        changes
    }
}
