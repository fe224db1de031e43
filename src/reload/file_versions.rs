//! Notices whether the configuration's files have changed since they were read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::clock::UnixTime;
use crate::stamp::Stamp;

/// The configuration's files as they were when they were read.
#[derive(Clone)]
pub(super) struct FileVersions {
    files: BTreeMap<PathBuf, Option<Stamp>>,
    /// Whether the stamps prove that nothing has changed. Fresh ones do not: a file may change again
    /// and look the same, or may have changed between being read and being stamped.
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

    /// The files of `paths` with the stamps they have here, from before they were read; those that
    /// were not known then as they are now.
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

    /// Whether a file has changed.
    pub(super) fn have_changed(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Whether [`Self::have_changed`] notices every change.
    pub(super) fn are_sure(&self) -> bool {
        self.sure
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }
}
