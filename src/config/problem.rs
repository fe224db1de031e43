//! Collecting everything that is wrong with a configuration, each thing at its place.
//!
//! [`At`] is a cursor that walks along the located tree beside the decoded values, so that the
//! code that finds a problem never deals with lines or paths. [`Problems`] takes what is found and
//! keeps back what is only a consequence of something reported already.

mod suggestions;

use std::collections::HashSet;
use std::fmt::Write as _;

use super::diagnostic::{Diagnostic, Severity};
use super::interpolate::has_reference;
use super::source::Sources;
use super::yaml_tree::{Kind, Node, Place};

pub(super) use suggestions::{nearest, quote, suggest};

/// How many problems are reported at most: who made more will start with these.
const MAX_PROBLEMS: usize = 1_000;

/// A position in the configuration: a key's path and, where it is written, its node.
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

    /// A key of the mapping here. Where it is not written, its place is that of the mapping.
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

    /// An element of the list here, or the value itself where one stands for a list of one.
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

    /// Whether the key is written in the file.
    pub(super) fn is_written(&self) -> bool {
        self.node.is_some()
    }

    /// The value as it is written, where it is.
    pub(super) fn node(&self) -> Option<&'a Node> {
        self.node
    }

    /// The same key with another place.
    pub(super) fn at_place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Where this is.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The value as the file has it, in quotes: with `${…}`, never with what stands for it.
    pub(super) fn quoted(&self) -> String {
        match self.node.map(|node| &node.kind) {
            Some(Kind::Scalar(scalar)) => quote(&scalar.text),
            Some(Kind::List(_) | Kind::Map(_)) | None => "this".to_owned(),
        }
    }

    /// Whether the value has a reference in it, so that what it stands for is not to be shown.
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

/// Something wrong, or odd, at a place.
#[derive(Debug)]
struct Problem {
    severity: Severity,
    place: Place,
    path: String,
    message: String,
    hint: Option<String>,
}

/// All that has been found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    /// How many were left out beyond the most.
    more: usize,
    errors: usize,
    /// How many of them concern an issuer alone.
    faults: usize,
    /// Paths of values that have the wrong shape, and so are missing from the decoded values.
    broken: Vec<String>,
    /// Paths of keys that are there under a misspelt name.
    lost: HashSet<String>,
    /// Lines that hold a secret, and are not quoted.
    secret_lines: HashSet<(u32, u32)>,
}

impl Problems {
    /// Notes an error in the shape of the file: what follows from it is not reported again.
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

    /// Notes that a key of the mapping here is not there only because it is misspelt.
    pub(super) fn mark_lost(&mut self, at: &At<'_>, key: &str) {
        self.lost.insert(at.key(key).path());
    }

    /// Whether a section is there but misspelt or of the wrong type as a whole.
    pub(super) fn is_lost(&self, section: &str) -> bool {
        self.lost.contains(section) || self.broken.iter().any(|broken| broken == section)
    }

    /// Notes an error in the meaning of a value.
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

    /// Notes an error of a file that an issuer alone needs.
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

    /// Notes an error that stands whatever else is wrong around it.
    pub(super) fn refuse(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (message, hint) = (message.into(), Some(hint.into()));
        self.add(Severity::Error, at.place(), at.path(), message, hint);
    }

    /// Notes something that is accepted but hardly meant.
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

    /// Notes that a file cannot be taken at all.
    pub(super) fn file(&mut self, place: Place, message: String, hint: Option<String>) {
        self.add(Severity::Error, place, String::new(), message, hint);
    }

    /// Notes that the line at this place is not to be quoted.
    pub(super) fn hide_place(&mut self, place: Place) {
        self.secret_lines.insert((place.file, place.line));
    }

    /// Whether the value here, or a part of it, has the wrong shape.
    pub(super) fn is_broken(&self, at: &At<'_>) -> bool {
        !self.broken.is_empty() && self.follows(&at.path())
    }

    /// Whether more problems are only counted, so that hints for them are work for nothing.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    /// How many of the errors concern an issuer alone.
    pub(super) fn faults(&self) -> usize {
        self.faults
    }

    /// How many errors there are.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// All diagnostics in the order of files and lines.
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

    /// Whether a problem at `path` may be but a consequence of a broken value: one at it, in it,
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

/// Whether the key `path` is `outer` or lies in it.
fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
