//! Notices if the storage's directory is not the one that was in use: if it is suddenly empty, a
//! file system may not be mounted.

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

    /// Checks that what is not in the directory is really missing, and may be created. That holds
    /// for a directory that has never existed: this is the first start.
    ///
    /// # Errors
    /// If the directory was in use and is missing or empty, or is not a directory, or is a broken
    /// link.
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

    /// Returns true if the directory holds anything.
    fn is_used(&self) -> io::Result<bool> {
        match fs::read_dir(&self.root) {
            Ok(mut entries) => Ok(entries.next().transpose()?.is_some()),
            // A broken link exists, but its target does not.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.root.is_symlink() => {
                Ok(false)
            }
            // It exists, though we cannot list it. If it cannot even be inspected, that is the error.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                fs::metadata(&self.root).map(|_| true)
            }
            Err(error) => Err(error),
        }
    }
}
