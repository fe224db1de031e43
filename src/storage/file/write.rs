//! How a file gets its content so that no crash leaves anything but the old or the new.
//!
//! Temporary files are made in `.new` at the storage's root, from where they are renamed, or where
//! that lies on another file system than the value, in a `.new` beside the value. Whoever writes
//! one holds a lock of the system on it, by which what killed writers left is known from what is
//! being written, and swept by the first to use the directory.
//!
//! Many write at once: nothing here is locked while the disk works.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{DIRECTORY_MODE, FILE_MODE, directory, permissions};
use crate::clock::{Clock, SystemClock};

const WORKSHOP: &str = ".new";

/// How old a temporary file that nobody holds is at least when it is swept, in seconds. Its writer
/// takes hold of it just after it was made.
const LEFT_BEHIND: i64 = 60;

/// How often a write is tried where what it needs is removed under its hands.
const ATTEMPTS: u32 = 3;

/// Writes files below a root.
#[derive(Debug)]
pub(super) struct Writer {
    root: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Directories whose entries on the way to them are on the disk.
    durable: BTreeSet<PathBuf>,
    /// Where the temporary files are made for values in directories on another file system.
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

    /// Makes `value` the content of the file `path` by way of a file in `workshop`, which is there.
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
        // Where the file system has no locks, nobody can take this one for left behind either.
        let _ = temporary.as_file().try_lock();
        temporary.write_all(value)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        sync_directory(directory)
    }

    /// Makes `directory` with all above it, durably, and sees to their permissions.
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
        // Also those that are there: whoever made them may not have come to this yet.
        for path in directory.ancestors() {
            let is_inside = path.starts_with(&self.root) && path != self.root;
            if !is_inside && !missing.contains(&path) && path != self.root {
                break;
            }
            match sync_directory(self::directory(path)) {
                // Above the root there may be directories that we can pass but not open.
                Err(error) if !is_inside && error.kind() == ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        permissions::tighten_directories(&self.root, directory)?;
        self.known().durable.insert(directory.to_owned());
        Ok(())
    }

    /// Makes the directory of temporary files `workshop`, or sweeps it when first used.
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

    /// Tries again where a directory or a temporary file was removed meanwhile.
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

    /// Each critical section leaves the sets whole, even where it panics.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one directory where it is not there.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        made => made,
    }
}

/// Waits until the entries of `directory` are on the disk.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems keep directories in order by themselves and know no such call.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// Removes what killed writers left in `workshop`. What fails is left to the next.
fn sweep(workshop: &Path) {
    let oldest = SystemClock.now() - LEFT_BEHIND;
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
