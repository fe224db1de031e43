//! Whether the configuration's files are still those that were read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::clock::UnixTime;
use crate::stamp::Stamp;

/// The configuration's files as they were when they were read.
pub(super) struct Stamps {
    files: BTreeMap<PathBuf, Option<Stamp>>,
    /// Whether the stamps are enough to tell that nothing changed. Fresh ones are not: the file
    /// may have changed between its being read and its being stamped.
    sure: bool,
}

impl Stamps {
    pub(super) fn take(paths: &[PathBuf], now: UnixTime) -> Self {
        let stamped = paths.iter().map(|path| (path.clone(), Stamp::of(path)));
        let files: BTreeMap<_, _> = stamped.collect();
        let sure = files.values().flatten().all(|stamp| stamp.is_sure(now));
        Self { files, sure }
    }

    pub(super) fn may_have_changed(&self) -> bool {
        !self.sure
            || self
                .files
                .iter()
                .any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }
}
