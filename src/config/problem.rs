//! Collects everything that is wrong with a configuration, each thing at its place.
//!
//! [`At`] is a cursor that moves through the located tree along with the decoded values, so the
//! code that finds a problem never deals with lines or paths. [`Problems`] collects what is found
//! and suppresses what only follows from an earlier problem.

mod suggestions;

use std::collections::HashSet;
use std::fmt::Write as _;

use super::diagnostic::{Diagnostic, Severity};
use super::interpolate::has_reference;
use super::source::Sources;
use super::yaml_tree::{Kind, Node, Place};

pub(super) use suggestions::{nearest, quote, suggest};

/// The maximum number of reported problems: whoever made more will start with these.
const MAX_PROBLEMS: usize = 1_000;

/// A position in the configuration: a key's path and, if it is present, its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
    node: Option<&'a Node>,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The whole configuration.
    pub(super) fn root(node: &'a Node) -> Self {
        Self {
            parent: None,
            step: Step::Root,
            node: Some(node),
            place: node.place,
        }
    }

    /// A key of the mapping here. If it is missing, its place is that of the mapping.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        let node = self
            .node
            .and_then(|node| node.entry(key))
            .map(|entry| &entry.value);
        At {
            parent: Some(self),
            step: Step::Key(key),
            node,
            place: node.map_or(self.place, |node| node.place),
        }
    }

    /// An element of the list here, or the value itself if it stands for a list of one.
    pub(super) fn index(&self, index: usize) -> At<'_> {
        let node = self.node.and_then(|node| match node.kind {
            Kind::Scalar(_) => Some(node),
            Kind::List(_) | Kind::Map(_) => node.element(index),
        });
        At {
            parent: Some(self),
            step: Step::Index(index),
            node,
            place: node.map_or(self.place, |node| node.place),
        }
    }

    /// The place of the key itself rather than of its value.
    pub(super) fn at_key(mut self) -> Self {
        if let (Some(parent), Step::Key(key)) = (self.parent, self.step)
            && let Some(entry) = parent.node.and_then(|node| node.entry(key))
        {
            self.place = entry.key;
        }
        self
    }

    /// Returns true if the key is present in the file.
    pub(super) fn is_written(&self) -> bool {
        self.node.is_some()
    }

    /// The value as written, if it is present.
    pub(super) fn node(&self) -> Option<&'a Node> {
        self.node
    }

    /// The same key with another place.
    pub(super) fn at_place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// The place in the file.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The value as written, in quotes: with `${…}`, never with what it stands for.
    pub(super) fn quoted(&self) -> String {
        match self.node.map(|node| &node.kind) {
            Some(Kind::Scalar(scalar)) => quote(&scalar.text),
            Some(Kind::List(_) | Kind::Map(_)) | None => "this".to_owned(),
        }
    }

    /// Returns true if the value contains a reference, whose value must not be shown.
    pub(super) fn is_reference(&self) -> bool {
        match self.node.map(|node| &node.kind) {
            Some(Kind::Scalar(scalar)) => has_reference(&scalar.text),
            Some(Kind::List(_) | Kind::Map(_)) | None => false,
        }
    }

    /// The path of the key: `sites[3].hosts[0]`.
    pub(super) fn path(&self) -> String {
        let mut path = match self.parent {
            Some(parent) => parent.path(),
            None => String::new(),
        };
        match self.step {
            Step::Root => {}
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Index(index) => {
                let _ = write!(path, "[{index}]");
            }
        }
        path
    }
}

/// A problem at a place.
#[derive(Debug)]
struct Problem {
    severity: Severity,
    place: Place,
    path: String,
    message: String,
    hint: Option<String>,
}

/// All problems so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    /// How many were left out beyond the maximum.
    more: usize,
    errors: usize,
    /// How many errors concern single issuers or upstreams.
    faults: usize,
    /// Paths of values of the wrong shape, which are missing from the decoded values.
    broken: Vec<String>,
    /// Paths of keys that are present under a misspelled name.
    lost: HashSet<String>,
    /// Lines that contain a secret, and are not quoted.
    secret_lines: HashSet<(u32, u32)>,
}

