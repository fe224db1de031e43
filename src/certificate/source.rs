//! Where certificates come from.

use std::path::PathBuf;
use std::sync::Arc;

use super::FilePath;

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of a configured directory.
    Directory(FilePath),
    /// A file named in the configuration.
    File(FilePath),
    /// An issuer, by its name in the configuration.
    Issuer(Arc<str>),
    /// A program that uses this library.
    Program,
}

impl Source {
    /// A word for metrics and tables: `directory`, `file`, `program` or the issuer's name.
    pub fn label(&self) -> &str {
        match self {
            Self::Directory(_) => "directory",
            Self::File(_) => "file",
            Self::Issuer(name) => name,
            Self::Program => "program",
        }
    }

    /// The certificate's file; `None` if it is not in a file.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Directory(path) | Self::File(path) => Some(path.to_path()),
            Self::Issuer(_) | Self::Program => None,
        }
    }
}
