//! `files` of routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Switch;

/// Files to serve.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["root"]))]
pub(crate) struct Files {
    /// The directory that they are in.
    pub(crate) root: String,
    /// Names of files that are served for a directory, in order of preference.
    pub(crate) index: Vec<String>,
    /// Paths below `root` that are tried in turn, with placeholders; one that ends in `/` is a
    /// directory.
    #[serde(rename = "try")]
    #[schemars(length(min = 1))]
    pub(crate) candidates: Vec<String>,
    /// Whether directories without an index are listed.
    pub(crate) list: Switch,
    /// Whether files and directories are served whose names begin with a dot. `/.well-known/` is in
    /// any case.
    pub(crate) hidden: Switch,
    /// Whether symbolic links may lead out of `root`.
    pub(crate) symlinks: Switch,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            root: String::new(),
            index: vec!["index.html".to_owned()],
            candidates: vec!["{path}".to_owned(), "{path}/".to_owned()],
            list: Switch::Off,
            hidden: Switch::Off,
            symlinks: Switch::Off,
        }
    }
}
