//! Reads a configuration's files into one located tree.
//!
//! A file may include others by path or pattern. Lists are concatenated, named maps are merged, and
//! anything else that is defined twice is left for `check` to report with both places.

mod glob;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::interpolate::{Environment, interpolate};
use super::problem::{At, Problems, quote};
use super::source::{self, Sources};
use super::yaml_tree::{self, Entry, Kind, Map, Node, Place};

use crate::printable::Printable as _;

/// Lists that several files may add to.
const LISTS: [&str; 3] = ["certificates", "events", "sites"];

/// Maps that several files may add names to.
const MAPS: [&str; 3] = ["dns", "issuers", "upstreams"];

/// Reads files and merges them.
pub(super) struct Reader<'r> {
    pub(super) sources: &'r mut Sources,
    pub(super) problems: &'r mut Problems,
    pub(super) environment: Environment<'r>,
    /// The files so far by their canonical paths, so that each is read only once.
    pub(super) seen: HashMap<PathBuf, IncludedFiles>,
    pub(super) merged: Map,
    /// Whether to use what precedes a syntax error in a file.
    pub(super) salvages: bool,
}

/// A file that has been read.
#[derive(Clone, Debug)]
pub(super) struct IncludedFiles {
    /// Where it is included; `None` for the first file.
    place: Option<Place>,
}

impl Reader<'_> {
    /// Reads a file and everything it includes. `from` is the place of the `include`.
    pub(super) fn file(&mut self, shown: &Path, from: Option<&At<'_>>) {
        let path = source::absolute(shown);
        self.sources.watch(&path);
        if !self.is_first(&path, from) {
            return;
        }
        let text = match source::read_file(&path) {
            Ok(text) => text,
            Err((what, hint)) => {
                match from {
                    Some(at) => {
                        let what = format!("the file {} {what}", name(at, shown));
                        self.problems.broken(at, what, hint);
                    }
                    None => {
                        let file = self.sources.add(shown.to_owned(), path, Arc::from(""));
                        let what = format!("the file {what}");
                        self.problems.file(Place::start(file), what, Some(hint));
                    }
                }
                return;
            }
        };
        let directory = path.parent().unwrap_or(&path).to_owned();
        self.text(shown, directory, &text.into());
    }

    /// Parses a file's text and reads everything it includes.
    pub(super) fn text(&mut self, shown: &Path, directory: PathBuf, text: &Arc<str>) {
        let file = self
            .sources
            .add(shown.to_owned(), directory, Arc::clone(text));
        let root = match yaml_tree::parse(text, file) {
            Ok(Some(root)) if !root.is_null() => root,
            Ok(_) => return,
            Err(error) => {
                self.problems.file(error.place, error.message, error.hint);
                if !self.salvages {
                    return;
                }
                let Some(root) = yaml_tree::parse_beginning(text, file) else {
                    return;
                };
                root
            }
        };
        let Node { place, kind } = root;
        let Kind::Map(mut map) = kind else {
            self.problems.file(
                place,
                "the file holds no keys".to_owned(),
                Some("begin with a key such as 'sites:'".to_owned()),
            );
            return;
        };
        let include = map.entries.shift_remove("include");
        merge_maps(&mut self.merged, map);
        if let Some(entry) = include {
            let mut root = Map::default();
            root.insert("include".to_owned(), entry);
            let root = Node {
                place,
                kind: Kind::Map(root),
            };
            let at = At::root(&root);
            self.include(shown, &at.key("include"));
        }
    }

    /// Reads the files in the list at `at`.
    fn include(&mut self, shown: &Path, at: &At<'_>) {
        let Some(node) = at.node() else { return };
        let Kind::List(list) = &node.kind else {
            if !node.is_null() {
                let message = "expected a list of paths";
                self.problems
                    .broken(at, message, "write it as [\"sites.d/*.yaml\"]");
            }
            return;
        };
        for (index, node) in list.iter().enumerate() {
            let at = at.index(index);
            let Kind::Scalar(scalar) = &node.kind else {
                self.problems
                    .broken(&at, "expected a path", "write it as \"sites.d/*.yaml\"");
                continue;
            };
            let file = node.place.file;
            match interpolate(&scalar.text, file, self.sources, self.environment) {
                Ok(pattern) if pattern.is_empty() => {
                    self.problems
                        .broken(&at, "the path is empty", "name a file or remove it");
                }
                Ok(pattern) => self.pattern(shown, &at, &pattern),
                Err((message, hint)) => self.problems.broken(&at, message, hint),
            }
        }
    }

    /// Reads one file, or all that match a pattern, relative to the file `shown`.
    fn pattern(&mut self, shown: &Path, at: &At<'_>, pattern: &str) {
        // Paths are shown as people wrote them; an absolute pattern replaces the base.
        let file = at.place().file;
        let base = shown.parent().unwrap_or_else(|| Path::new(""));
        if !glob::is_pattern(pattern) {
            let path = base.join(pattern);
            let path = if base.as_os_str().is_empty() {
                // The text may come from no file, but has a directory.
                self.sources.shorten(&self.sources.resolve(file, &path))
            } else {
                path
            };
            self.file(&path, Some(at));
            return;
        }
        let found = glob::find(&self.sources.resolve(file, Path::new(pattern)));
        for directory in &found.directories {
            self.sources.watch(directory);
        }
        if let Some((directory, error)) = found.error {
            let message = format!(
                "the directory {} cannot be read: {error}",
                name(at, &directory)
            );
            let hint = "let the user that Snigate starts as read it";
            self.problems.broken(at, message, hint);
        }
        for path in found.files {
            let path = match path.strip_prefix(self.sources.resolve(file, Path::new(""))) {
                Ok(inside) if !base.as_os_str().is_empty() => base.join(inside),
                _ => self.sources.shorten(&path),
            };
            self.file(&path, Some(at));
        }
    }

    /// Returns true if a file has not been read before; reports it otherwise.
    fn is_first(&mut self, path: &Path, from: Option<&At<'_>>) -> bool {
        let Ok(canonical) = path.canonicalize() else {
            return true;
        };
        let place = from.map(At::place);
        let Some(seen) = self.seen.get(&canonical) else {
            self.seen.insert(canonical, IncludedFiles { place });
            return true;
        };
        if let Some(at) = from {
            let name = name(at, path);
            let message = match seen.place {
                Some(place) => {
                    let place = self.sources.describe(place);
                    format!("the file {name} is included a second time, first at {place}")
                }
                None => format!("the file {name} includes itself"),
            };
            self.problems
                .broken(at, message, "include each file once, and none in a cycle");
        }
        false
    }
}

