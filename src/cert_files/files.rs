//! Reads certificate files: whether one changed, what is in it, why it cannot be used.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::sha::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use super::naming::key_beside;
use crate::certificate::der::Der;
use crate::certificate::loader::File as Part;
use crate::certificate::pem::find_der;
use crate::certificate::{CertificateError, FilePath, Fingerprint, Loaded, Loader, Source};
use crate::clock::UnixTime;
use crate::printable::Printable as _;
use crate::stamp::Stamp;

/// A file's content: wiped from memory when dropped, since it may hold a private key.
type Bytes = Zeroizing<Vec<u8>>;

/// The largest file that is read. A chain with its key takes some 10 KiB.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// A certificate by its files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) file: FilePath,
    /// Where the key is; `None` where it is beside the chain, by the same name.
    pub(super) key: Option<Arc<Path>>,
}

impl EntryId {
    /// The chain `name` in `directory`, with its key beside it.
    pub(super) fn beside(directory: &Arc<Path>, name: &OsStr) -> Self {
        Self {
            file: FilePath::new(directory, name),
            key: None,
        }
    }

    /// A chain and a key that stand wherever they are.
    pub(super) fn of_files(chain: &Path, key: &Path) -> Self {
        let is_beside = key != chain && key == key_beside(chain);
        Self {
            file: chain.into(),
            key: (!is_beside).then(|| key.into()),
        }
    }

    pub(super) fn chain(&self) -> PathBuf {
        self.file.to_path()
    }

    pub(super) fn key(&self) -> PathBuf {
        match &self.key {
            Some(key) => key.to_path_buf(),
            None => key_beside(&self.chain()),
        }
    }
}

/// Whether chain and key must be in two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a directory: the key's file need not exist, the chain's may hold the key. Without any
    /// key it may be a bundle of intermediates.
    Directory,
    /// Named in the configuration.
    Files,
}

impl Kind {
    /// The source of a certificate from the files of `id`.
    pub(super) fn source(self, id: &EntryId) -> Source {
        match self {
            Self::Directory => Source::Directory(id.file.clone()),
            Self::Files => Source::File(id.file.clone()),
        }
    }
}

/// A digest of something that is kept for a long time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Print([u8; 16]);

impl Print {
    /// No digest of anything.
    pub(super) const NONE: Self = Self([0; 16]);

    pub(super) fn octets(self) -> [u8; 16] {
        self.0
    }

    pub(super) fn from_octets(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    fn of(hash: Sha256) -> Self {
        let mut print = Self::NONE;
        for (to, from) in print.0.iter_mut().zip(hash.finish()) {
            *to = from;
        }
        print
    }
}

/// The stamps of both files of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamps {
    pub(super) print: Print,
    /// Whether they would differ had the files changed since.
    pub(super) sure: bool,
}

impl Stamps {
    pub(super) fn read_from(id: &EntryId, now: UnixTime) -> Self {
        let (chain, key) = (id.chain(), id.key());
        let first = Stamp::of(&chain);
        let second = if key == chain { first } else { Stamp::of(&key) };
        let mut hash = Sha256::new();
        let mut sure = true;
        for stamp in [first, second] {
            let Some(stamp) = stamp else {
                hash.update(b"none");
                continue;
            };
            sure &= stamp.is_sure(now);
            let octets: Vec<u8> = stamp.octets().collect();
            hash.update(&octets);
        }
        Self {
            print: Print::of(hash),
            sure,
        }
    }
}

/// What an entry's files hold.
pub(super) enum Content {
    /// Intermediates without a key, which the loader has learned.
    Bundle,
    Certificate(Box<Loaded>),
}

/// The result of reading an entry.
pub(super) struct Reading {
    /// Of all that was read, to tell whether it changed.
    pub(super) digest: Print,
    /// `None` where the digest is the one before.
    pub(super) content: Option<Result<Content, (PathBuf, FileError)>>,
}

/// The files of an entry, as they are.
struct Raw {
    chain: Result<Bytes, FileError>,
    /// `None` where there is no file for the key alone.
    key: Option<Result<Bytes, FileError>>,
    digest: Print,
}

impl Raw {
    fn read(id: &EntryId, kind: Kind) -> Self {
        let (chain_path, key_path) = (id.chain(), id.key());
        let chain = read_file(&chain_path);
        let key = if key_path == chain_path {
            None
        } else {
            match (kind, read_file(&key_path)) {
                (Kind::Directory, Err(error)) if error.is_absent() => None,
                (_, key) => Some(key),
            }
        };
        let digest = digest([Some(&chain), key.as_ref()]);
        Self { chain, key, digest }
    }
}

/// How often a pair is read at most that is replaced while it is read.
const READS: usize = 3;

/// Reads the files of an entry, and parses them unless their digest is `before`.
pub(super) fn read_entry(id: &EntryId, kind: Kind, loader: &Loader, before: Print) -> Reading {
    let mut raw = Raw::read(id, kind);
    let mut left = READS;
    loop {
        let Raw { chain, key, digest } = raw;
        let content = (before != digest).then(|| parse(id, kind, loader, chain, key));
        left -= 1;
        if left > 0 && matches!(content, Some(Err(_))) {
            // However they are replaced, one may have been read before and the other after.
            raw = Raw::read(id, kind);
            if raw.digest != digest {
                continue;
            }
        }
        return Reading { digest, content };
    }
}

