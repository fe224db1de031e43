//! What a pass of the manager did and what it could not do, in words for people.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::certificate::{Change, TlsCertificate};
use crate::host::Pattern;
use crate::problem::Problem;

/// What a pass did, and everything that is wrong at its end.
#[derive(Debug, Default)]
pub struct Report {
    pub added: Vec<Arc<TlsCertificate>>,
    pub removed: Vec<Arc<TlsCertificate>>,
    /// The certificates that took the place of others.
    pub changed: Vec<Arc<TlsCertificate>>,
    /// What keeps a certificate from being served as configured. What was served before is still
    /// served.
    pub problems: Vec<Problem>,
    /// What is odd, but served.
    pub warnings: Vec<Problem>,
    /// Hosts of sites that no certificate is served for, or none that was valid since the start.
    pub missing: Vec<UncoveredHost>,
    /// How many certificates are loaded.
    pub certificates: usize,
    /// How many certificates CAs are asked for, including those that are there.
    pub to_obtain: usize,
    /// Files and directories whose changes, or those of links that lead to them, call for a pass.
    pub watch: Arc<BTreeSet<PathBuf>>,
    /// How many files have been scanned, of how many; `None` once all have.
    pub loading: Option<(usize, usize)>,
}

impl Report {
    /// Adds a change of a certificate.
    pub(super) fn add(&mut self, change: Change) {
        match (change.old, change.new) {
            (None, Some(new)) => self.added.push(new),
            (Some(_), Some(new)) => self.changed.push(new),
            (Some(old), None) => self.removed.push(old),
            (None, None) => {}
        }
    }

    /// Marks the problems that are not among those `reported` before, which it replaces.
    pub(super) fn mark_new_problems(&mut self, reported: &mut HashSet<String>) {
        let before = std::mem::take(reported);
        for problem in self.problems.iter_mut().chain(&mut self.warnings) {
            let text = problem.to_string();
            problem.is_new = !before.contains(&text);
            reported.insert(text);
        }
    }

    /// Whether no certificate was added, removed or changed.
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
    /// Whether events of its own say why: a certificate is being obtained, or is not valid yet.
    pub is_reported: bool,
    /// Whether its certificate is being obtained, and nothing has kept it yet.
    pub is_awaited: bool,
}

impl fmt::Display for UncoveredHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no certificate for {}: {}", self.host, self.why)
    }
}