/// The name of a path in messages, unless it comes from a reference.
fn name(at: &At<'_>, path: &Path) -> String {
    if at.is_reference() {
        at.quoted()
    } else {
        quote(&path.printable().to_string())
    }
}

/// Adds the keys of one file to those of earlier files.
fn merge_maps(into: &mut Map, from: Map) {
    into.repeated.extend(from.repeated);
    for (key, entry) in from.entries {
        let Some(known) = into.entries.get_mut(&key) else {
            into.entries.insert(key, entry);
            continue;
        };
        if LISTS.contains(&&*key) || MAPS.contains(&&*key) {
            if known.value.is_null() {
                *known = entry;
                continue;
            }
            if entry.value.is_null() {
                continue;
            }
        }
        match (&mut known.value.kind, entry.value.kind) {
            (Kind::List(into), Kind::List(from)) if LISTS.contains(&&*key) => into.extend(from),
            (Kind::Map(into), Kind::Map(from)) if MAPS.contains(&&*key) => {
                into.repeated.extend(from.repeated);
                for (name, entry) in from.entries {
                    into.insert(name, entry);
                }
            }
            (_, kind) => {
                let value = Node {
                    place: entry.value.place,
                    kind,
                };
                into.insert(
                    key,
                    Entry {
                        key: entry.key,
                        value,
                    },
                );
            }
        }
    }
}
