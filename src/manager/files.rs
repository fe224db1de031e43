//! Reads certificate files: whether one changed, what is in it, why it cannot be used.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ahash::RandomState;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::certificate::loader::File as Part;
use crate::certificate::{CertificateError, Loaded, Loader, Source};
use crate::clock::UnixTime;
use crate::stamp::Stamp;

/// A file's content: wiped from memory when dropped, since it may hold a private key.
type Bytes = Zeroizing<Vec<u8>>;

/// The largest file that is read. A chain with its key takes some 10 KiB.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// A certificate by its files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) chain: PathBuf,
    /// The same path where one file holds both.
    pub(super) key: PathBuf,
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

/// The stamps of both files of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps([Option<Stamp>; 2]);

impl Stamps {
    pub(super) fn take(id: &EntryId) -> Self {
        let chain = Stamp::of(&id.chain);
        let key = if id.key == id.chain {
            chain
        } else {
            Stamp::of(&id.key)
        };
        Self([chain, key])
    }

    /// Whether these stamps would differ if the files had changed since, at `now`.
    pub(super) fn are_sure(&self, now: UnixTime) -> bool {
        self.0.iter().flatten().all(|stamp| stamp.is_sure(now))
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
    pub(super) digest: u64,
    /// `None` where the digest is the one before.
    pub(super) content: Option<Result<Content, (PathBuf, FileError)>>,
}

/// Reads the files of an entry, and parses them unless their digest is `before`.
pub(super) fn read(
    id: &EntryId,
    kind: Kind,
    loader: &Loader,
    hasher: &RandomState,
    before: Option<u64>,
) -> Reading {
    let chain = read_file(&id.chain);
    let key = if id.key == id.chain {
        None
    } else {
        match (kind, read_file(&id.key)) {
            (Kind::Directory, Err(error)) if error.is_absent() => None,
            (_, key) => Some(key),
        }
    };
    let digest = digest(hasher, [Some(&chain), key.as_ref()]);
    if before == Some(digest) {
        return Reading {
            digest,
            content: None,
        };
    }
    Reading {
        digest,
        content: Some(parse(id, kind, loader, chain, key)),
    }
}

fn parse(
    id: &EntryId,
    kind: Kind,
    loader: &Loader,
    chain: Result<Bytes, FileError>,
    key: Option<Result<Bytes, FileError>>,
) -> Result<Content, (PathBuf, FileError)> {
    let in_chain = |error| (id.chain.clone(), error);
    let chain = chain.map_err(in_chain)?;
    let source = match kind {
        Kind::Directory => Source::Directory(id.chain.clone()),
        Kind::Files => Source::File(id.chain.clone()),
    };
    let loaded = match key {
        Some(key) => {
            let key = key.map_err(|error| (id.key.clone(), error))?;
            loader
                .load_pair(&chain, &key, source)
                .map_err(|(part, error)| {
                    let path = match part {
                        Part::Chain => &id.chain,
                        Part::Key => &id.key,
                    };
                    (path.clone(), error.into())
                })?
        }
        None if kind == Kind::Directory && Loader::is_bundle(&chain) => {
            loader
                .learn(&chain)
                .map_err(|error| in_chain(error.into()))?;
            return Ok(Content::Bundle);
        }
        None => loader.load(&chain, source).map_err(|error| match error {
            CertificateError::NoKey { .. } if kind == Kind::Directory => {
                in_chain(FileError::NoKey(id.key.clone()))
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

fn digest(hasher: &RandomState, files: [Option<&Result<Bytes, FileError>>; 2]) -> u64 {
    let mut hash = hasher.build_hasher();
    for file in files.into_iter().flatten() {
        match file {
            Ok(bytes) => {
                hash.write_usize(bytes.len());
                hash.write(bytes);
            }
            Err(error) => hash.write(error.to_string().as_bytes()),
        }
    }
    hash.finish()
}

/// Why a certificate's file cannot be used.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot be read: {0}; check that it is there and that this user may read it")]
    Io(#[from] io::Error),
    #[error("holds no private key, and there is no {}", .0.display())]
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