impl Problems {
    /// Reports an error in the shape of the file: its consequences are not reported.
    pub(super) fn broken(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let path = at.path();
        if self.broken.len() < MAX_PROBLEMS {
            self.broken.push(path.clone());
        }
        self.add(
            Severity::Error,
            at.place(),
            path,
            message.into(),
            Some(hint.into()),
        );
    }

    /// Notes that a key of the mapping here is only missing because it is misspelled.
    pub(super) fn mark_lost(&mut self, at: &At<'_>, key: &str) {
        self.lost.insert(at.key(key).path());
    }

    /// Returns true if a section is misspelled or as a whole of the wrong type.
    pub(super) fn is_lost(&self, section: &str) -> bool {
        self.lost.contains(section) || self.broken.iter().any(|broken| broken == section)
    }

    /// Reports an error in the meaning of a value.
    pub(super) fn error(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let path = at.path();
        if !self.follows(&path) {
            self.add(
                Severity::Error,
                at.place(),
                path,
                message.into(),
                Some(hint.into()),
            );
        }
    }

    /// Reports an error in a file that only one issuer or upstream needs.
    pub(super) fn fault(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let before = self.errors;
        self.error(at, message, hint);
        self.faults += self.errors - before;
    }

    /// Reports an error that stands whatever else is wrong around it.
    pub(super) fn refuse(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (message, hint) = (message.into(), Some(hint.into()));
        self.add(Severity::Error, at.place(), at.path(), message, hint);
    }

    /// Reports something that is accepted, but probably not intended.
    pub(super) fn warn(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let path = at.path();
        if !self.follows(&path) {
            self.add(
                Severity::Warning,
                at.place(),
                path,
                message.into(),
                Some(hint.into()),
            );
        }
    }

    /// Reports that a file is unusable.
    pub(super) fn file(&mut self, place: Place, message: String, hint: Option<String>) {
        self.add(Severity::Error, place, String::new(), message, hint);
    }

    /// Notes that the line at this place must not be quoted.
    pub(super) fn hide_place(&mut self, place: Place) {
        self.secret_lines.insert((place.file, place.line));
    }

    /// Returns true if the value here, or a part of it, has the wrong shape.
    pub(super) fn is_broken(&self, at: &At<'_>) -> bool {
        !self.broken.is_empty() && self.follows(&at.path())
    }

    /// Returns true if more problems are only counted, so that hints for them are pointless.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    /// How many errors concern single issuers or upstreams.
    pub(super) fn faults(&self) -> usize {
        self.faults
    }

    /// How many errors there are.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// All diagnostics, ordered by file and line.
    pub(super) fn into_diagnostics(self, sources: &Sources) -> Vec<Diagnostic> {
        let mut list: Vec<_> = self
            .list
            .into_iter()
            .map(|problem| {
                let secret = self
                    .secret_lines
                    .contains(&(problem.place.file, problem.place.line));
                let excerpt = if secret {
                    None
                } else {
                    sources.line(problem.place).map(str::to_owned)
                };
                Diagnostic {
                    severity: problem.severity,
                    file: sources.shown(problem.place.file).as_ref().clone(),
                    line: problem.place.line,
                    column: problem.place.column,
                    path: problem.path,
                    message: problem.message,
                    hint: problem.hint,
                    excerpt,
                }
            })
            .collect();
        list.sort_by(|a, b| a.order().cmp(&b.order()));
        list.dedup();
        if self.more > 0
            && let Some(last) = list.last_mut()
        {
            let more = format!("; {} more problems are not shown", self.more);
            last.message.push_str(&more);
        }
        list
    }

    /// Returns true if a problem at `path` may only follow from a broken value: one at it, in it,
    /// or around it.
    fn follows(&self, path: &str) -> bool {
        self.broken.iter().any(|broken| {
            if path.is_empty() {
                return !broken.contains(['.', '[']);
            }
            within(broken, path) || within(path, broken)
        })
    }

    fn add(
        &mut self,
        severity: Severity,
        place: Place,
        path: String,
        message: String,
        hint: Option<String>,
    ) {
        if severity == Severity::Error {
            self.errors += 1;
        }
        if self.list.len() >= MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        self.list.push(Problem {
            severity,
            place,
            path,
            message,
            hint,
        });
    }
}

/// Returns true if the key `path` is `outer` or lies within it.
fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
