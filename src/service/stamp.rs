//! Whether files are still as they were when they were read, without reading them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files as they were when they were read.
#[derive(Debug, Default)]
pub(super) struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

impl Stamps {
    /// The files as they are now.
    pub(super) fn now(paths: &[PathBuf]) -> Self {
        let mut stamps = Self::default();
        stamps.add(paths);
        stamps
    }

    /// More files, and all of them as they are now.
    pub(super) fn add(&mut self, paths: &[PathBuf]) {
        self.0.extend(paths.iter().map(|path| (path.clone(), None)));
        for (path, stamp) in &mut self.0 {
            *stamp = Stamp::of(path);
        }
    }

    /// Whether any file is another than it was.
    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }
}

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` where there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_seen_and_reading_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = [dir.path().join("a"), dir.path().join("b")];
        fs::write(&paths[0], "1").expect("written");
        let stamps = Stamps::now(&paths);
        fs::read(&paths[0]).expect("read");
        assert!(!stamps.have_changed());
        fs::write(&paths[1], "1").expect("written");
        assert!(stamps.have_changed(), "a file that was not there");
        let stamps = Stamps::now(&paths);
        fs::write(dir.path().join("new"), "1").expect("written");
        fs::rename(dir.path().join("new"), &paths[0]).expect("replaced");
        assert!(stamps.have_changed(), "the same content in another file");
    }
}
