//! Whether the configuration's files are still those that were read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::clock::UnixTime;
use crate::stamp::Stamp;

/// The configuration's files as they were when they were read.
#[derive(Clone)]
pub(super) struct FileVersions {
    files: BTreeMap<PathBuf, Option<Stamp>>,
    /// Whether the stamps are enough to tell that nothing changed. Fresh ones are not: a file may
    /// change again and look the same, or have changed between its being read and its being
    /// stamped.
    sure: bool,
}

impl FileVersions {
    /// The files as they are now.
    pub(super) fn read_from(paths: &[PathBuf], now: UnixTime) -> Self {
        Self::from_stamps(paths.iter().map(|path| (path, Stamp::of(path))), now)
    }

    /// The same files as they are now.
    pub(super) fn read_again(&self, now: UnixTime) -> Self {
        Self::from_stamps(self.paths().map(|path| (path, Stamp::of(path))), now)
    }

    /// The files of `paths` as they are here, before they were read; those that were not known
    /// then as they are now.
    pub(super) fn with_paths(&self, paths: &[PathBuf], now: UnixTime) -> Self {
        let stamp = |path| match self.files.get(path) {
            Some(before) => *before,
            None => Stamp::of(path),
        };
        Self::from_stamps(paths.iter().map(|path| (path, stamp(path))), now)
    }

    fn from_stamps<'a>(
        stamped: impl Iterator<Item = (&'a PathBuf, Option<Stamp>)>,
        now: UnixTime,
    ) -> Self {
        let stamped = stamped.map(|(path, stamp)| (path.clone(), stamp));
        let files: BTreeMap<_, _> = stamped.collect();
        let sure = files.values().flatten().all(|stamp| stamp.is_sure(now));
        Self { files, sure }
    }

    /// Whether a file is another than it was.
    pub(super) fn have_changed(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Whether [`Self::have_changed`] sees every change.
    pub(super) fn are_sure(&self) -> bool {
        self.sure
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }
}