/// The certificate with this fingerprint and its key, unchecked, from files that are what they were
/// when both were checked: whose digest is `before`.
pub(super) fn read_again(
    id: &EntryId,
    kind: Kind,
    before: Print,
    fingerprint: Fingerprint,
) -> Option<Der> {
    let raw = Raw::read(id, kind);
    if raw.digest != before {
        return None;
    }
    let (chain, key) = (raw.chain.ok()?, raw.key.transpose().ok()?);
    let Some(key) = key else {
        return find_der(&chain, fingerprint);
    };
    // Of the very capacity, so that nothing is moved and left behind unwiped.
    let mut both = Zeroizing::new(Vec::with_capacity(chain.len() + key.len() + 1));
    both.extend_from_slice(&chain);
    both.push(b'\n');
    both.extend_from_slice(&key);
    find_der(&both, fingerprint)
}

fn parse(
    id: &EntryId,
    kind: Kind,
    loader: &Loader,
    chain: Result<Bytes, FileError>,
    key: Option<Result<Bytes, FileError>>,
) -> Result<Content, (PathBuf, FileError)> {
    let in_chain = |error| (id.chain(), error);
    let chain = chain.map_err(in_chain)?;
    let source = match kind {
        Kind::Directory => Source::Directory(id.file.clone()),
        Kind::Files => Source::File(id.file.clone()),
    };
    let loaded = match key {
        Some(key) => {
            let key = key.map_err(|error| (id.key(), error))?;
            loader
                .load_pair(&chain, &key, source)
                .map_err(|(part, error)| {
                    let path = match part {
                        Part::Chain => id.chain(),
                        Part::Key => id.key(),
                    };
                    (path, error.into())
                })?
        }
        None if kind == Kind::Directory && Loader::is_bundle(&chain) => {
            loader
                .add_intermediate(&chain)
                .map_err(|error| in_chain(error.into()))?;
            return Ok(Content::Bundle);
        }
        None => loader.load(&chain, source).map_err(|error| match error {
            CertificateError::NoKey { .. } if kind == Kind::Directory => {
                in_chain(FileError::NoKey(id.key()))
            }
            error => in_chain(error.into()),
        })?,
    };
    Ok(Content::Certificate(Box::new(loaded)))
}

/// Reads a whole file, where it is a regular one of a sane size.
fn read_file(path: &Path) -> Result<Bytes, FileError> {
    // A named pipe would block the open until somebody writes to it.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile);
    }
    if metadata.len() > MAX_FILE {
        return Err(FileError::TooLarge(metadata.len()));
    }
    read_at_most(file, metadata.len())
}

fn read_at_most(file: File, size: u64) -> Result<Bytes, FileError> {
    let capacity = usize::try_from(size).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match u64::try_from(read) {
        Ok(read) if read <= MAX_FILE => Ok(bytes),
        _ => Err(FileError::TooLarge(MAX_FILE + 1)),
    }
}

fn digest(files: [Option<&Result<Bytes, FileError>>; 2]) -> Print {
    let mut hash = Sha256::new();
    for file in files.into_iter().flatten() {
        match file {
            Ok(bytes) => {
                hash.update(&bytes.len().to_be_bytes());
                hash.update(bytes);
            }
            Err(error) => hash.update(error.to_string().as_bytes()),
        }
    }
    Print::of(hash)
}

/// Why a certificate's file cannot be used.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot be read: {0}; check that it is there and that this user may read it")]
    Io(#[from] io::Error),
    #[error("holds no private key, and there is no {}", .0.printable())]
    NoKey(PathBuf),
    #[error("is not a regular file")]
    NotAFile,
    #[error(
        "is {0} bytes long, and certificate files of more than {MAX_FILE} are not read; is it the \
         right file?"
    )]
    TooLarge(u64),
}

impl FileError {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::certificate::testing::TestCa;

    /// Volumes of Kubernetes replace both files by one link, but they are read one after the other.
    #[test]
    fn a_pair_that_is_replaced_while_it_is_read_is_read_again() {
        let (directory, ca) = (
            tempfile::tempdir().expect("a directory"),
            TestCa::new("files"),
        );
        let path = |name: &str| directory.path().join(name);
        for version in ["one", "two"] {
            let leaf = ca.leaf(&["a.example"]);
            fs::create_dir(path(version)).expect("made");
            fs::write(path(&format!("{version}/tls.pem")), ca.chain(&leaf)).expect("writable");
            fs::write(path(&format!("{version}/tls.key")), &leaf.key).expect("writable");
        }
        symlink("one", path("data")).expect("linked");
        let id = EntryId::of_files(&path("data/tls.pem"), &path("data/tls.key"));
        let loader = Loader::new().expect("a loader");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in ["two", "one"].iter().cycle() {
                    symlink(version, path("next")).expect("linked");
                    fs::rename(path("next"), path("data")).expect("swapped");
                    std::thread::sleep(Duration::from_millis(5));
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for _ in 0..1_000 {
                let reading = read_entry(&id, Kind::Files, &loader, Print::NONE);
                if let Some(Err((path, error))) = reading.content {
                    is_over.store(true, Ordering::Relaxed);
                    panic!("{}: {error}", path.display());
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}
