//! The path of a file, of which a million may be in one directory.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The path of a file. All files of a directory share the directory's path, and clones share the
/// name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath {
    directory: Arc<Path>,
    /// Empty if the path does not end in a name.
    name: Arc<OsStr>,
}

impl FilePath {
    /// The file `name` in `directory`.
    pub fn new(directory: &Arc<Path>, name: &OsStr) -> Self {
        Self {
            directory: Arc::clone(directory),
            name: name.into(),
        }
    }

    pub fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The whole path.
    pub fn to_path(&self) -> PathBuf {
        if self.name.is_empty() {
            return self.directory.to_path_buf();
        }
        self.directory.join(&*self.name)
    }
}

impl From<&Path> for FilePath {
    fn from(path: &Path) -> Self {
        let (directory, name) = match (path.parent(), path.file_name()) {
            (Some(directory), Some(name)) => (directory, name),
            _ => (path, OsStr::new("")),
        };
        Self::new(&directory.into(), name)
    }
}

impl From<&str> for FilePath {
    fn from(path: &str) -> Self {
        Self::from(Path::new(path))
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_path(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_it_was() {
        for path in ["/a/b.pem", "b.pem", "/", "/a/..", "a/b/c"] {
            assert_eq!(FilePath::from(path).to_path(), Path::new(path), "{path}");
        }
        let one = FilePath::from("/a/b.pem");
        assert_eq!(
            one,
            FilePath::new(&Path::new("/a").into(), OsStr::new("b.pem"))
        );
        assert_eq!(format!("{one:?}"), "\"/a/b.pem\"");
    }
}
