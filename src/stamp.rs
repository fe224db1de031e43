//! Tells whether a file has changed without reading it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::clock::UnixTime;

/// How long after a change a file may change again without a trace in its [`Stamp`]:
/// coarse clocks and file systems give two writes the same time.
const UNSURE: Duration = Duration::from_secs(2);

/// A file's identity, size and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file at `path`, following links; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Its content, for a digest of several.
    pub fn octets(&self) -> impl Iterator<Item = u8> {
        let Self {
            device,
            inode,
            size,
            modified,
            changed,
        } = *self;
        let times = [modified.0, modified.1, changed.0, changed.1];
        let own = [device, inode, size].map(u64::to_be_bytes);
        let times = times.map(i64::to_be_bytes);
        own.into_iter().flatten().chain(times.into_iter().flatten())
    }

    /// Returns true if this stamp, taken at `now`, will differ from that of any later content.
    pub fn is_sure(&self, now: UnixTime) -> bool {
        UnixTime::from_secs(self.changed.0.max(self.modified.0)) < now - UNSURE
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::{Clock, SystemClock};

    #[test]
    fn another_file_has_another_stamp_and_a_fresh_one_is_unsure() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, new) = (dir.path().join("a"), dir.path().join("new"));
        assert_eq!(Stamp::of(&file), None);
        fs::write(&file, "1").expect("written");
        let before = Stamp::of(&file).expect("there");
        fs::read(&file).expect("read");
        assert_eq!(Stamp::of(&file), Some(before), "reading is no change");
        fs::write(&new, "1").expect("written");
        fs::rename(&new, &file).expect("replaced");
        assert_ne!(
            Stamp::of(&file),
            Some(before),
            "the same content in another file"
        );

        let now = SystemClock.now();
        assert!(!before.is_sure(now));
        assert!(before.is_sure(now + UNSURE + 2));
    }
}
