//! Routes that serve files.

use std::path::PathBuf;

use super::Template;

/// Which files a route serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The directory that all of them are in.
    pub root: PathBuf,
    /// Names of files that are served for a directory, in order of preference.
    pub index: Vec<Box<str>>,
    /// Paths below the root that are tried in turn. One that ends in `/` is a directory.
    pub candidates: Vec<Template>,
    /// Whether directories without such a file are listed.
    pub list: bool,
    /// Whether files and directories are served whose names begin with a dot.
    pub hidden: bool,
    /// Whether symbolic links may lead out of the root.
    pub symlinks: bool,
}
