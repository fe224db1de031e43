//! What a pass of the manager did and what it could not do, in words for people.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::certificate::TlsCertificate;
use crate::config::model::Origin;
use crate::host::Pattern;
use crate::printable::Printable as _;

/// What a pass did, and everything that is wrong at its end.
#[derive(Debug, Default)]
pub struct Report {
    pub added: Vec<Arc<TlsCertificate>>,
    pub removed: Vec<Arc<TlsCertificate>>,
    /// The new ones of those that took another's place.
    pub changed: Vec<Arc<TlsCertificate>>,
    /// What keeps a certificate from being served as configured. Whatever was served before goes
    /// on being served.
    pub problems: Vec<Problem>,
    /// What is odd, but served.
    pub warnings: Vec<Problem>,
    /// Hosts of sites that no certificate is served for, or none that was valid since the start.
    pub missing: Vec<UncoveredHost>,
    /// How many certificates are loaded.
    pub certificates: usize,
    /// How many certificates CAs are asked for, those that are there among them.
    pub to_obtain: usize,
    /// Files and directories whose changes, or those of links that lead to them, call for a pass.
    pub watch: Arc<BTreeSet<PathBuf>>,
    /// How many certificates have been looked at, of how many; `None` where all have.
    pub loading: Option<(usize, usize)>,
}

impl Report {
    /// Whether no certificate came, went or changed.
    pub fn is_unchanged(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// A host of a site that cannot be served as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncoveredHost {
    pub host: Pattern,
    /// Why, for people.
    pub why: Arc<str>,
}

impl fmt::Display for UncoveredHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no certificate for {}: {}", self.host, self.why)
    }
}

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
    pub(super) fn new(origin: &Origin, file: Option<PathBuf>, message: String) -> Self {
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

/// A certificate that took the place of another, or of none.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) old: Option<Arc<TlsCertificate>>,
    pub(super) new: Option<Arc<TlsCertificate>>,
}
