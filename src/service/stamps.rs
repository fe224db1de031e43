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
    /// The stamps of `paths`, which have been read since `began`.
    pub(super) fn take(paths: &[PathBuf], began: UnixTime) -> Self {
        let stamped = paths.iter().map(|path| (path.clone(), Stamp::of(path)));
        let files: BTreeMap<_, _> = stamped.collect();
        let sure = files.values().flatten().all(|stamp| stamp.is_sure(began));
        Self { files, sure }
    }

    /// Whether [`Self::have_changed`] sees every change.
    pub(super) fn are_sure(&self) -> bool {
        self.sure
    }

    /// Whether a file is another than it was.
    pub(super) fn have_changed(&self) -> bool {
        self.files
            .iter()
            .any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }
}
