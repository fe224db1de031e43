//! A storage in a directory, a file for each key.
//!
//! A value is written to a temporary file beside its place, synced, and renamed over it; then the
//! directory is synced: a crash at any point leaves the old or the new value. Files have mode 0600
//! and directories 0700. A looser mode, which exposes private keys, is mended and reported.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Held, Key, Lease, Stat, Storage, StorageError, Value, Watch};

/// The mode bits that let others than the owner in.
const OTHERS: u32 = 0o077;
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Values in files under one directory, which is made when first written to.
#[derive(Clone, Debug)]
pub struct FileStorage {
    root: PathBuf,
}

impl FileStorage {
    /// The storage in the directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Makes the directory of `path` with all above it, and sees to their modes.
    fn make_directory(&self, path: &Path) -> Result<PathBuf, StorageError> {
        let directory = path.parent().unwrap_or(&self.root);
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(|error| failed("create", directory, error))?;
        self.mend_directories(directory)
            .map_err(|error| failed("read", directory, error))?;
        Ok(directory.to_owned())
    }

    /// Sees to the modes of `directory` and all above it, below the root of this storage. The root
    /// may be anybody's directory, and what it holds of ours is closed anyway.
    fn mend_directories(&self, directory: &Path) -> io::Result<()> {
        directory
            .ancestors()
            .take_while(|path| path.starts_with(&self.root) && *path != self.root)
            .try_for_each(|path| {
                mend(path, &fs::metadata(path)?, DIRECTORY_MODE);
                Ok(())
            })
    }
}

impl Storage for FileStorage {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        let path = self.path(key);
        let read = || {
            let mut file = File::open(&path)?;
            let metadata = file.metadata()?;
            mend(&path, &metadata, FILE_MODE);
            self.mend_directories(path.parent().unwrap_or(&self.root))?;
            let size = usize::try_from(metadata.len()).unwrap_or_default();
            let mut value = Zeroizing::new(Vec::with_capacity(size));
            file.read_to_end(&mut value)?;
            Ok(value)
        };
        match read() {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        let path = self.path(key);
        let directory = self.make_directory(&path)?;
        let write = || {
            let mut temporary = tempfile::Builder::new()
                .prefix(".new-")
                .permissions(Permissions::from_mode(FILE_MODE))
                .tempfile_in(&directory)?;
            temporary.write_all(value)?;
            temporary.as_file().sync_all()?;
            temporary.persist(&path)?;
            File::open(&directory)?.sync_all()
        };
        write().map_err(|error: io::Error| failed("write", &path, error))
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => {
                let directory = path.parent().unwrap_or(&self.root);
                File::open(directory)
                    .and_then(|directory| directory.sync_all())
                    .map_err(|error| failed("write", directory, error))
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed("delete", &path, error)),
        }
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        let mut keys = Vec::new();
        let mut directories = vec![self.path(prefix)];
        while let Some(directory) = directories.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(failed("list", &directory, error)),
            };
            for entry in entries {
                let path = entry
                    .map_err(|error| failed("list", &directory, error))?
                    .path();
                // What is no key is not ours: temporary files, locks.
                let key = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
                match key.and_then(|key| key.parse().ok()) {
                    Some(_) if path.is_dir() => directories.push(path),
                    Some(key) => keys.push(key),
                    None => {}
                }
            }
        }
        keys.sort();
        Ok(keys)
    }

    fn store_under(&self, lease: &Lease, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        if !lease.is_held() {
            return Err(StorageError::Lost {
                key: key.to_string(),
            });
        }
        self.store(key, value)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        let path = self.path(key);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(Stat {
                size: metadata.len(),
                modified: metadata.mtime(),
            })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    /// The kernel gives the lock back when the process ends, however it ends.
    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        let name = format!(".{}.lock", key.as_str().replace('/', "+"));
        let path = self.root.join(name);
        self.make_directory(&path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|error| failed("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lease::new(FileLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
        }
    }

    fn watch(&self, _prefix: &Key) -> Result<Watch, StorageError> {
        let (_, changes) = tokio::sync::watch::channel(0);
        Ok(Watch::new(changes, None))
    }
}

struct FileLock(#[expect(dead_code, reason = "held")] File);

impl Held for FileLock {
    fn token(&self) -> u64 {
        0
    }

    fn is_held(&self) -> bool {
        true
    }
}

/// Takes away what `mode` does not grant, and says so.
///
/// A directory with the sticky bit is shared on purpose, like `/tmp`.
fn mend(path: &Path, metadata: &fs::Metadata, mode: u32) {
    let found = metadata.mode() & 0o7777;
    if found & OTHERS == 0 || found & 0o1000 != 0 {
        return;
    }
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => tracing::warn!(
            path = %path.display(),
            found = format_args!("{found:04o}"),
            now = format_args!("{mode:04o}"),
            "others could get at stored keys: mode mended"
        ),
        Err(error) => tracing::error!(
            path = %path.display(),
            found = format_args!("{found:04o}"),
            %error,
            "others can get at stored keys, and the mode cannot be mended"
        ),
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StorageError {
    StorageError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    #[test]
    fn modes_are_tight_and_loose_ones_are_mended() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("data");
        let storage = FileStorage::new(&root);
        let key: Key = "local_ca/root.key".parse().expect("a key");
        storage.store(&key, b"secret").expect("writable");
        let (file, inner) = (root.join("local_ca/root.key"), root.join("local_ca"));
        assert_eq!(
            (mode(&root), mode(&inner), mode(&file)),
            (0o700, 0o700, 0o600)
        );
        // The root may be shared with others: it is left as it is.
        for path in [&root, &inner, &file] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("ours");
        }
        storage.load(&key).expect("readable");
        assert_eq!(
            (mode(&root), mode(&inner), mode(&file)),
            (0o755, 0o700, 0o600)
        );
        let left: Vec<_> = fs::read_dir(&inner).expect("a directory").collect();
        assert_eq!(left.len(), 1, "no temporary file is left");
    }

    #[test]
    fn errors_name_the_path() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(
            directory.path().join("a"),
            "a file where a directory should be",
        )
        .expect("ours");
        let storage = FileStorage::new(directory.path());
        let error = storage
            .store(&"a/b".parse().expect("a key"), b"1")
            .expect_err("no directory");
        assert!(error.to_string().contains("/a"), "{error}");
    }
}
