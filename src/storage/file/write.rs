//! Writes files so that a crash leaves either the old or the new content.
//!
//! Temporary files are created in `.new` at the storage's root, and renamed from there; if the root
//! is on another file system than the value, in a `.new` beside the value. The writer holds a
//! system lock on its file, which distinguishes it from those that killed writers have left. The
//! first writer to use the directory sweeps these.
//!
//! Many can write at once: nothing here is locked while the disk works.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::{DIRECTORY_MODE, FILE_MODE, directory, permissions};
use crate::clock::{Clock, SystemClock};
use crate::lock::MutexExt;

const WORKSHOP: &str = ".new";

/// How old an unlocked temporary file must be to be swept. Its writer locks it just
/// after creating it.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// How many times a write is tried if what it needs is removed meanwhile.
const ATTEMPTS: u32 = 3;

/// Writes files below a root.
#[derive(Debug)]
pub(super) struct Writer {
    root: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Directories whose path is known to be on the disk.
    durable: BTreeSet<PathBuf>,
    /// The directories of temporary files for values on another file system.
    apart: BTreeMap<PathBuf, PathBuf>,
    /// Directories of temporary files that have been swept.
    swept: BTreeSet<PathBuf>,
}

impl Writer {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            known: Mutex::default(),
        }
    }

    /// Makes `value` the content of the file `path`.
    pub(super) fn store(&self, path: &Path, value: &[u8]) -> io::Result<()> {
        let apart = self.known().apart.get(directory(path)).cloned();
        if let Some(workshop) = apart {
            return self.store_by(&workshop, path, value);
        }
        match self.store_by(&self.root.join(WORKSHOP), path, value) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let workshop = directory(path).join(WORKSHOP);
                self.store_by(&workshop, path, value)?;
                let key = directory(path).to_owned();
                self.known().apart.insert(key, workshop);
                Ok(())
            }
            stored => stored,
        }
    }

    fn store_by(&self, workshop: &Path, path: &Path, value: &[u8]) -> io::Result<()> {
        self.patiently(|| {
            self.make_workshop(workshop)?;
            self.write(workshop, path, value)
        })
    }

    /// Makes `value` the content of the file `path` through a file in `workshop`, which exists.
    pub(super) fn store_from(&self, workshop: &Path, path: &Path, value: &[u8]) -> io::Result<()> {
        self.patiently(|| self.write(workshop, path, value))
    }

    fn write(&self, workshop: &Path, path: &Path, value: &[u8]) -> io::Result<()> {
        let directory = directory(path);
        self.make_directory(directory)?;
        let mut temporary = tempfile::Builder::new()
            .prefix("")
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(workshop)?;
        // If the file system has no locks, nobody can mistake this file for abandoned either.
        let _ = temporary.as_file().try_lock();
        temporary.write_all(value)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        sync_directory(directory)
    }

    /// Creates `directory` with all its parents, durably, and tightens their permissions.
    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        if self.known().durable.contains(directory) && directory.is_dir() {
            return permissions::tighten_directories(&self.root, directory);
        }
        let missing: Vec<&Path> = directory
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .collect();
        for path in missing.iter().rev() {
            create_directory(path)?;
        }
        // Existing ones too: their creator may not have synced them yet.
        for path in directory.ancestors() {
            let is_inside = path.starts_with(&self.root) && path != self.root;
            if !is_inside && !missing.contains(&path) && path != self.root {
                break;
            }
            match sync_directory(self::directory(path)) {
                // Above the root there may be directories that we can pass through but not open.
                Err(error) if !is_inside && error.kind() == ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        permissions::tighten_directories(&self.root, directory)?;
        self.known().durable.insert(directory.to_owned());
        Ok(())
    }

    /// Creates the directory of temporary files `workshop`, or sweeps it on first use.
    fn make_workshop(&self, workshop: &Path) -> io::Result<()> {
        let is_first = self.known().swept.insert(workshop.to_owned());
        if is_first {
            sweep(workshop);
        }
        if !workshop.is_dir() {
            self.make_directory(directory(workshop))?;
            create_directory(workshop)?;
        }
        Ok(())
    }

    /// Retries if a directory or a temporary file was removed meanwhile.
    fn patiently(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut attempt = 1;
        loop {
            match write() {
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                written => return written,
            }
        }
    }

    /// Each critical section leaves the sets whole, even if it panics.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock_unpoisoned()
    }
}

/// Creates one directory if it does not exist.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        made => made,
    }
}

/// Waits until the entries of `directory` are on the disk.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems keep directories consistent by themselves and lack this call.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// Removes what killed writers left in `workshop`. Failures are left to the next.
fn sweep(workshop: &Path) {
    let oldest = (SystemClock.now() - LEFT_BEHIND).as_secs();
    for entry in fs::read_dir(workshop).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_left = |file: &File| {
            let metadata = file.metadata()?;
            let is_old = metadata.is_file() && metadata.mtime() < oldest;
            Ok::<_, io::Error>(is_old && file.try_lock().is_ok())
        };
        // The lock is held until the file is gone.
        if let Ok(file) = File::open(&path)
            && is_left(&file).unwrap_or_default()
        {
            let _ = fs::remove_file(&path);
        }
    }
}
