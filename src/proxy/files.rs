//! Files in a directory, as requests ask for them: looked up, opened and compared with what the
//! client has. All of this blocks; nothing here knows of connections.

mod beneath;
mod coding;
mod conditions;
mod listing;
mod path;

use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

pub(crate) use self::coding::{Coding, Codings};
pub(crate) use self::conditions::{Conditions, Extent, Version, format_date};
pub(crate) use self::path::FilePath;

use self::beneath::{Opened, Root};
use self::conditions::clamp_modified;
use crate::clock::UnixTime;
use crate::config::model::{self, is_text, media_type};

/// What one request asks for.
#[derive(Debug)]
pub(crate) struct FileQuery {
    pub(crate) files: Arc<model::Files>,
    /// What is tried in turn.
    pub(crate) candidates: Vec<FilePath>,
    /// What the client's path stands for, if a slash at its end is missing: it is redirected if that
    /// is a directory.
    pub(crate) lacks_slash: Option<FilePath>,
    /// The client's path, for listings.
    pub(crate) shown_path: Vec<u8>,
    pub(crate) conditions: Conditions,
    pub(crate) codings: Codings,
    pub(crate) now: UnixTime,
    /// How many octets are read along with the rest.
    pub(crate) first: usize,
}

/// What there is for a request.
#[derive(Debug)]
pub(crate) enum Found {
    File(Box<FoundFile>),
    /// A directory, to whose path a slash is to be added.
    Directory,
    Listing(Bytes),
    Nothing,
    /// The gateway may not read it.
    Forbidden,
    /// The system lacks something to open it with.
    Busy,
}

/// A file that is open.
#[derive(Debug)]
pub(crate) struct FoundFile {
    pub(crate) file: Arc<File>,
    pub(crate) length: u64,
    pub(crate) version: Version,
    pub(crate) extent: Extent,
    pub(crate) media_type: HeaderValue,
    pub(crate) coding: Option<Coding>,
    /// Whether another client may get another coding.
    pub(crate) varies: bool,
    /// The first octets of the extent.
    pub(crate) first: Bytes,
}

impl FileQuery {
    /// Looks for what is asked for.
    ///
    /// # Errors
    /// If the file system fails.
    pub(crate) fn look_up(&self) -> io::Result<Found> {
        match self.try_candidates() {
            Ok(found) => Ok(found),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::ACCESS | Errno::PERM) => Ok(Found::Forbidden),
                Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Ok(Found::Busy),
                _ => Err(error),
            },
        }
    }

    fn try_candidates(&self) -> io::Result<Found> {
        let Some(root) = existing(Root::open(&self.files.root, self.files.symlinks))? else {
            return Ok(Found::Nothing);
        };
        for path in &self.candidates {
            let found = match path.is_directory() {
                true => self.open_directory(&root, path)?,
                false => self.open_file(&root, path.names().to_vec())?,
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(Found::Nothing)
    }

    fn open_directory(&self, root: &Root, path: &FilePath) -> io::Result<Option<Found>> {
        let lacks_slash = self.lacks_slash.as_ref();
        let lacks_slash = lacks_slash.is_some_and(|asked| asked.names() == path.names());
        for name in &self.files.index {
            let names = path.join(name);
            if lacks_slash {
                if let Some(Opened::File(..)) = existing(root.open_path(&names))? {
                    return Ok(Some(Found::Directory));
                }
            } else if let Some(found) = self.open_file(root, names)? {
                return Ok(Some(found));
            }
        }
        if !self.files.list {
            return Ok(None);
        }
        let Some(Opened::Directory(directory)) = existing(root.open_path(path.names()))? else {
            return Ok(None);
        };
        if lacks_slash {
            return Ok(Some(Found::Directory));
        }
        let is_root = path.names().is_empty();
        let shown = &self.shown_path;
        let page = listing::list_directory(&directory, shown, is_root, self.files.hidden)?;
        Ok(Some(Found::Listing(page)))
    }

    fn open_file(&self, root: &Root, mut names: Vec<u8>) -> io::Result<Option<Found>> {
        let Some(Opened::File(plain, metadata)) = existing(root.open_path(&names))? else {
            return Ok(None);
        };
        let media_type = media_type(&String::from_utf8_lossy(&names));
        let varies = is_text(&media_type) || media_type == "application/wasm";
        if varies {
            let length = names.len();
            for coding in self.codings.iter() {
                names.push(b'.');
                names.extend_from_slice(coding.extension().as_bytes());
                // One that cannot be opened is no reason not to serve the file.
                if let Ok(Some(Opened::File(file, metadata))) = existing(root.open_path(&names)) {
                    return self.describe(file, &metadata, media_type, Some(coding), varies);
                }
                names.truncate(length);
            }
        }
        self.describe(plain, &metadata, media_type, None, varies)
    }

    fn describe(
        &self,
        file: File,
        metadata: &Metadata,
        media_type: HeaderValue,
        coding: Option<Coding>,
        varies: bool,
    ) -> io::Result<Option<Found>> {
        let length = metadata.len();
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        let (dash, suffix) = coding.map_or(("", ""), |coding| ("-", coding.token()));
        let version = Version {
            etag: format!("\"{seconds:x}.{nanoseconds:x}-{length:x}{dash}{suffix}\""),
            modified: clamp_modified(seconds, self.now.as_secs()),
        };
        let extent = self.conditions.extent(&version, length);
        let range = extent.octets(length);
        let most = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let file = Arc::new(file);
        let first = match most.min(self.first) {
            0 => Bytes::new(),
            most => read_part(&file, range.start, most)?,
        };
        Ok(Some(Found::File(Box::new(FoundFile {
            file,
            length,
            version,
            extent,
            media_type,
            coding,
            varies,
            first,
        }))))
    }
}

impl Extent {
    /// The octets that are sent of a file with so many.
    pub(crate) fn octets(&self, length: u64) -> std::ops::Range<u64> {
        match self {
            Self::Whole => 0..length,
            Self::Part(part) => part.clone(),
            Self::NotModified | Self::Failed | Self::Unsatisfiable => 0..0,
        }
    }
}

/// Reads so many octets of a file.
///
/// # Errors
/// If there are fewer: the file has been truncated since its length was determined.
pub(crate) fn read_part(file: &File, at: u64, octets: usize) -> io::Result<Bytes> {
    let mut part = vec![0; octets];
    file.read_exact_at(&mut part, at)?;
    Ok(part.into())
}

/// Reads octets of a file that the system has in memory, at most so many; `None` if a disk would have
/// to be waited for.
pub(crate) fn read_cached(file: &File, at: u64, most: usize) -> Option<Bytes> {
    let mut part = vec![0; most];
    let buffers = &mut [IoSliceMut::new(&mut part)];
    let read = preadv2(file, buffers, at, ReadWriteFlags::NOWAIT);
    let count = read.ok().filter(|count| *count > 0)?;
    part.truncate(count);
    Some(part.into())
}

/// What was opened; `None` if there is no such thing beneath the root.
fn existing<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::NAMETOOLONG
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NXIO
                | Errno::ILSEQ,
            ) => Ok(None),
            _ => Err(error),
        },
    }
}
