//! The files of a configuration: reads them within limits and remembers which.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::yaml_tree::Place;

use crate::printable::Printable as _;

/// The maximum size of a file of a configuration, in octets.
const MAX_FILE: u64 = 16 << 20;

/// All files of a configuration.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: Vec<Source>,
    /// Every file and directory the configuration depends on.
    watched: Vec<PathBuf>,
}

#[derive(Debug)]
struct Source {
    /// As people know it.
    shown: Arc<PathBuf>,
    /// The base of relative paths in it, absolute.
    directory: PathBuf,
    text: Arc<str>,
    /// Where each line ends, computed on demand.
    line_ends: OnceCell<Vec<usize>>,
}

impl Sources {
    /// Adds a file and returns its number.
    pub(super) fn add(&mut self, shown: PathBuf, directory: PathBuf, text: Arc<str>) -> u32 {
        let number = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.files.push(Source {
            shown: Arc::new(shown),
            directory,
            text,
            line_ends: OnceCell::new(),
        });
        number
    }

    /// Notes that the configuration depends on a file or directory.
    pub(super) fn watch(&mut self, path: &Path) {
        self.watched.push(absolute(path));
    }

    /// Every file and directory the configuration depends on, each once.
    pub(super) fn into_watched(self) -> Vec<PathBuf> {
        let mut watched = self.watched;
        watched.sort_unstable();
        watched.dedup();
        watched
    }

    /// The total size of all texts, in octets.
    pub(super) fn octets(&self) -> usize {
        self.files.iter().map(|source| source.text.len()).sum()
    }

    /// A file's path as people know it.
    pub(super) fn shown(&self, file: u32) -> Arc<PathBuf> {
        self.get(file)
            .map(|source| Arc::clone(&source.shown))
            .unwrap_or_default()
    }

    /// `path` resolved relative to the file that contains it: absolute, without `.` in it.
    pub(super) fn resolve(&self, file: u32, path: &Path) -> PathBuf {
        match self.get(file) {
            Some(source) => absolute(&source.directory.join(path)),
            None => absolute(path),
        }
    }

    /// A path relative to the current directory, if it lies in it.
    pub(super) fn shorten(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(absolute(Path::new("."))) {
            Ok(inside) => inside.to_owned(),
            Err(_) => path.to_owned(),
        }
    }

    /// The line at a place, without its end.
    pub(super) fn line(&self, place: Place) -> Option<&str> {
        let source = self.get(place.file)?;
        let number = usize::try_from(place.line).ok()?.checked_sub(1)?;
        let ends = source.line_ends.get_or_init(|| {
            let octets = source.text.as_bytes();
            // A carriage return alone is one, too, as in `yaml_tree`.
            let ends = memchr::memchr2_iter(b'\r', b'\n', octets)
                .filter(|end| octets.get(*end..end + 2) != Some(b"\r\n"));
            ends.chain([octets.len()]).collect()
        });
        let start = match number.checked_sub(1) {
            Some(before) => ends.get(before)? + 1,
            None => 0,
        };
        let line = source.text.get(start..*ends.get(number)?)?;
        Some(line.trim_end_matches('\r'))
    }

    /// `FILE:LINE:COLUMN`.
    pub(super) fn describe(&self, place: Place) -> String {
        let file = self.shown(place.file);
        format!("{}:{}:{}", file.printable(), place.line, place.column)
    }

    fn get(&self, file: u32) -> Option<&Source> {
        self.files.get(usize::try_from(file).ok()?)
    }
}

/// The absolute form of a path, even if the current directory is gone.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A file's text. The error says what is wrong and what to do.
pub(super) fn read_file(path: &Path) -> Result<String, (String, String)> {
    read_at_most(path, MAX_FILE)
}

/// A file's text, if it has no more octets than `most`.
pub(super) fn read_at_most(path: &Path, most: u64) -> Result<String, (String, String)> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (
            "does not exist".to_owned(),
            "check the path; a relative one is relative to the file it stands in".to_owned(),
        ),
        ErrorKind::PermissionDenied => (
            "cannot be read: permission denied".to_owned(),
            "let the user that Snigate starts as read it".to_owned(),
        ),
        _ => (
            format!("cannot be read: {error}"),
            "check the path".to_owned(),
        ),
    };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().is_ok_and(|data| data.is_dir()) {
        let hint = format!(
            "name a file in it, or include \"{}/*.yaml\"",
            path.printable()
        );
        return Err(("is a directory".to_owned(), hint));
    }
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > most) {
        return Err((
            format!("is larger than {most} bytes"),
            "split it into several files".to_owned(),
        ));
    }
    text(bytes)
}

/// Decodes UTF-8, with or without a byte order mark.
fn text(bytes: Vec<u8>) -> Result<String, (String, String)> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((
            "is encoded in UTF-16".to_owned(),
            "save it as UTF-8".to_owned(),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..good).unwrap_or_default();
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        (
            format!("is not valid UTF-8 in line {line}"),
            "save it as UTF-8".to_owned(),
        )
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
