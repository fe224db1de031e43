//! Whether the storage's directory is the one that was in use: where nothing is found in it, that
//! may be so because a file system is not mounted there.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::StorageError;
use super::io_failure;

/// Remembers whether a directory has held anything since the process began.
#[derive(Debug)]
pub(super) struct Presence {
    root: PathBuf,
    was_used: AtomicBool,
}

impl Presence {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            was_used: AtomicBool::new(false),
        }
    }

    /// Makes sure that what is not in the directory may be taken for missing, and may be made. A
    /// directory that has never been there may: this is the first start.
    ///
    /// # Errors
    /// Where the directory was in use and is gone or empty, or is no directory, or leads nowhere.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        let is_used = self.is_used();
        let is_used = is_used.map_err(|error| io_failure("read", &self.root, error))?;
        if is_used {
            self.was_used.store(true, Ordering::Relaxed);
        } else if self.was_used.load(Ordering::Relaxed) {
            return Err(StorageError::Gone {
                path: self.root.clone(),
            });
        }
        Ok(())
    }

    /// Whether the directory holds anything.
    fn is_used(&self) -> io::Result<bool> {
        match fs::read_dir(&self.root) {
            Ok(mut entries) => Ok(entries.next().transpose()?.is_some()),
            // A link that leads nowhere is there, and what it leads to is not.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.root.is_symlink() => {
                Ok(false)
            }
            // Somebody else's, which can be passed: whoever may not even do that has been told.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                fs::metadata(&self.root).map(|_| true)
            }
            Err(error) => Err(error),
        }
    }
}
