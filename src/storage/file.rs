//! A storage in a directory, with a file for each key.
//!
//! A value is written to a temporary file, synced, and renamed to its place; then the directory is
//! synced: a crash at any point leaves the old or the new value. Files have mode 0600 and
//! directories 0700. A looser mode, which would expose private keys, is corrected and reported.
//!
//! Everything in the directory besides values is hidden: `.new`, temporary files, and `.locks`. The
//! directory may be on a network file system that several machines share. NFS must support locks
//! over the network: version 4, or 3 with its lock service, never the mount options `nolock` and
//! `local_lock`.

mod locks;
mod permissions;
mod presence;
mod watch;
mod write;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use self::locks::{Locks, Taken};
use self::presence::Presence;
use self::write::Writer;
use super::{Key, Lease, LeaseBackend, Stat, Storage, StorageError, Value, Watch};
use crate::clock::UnixTime;

pub use self::locks::LeaseTerms;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Values in files under one directory, which is created on the first write. A handle; clones are
/// the same storage.
#[derive(Clone, Debug)]
pub struct FileStorage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    presence: Presence,
    writer: Writer,
    locks: Arc<Locks>,
}

impl FileStorage {
    /// The storage in the directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::with_terms(root, LeaseTerms::default())
    }

    /// The storage in the directory `root`, with these lease terms, which everything that uses the
    /// directory must share.
    pub fn with_terms(root: impl Into<PathBuf>, terms: LeaseTerms) -> Self {
        let root = root.into();
        Self {
            shared: Arc::new(Shared {
                presence: Presence::new(root.clone()),
                writer: Writer::new(root.clone()),
                locks: Arc::new(Locks::new(root.join(".locks"), terms)),
                root,
            }),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.shared.root.join(key.as_str())
    }
}

impl Storage for FileStorage {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        let path = self.path(key);
        let read = || {
            let mut file = File::open(&path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Ok(None);
            }
            permissions::tighten(&path, &metadata, FILE_MODE);
            permissions::tighten_directories(&self.shared.root, directory(&path))?;
            let size = usize::try_from(metadata.len()).unwrap_or_default();
            // With room to detect the end, so nothing is moved and left behind unwiped.
            let mut value = Zeroizing::new(Vec::with_capacity(size + 1));
            file.read_to_end(&mut value)?;
            Ok(Some(value))
        };
        self.present(read(), "read", &path)
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.shared.presence.check()?;
        let path = self.path(key);
        let written = self.shared.writer.store(&path, value);
        written.map_err(|error| io_failure("write", &path, error))
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let path = self.path(key);
        let remove = || {
            // Only a file is a value.
            if fs::metadata(&path)?.is_dir() {
                return Ok(None);
            }
            fs::remove_file(&path)?;
            write::sync_directory(directory(&path)).map(Some)
        };
        self.present(remove(), "delete", &path).map(|_| ())
    }

    fn rename(&self, from: &Key, to: &Key) -> Result<(), StorageError> {
        let (from, to) = (self.path(from), self.path(to));
        let rename = || {
            fs::rename(&from, &to)?;
            write::sync_directory(directory(&to))?;
            write::sync_directory(directory(&from)).map(Some)
        };
        self.present(rename(), "rename", &from).map(|_| ())
    }

    fn place(&self, key: &Key) -> String {
        self.path(key).display().to_string()
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        let mut keys = Vec::new();
        let mut directories = vec![self.path(prefix)];
        while let Some(directory) = directories.pop() {
            let found = self.list_one(&directory, &mut keys, &mut directories);
            self.present(found.map(Some), "list", &directory)?;
        }
        keys.sort();
        Ok(keys)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        let path = self.path(key);
        let look = || {
            let metadata = fs::metadata(&path)?;
            Ok((!metadata.is_dir()).then(|| Stat {
                size: metadata.len(),
                modified: UnixTime::from_secs(metadata.mtime()),
            }))
        };
        self.present(look(), "read", &path)
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        self.shared.presence.check()?;
        let taken = self.shared.locks.take_lease(key)?;
        Ok(taken.map(|taken| {
            Lease::new(FileLease {
                storage: self.clone(),
                taken,
            })
        }))
    }

    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError> {
        watch::start(self.path(prefix))
    }
}

impl FileStorage {
    /// Turns a missing file into `None`, if it is known to be missing.
    fn present<T>(
        &self,
        found: io::Result<Option<T>>,
        action: &'static str,
        path: &Path,
    ) -> Result<Option<T>, StorageError> {
        match found {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                self.shared.presence.check().map(|()| None)
            }
            found => found.map_err(|error| io_failure(action, path, error)),
        }
    }

    /// Adds the keys in `directory` to `keys`, and the directories in it to `directories`.
    fn list_one(
        &self,
        directory: &Path,
        keys: &mut Vec<Key>,
        directories: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            // Anything else is not ours: temporary files, locks.
            let key = path.strip_prefix(&self.shared.root).ok();
            let Some(key) = key.and_then(Path::to_str).and_then(|key| key.parse().ok()) else {
                continue;
            };
            let kind = entry.file_type()?;
            if kind.is_dir() || kind.is_symlink() && path.is_dir() {
                directories.push(path);
            } else if !Key::is_aside(&key) {
                keys.push(key);
            }
        }
        Ok(())
    }
}

/// A lease, with its storage.
struct FileLease {
    storage: FileStorage,
    taken: Taken,
}

impl LeaseBackend for FileLease {
    fn token(&self) -> u64 {
        self.taken.token()
    }

    fn is_held(&self) -> bool {
        self.taken.is_held()
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        let path = self.storage.path(key);
        let lost = || StorageError::lost(key);
        if !self.is_held() {
            // Without the directory there is no lease, but nobody has taken over either.
            self.storage.shared.presence.check()?;
            return Err(lost());
        }
        // A file can be renamed only from an existing directory, and whoever takes over removes
        // this one first. That makes checking and writing one step.
        let writer = &self.storage.shared.writer;
        let written = match writer.store_from(self.taken.directory(), &path, value) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                match self.taken.while_held(|| writer.store(&path, value)) {
                    Ok(Some(written)) => written,
                    Ok(None) => return Err(lost()),
                    Err(error) => Err(error),
                }
            }
            written => written,
        };
        match written {
            Err(_) if !self.is_held() => {
                self.storage.shared.presence.check()?;
                Err(lost())
            }
            written => written.map_err(|error| io_failure("write", &path, error)),
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn io_failure(action: &'static str, path: &Path, source: io::Error) -> StorageError {
    StorageError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
