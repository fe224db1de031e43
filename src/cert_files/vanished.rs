//! Certificates whose files have vanished from a directory: served a moment longer, since a
//! program that replaces files may remove them first.

use std::collections::HashMap;
use std::time::Duration;

use super::files::EntryId;
use crate::clock::UnixTime;

/// How long a valid certificate is served whose file has vanished.
const LINGERS: Duration = Duration::from_secs(5);

/// The entries whose files have vanished, and until when they are served.
#[derive(Default)]
pub(super) struct Vanished(HashMap<EntryId, UnixTime>);

impl Vanished {
    pub(super) fn add(&mut self, id: &EntryId, now: UnixTime) {
        let until = now + LINGERS;
        self.0.entry(id.clone()).or_insert(until);
    }

    pub(super) fn remove(&mut self, id: &EntryId) {
        self.0.remove(id);
    }

    /// When the next of them is no longer served.
    pub(super) fn next_end(&self) -> Option<UnixTime> {
        self.0.values().min().copied()
    }

    /// Those whose time is over.
    pub(super) fn over(&self, now: UnixTime) -> Vec<EntryId> {
        let over = self
            .0
            .iter()
            // A clock that was set back does not keep them.
            .filter(|(_, until)| **until <= now || until.since(now) > LINGERS);
        over.map(|(id, _)| id.clone()).collect()
    }
}
