//! Problems of configured certificates, in words for people.

use std::fmt;
use std::path::PathBuf;

use crate::config::model::Origin;
use crate::printable::Printable as _;

/// One thing that is wrong: where, what, and what to do about it.
///
/// Shown as `FILE:LINE:COLUMN: certificates[3]: /path/x.pem: what; what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The entry of the configuration that it concerns.
    pub origin: Origin,
    /// The certificate's or key's file.
    pub file: Option<PathBuf>,
    /// What is wrong and what to do.
    pub message: String,
    /// Whether the pass before did not have it: log these, and only these.
    pub is_new: bool,
}

impl Problem {
    /// A problem of the entry at `origin`, new until a pass says otherwise.
    pub(crate) fn new(origin: &Origin, file: Option<PathBuf>, message: String) -> Self {
        Self {
            origin: origin.clone(),
            file,
            message,
            is_new: true,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin {
            file,
            line,
            column,
            path,
        } = &self.origin;
        if !file.as_os_str().is_empty() {
            write!(f, "{}:", file.printable())?;
            if *line > 0 {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.printable())?;
        }
        f.write_str(&self.message)
    }
}
