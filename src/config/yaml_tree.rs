//! Parses YAML text into a tree that knows the place of each part.
//!
//! Reads the events of the YAML parser, so that every key and value keeps its line and column. All
//! limits on the cost of a file (depth, aliases, number of values) are enforced here. The meaning
//! of keys is up to `check`.

mod brace_escape;
mod syntax;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

pub(super) use self::syntax::SyntaxError;
use self::syntax::{refuse, refuse_depth, refuse_tag, scan_error};

/// How deep lists and mappings may nest.
const MAX_DEPTH: usize = 64;

/// How many values one file may have.
const MAX_NODES: usize = 4_000_000;

/// How many values aliases may repeat in one file.
const MAX_ALIASED_NODES: usize = 100_000;

/// A place in one of the files of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// The number of the file in `Sources`.
    pub(super) file: u32,
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

impl Place {
    /// The beginning of a file.
    pub(super) const fn start(file: u32) -> Self {
        Self {
            file,
            line: 1,
            column: 1,
        }
    }

    /// The end of the last line, if the place lies beyond it.
    fn within(self, text: &str) -> Self {
        let count = u32::try_from(lines(text).count()).unwrap_or(u32::MAX);
        if self.line <= count {
            return self;
        }
        let last = lines(text).last().unwrap_or_default().chars().count();
        Self {
            file: self.file,
            line: count.max(1),
            column: u32::try_from(last + 1).unwrap_or(u32::MAX),
        }
    }

    fn new(file: u32, marker: &Marker) -> Self {
        Self {
            file,
            line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
            column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
        }
    }
}

/// The lines of a file of YAML, in which a carriage return alone ends a line as well (YAML 1.2,
/// section 5.4).
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = ["\r\n", "\n", "\r"];
    let text = ends
        .iter()
        .find_map(|end| text.strip_suffix(end))
        .unwrap_or(text);
    text.split("\r\n").flat_map(|part| part.split(['\n', '\r']))
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    List(Vec<Node>),
    Map(Map),
    Scalar(Scalar),
}

/// The keys of a mapping, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    pub(super) entries: IndexMap<String, Entry>,
    /// Keys that were defined again, for `check` to report.
    pub(super) repeated: Vec<Repeated>,
}

/// A key's place and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Place,
    pub(super) value: Node,
}

/// A key that was defined more than once.
#[derive(Clone, Debug)]
pub(super) struct Repeated {
    pub(super) key: String,
    pub(super) first: Place,
    pub(super) again: Place,
}

/// A scalar as written in the file, including `${…}`: a tree holds no secret from elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Without quotes, so that it may also be a number, a boolean or null.
    pub(super) plain: bool,
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(map) => map.entries.get(key),
            Kind::List(_) | Kind::Scalar(_) => None,
        }
    }

    /// An element, if this is a list that has it.
    pub(super) fn element(&self, index: usize) -> Option<&Self> {
        match &self.kind {
            Kind::List(list) => list.get(index),
            Kind::Map(_) | Kind::Scalar(_) => None,
        }
    }

    /// Returns true if there is no value: nothing, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar(scalar) => scalar.is_null(),
            Kind::List(_) | Kind::Map(_) => false,
        }
    }
}

impl Scalar {
    /// Returns true if there is no value: nothing, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Map {
    /// Adds a key, or notes that it is repeated.
    pub(super) fn insert(&mut self, key: String, entry: Entry) {
        match self.entries.entry(key) {
            Slot::Occupied(slot) => self.repeated.push(Repeated {
                key: slot.key().clone(),
                first: slot.get().key,
                again: entry.key,
            }),
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
        }
    }
}

/// Parses the text of one file; `None` if there is nothing but comments.
pub(super) fn parse(text: &str, file: u32) -> Result<Option<Node>, SyntaxError> {
    let mut tree = Tree::default();
    tree.read_events(text, file)?;
    Ok(tree.root)
}

/// What precedes the first syntax error, as far as it is complete.
pub(super) fn parse_beginning(text: &str, file: u32) -> Option<Node> {
    let mut tree = Tree::default();
    if tree.read_events(text, file).is_err() {
        while !tree.open.is_empty() {
            // The part that ends here had no error so far.
            tree.end_node().ok()?;
        }
    }
    tree.root
}

/// A list or mapping that has not ended yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value, in a mapping.
    key: Option<(String, Place)>,
    /// How many values the tree had before this one.
    nodes_before: usize,
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    /// Values with an anchor, with the number of values in each.
    anchors: IndexMap<usize, (Node, usize)>,
    root: Option<Node>,
    nodes: usize,
    aliased: usize,
}

impl Tree {
    /// Reads a text to its end, or to the first error.
    fn read_events(&mut self, text: &str, file: u32) -> Result<(), SyntaxError> {
        let mut documents = 0;
        let text = brace_escape::escape_braces(text);
        for event in Parser::new_from_str(&text) {
            let (event, span) = event.map_err(|error| scan_error(file, &text, &error))?;
            let place = Place::new(file, &span.start);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(refuse(
                            place,
                            "a second YAML document begins here",
                            "remove the '---', or put the rest into a file of its own and include it",
                        ));
                    }
                }
                Event::Alias(anchor) => self.alias(place, anchor)?,
                Event::Scalar(text, style, anchor, tag) => {
                    refuse_tag(place, tag.is_some())?;
                    let plain = style == ScalarStyle::Plain;
                    let text = brace_escape::unescape_braces(&text);
                    self.value(place, Kind::Scalar(Scalar { text, plain }), anchor)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    refuse_tag(place, tag.is_some())?;
                    self.begin_node(place, Kind::List(Vec::new()), anchor)?;
                }
                Event::MappingStart(anchor, tag) => {
                    refuse_tag(place, tag.is_some())?;
                    self.begin_node(place, Kind::Map(Map::default()), anchor)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end_node()?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, place: Place) -> Result<(), SyntaxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(refuse(
                place,
                "the file has more than 4,000,000 values",
                "split it and include the parts",
            ));
        }
        Ok(())
    }

    fn begin_node(&mut self, place: Place, kind: Kind, anchor: usize) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(refuse_depth(place));
        }
        if matches!(self.open.last(), Some(Open { key: None, node, .. }) if matches!(node.kind, Kind::Map(_)))
        {
            return Err(refuse(
                place,
                "a list or a mapping cannot be a key",
                "write the key as plain text; a value such as '{{ name }}' needs quotes",
            ));
        }
        let nodes_before = self.nodes;
        self.count(place)?;
        self.open.push(Open {
            node: Node { place, kind },
            anchor,
            key: None,
            nodes_before,
        });
        Ok(())
    }

    fn end_node(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let size = self.nodes.saturating_sub(open.nodes_before);
        self.finish(open.node, open.anchor, size)
    }

    fn value(&mut self, place: Place, kind: Kind, anchor: usize) -> Result<(), SyntaxError> {
        self.count(place)?;
        self.finish(Node { place, kind }, anchor, 1)
    }

    fn alias(&mut self, place: Place, anchor: usize) -> Result<(), SyntaxError> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(refuse(
                place,
                "an alias is inside the value that it refers to",
                "write the value out",
            ));
        };
        let (node, size) = (node.clone(), *size);
        self.repeat(place, size)?;
        self.nodes += size;
        self.finish(node, 0, size)
    }

    /// Accounts for a copy of this many values.
    fn repeat(&mut self, place: Place, size: usize) -> Result<(), SyntaxError> {
        self.aliased += size;
        if self.aliased > MAX_ALIASED_NODES {
            return Err(refuse(
                place,
                "anchors and aliases repeat more than 100,000 values",
                "write the values out, or use fewer aliases",
            ));
        }
        Ok(())
    }

    /// Puts a complete value into its parent.
    fn finish(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            self.repeat(node.place, size)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.kind {
            Kind::List(list) => list.push(node),
            Kind::Map(map) => match parent.key.take() {
                Some((key, place)) => map.insert(
                    key,
                    Entry {
                        key: place,
                        value: node,
                    },
                ),
                None => {
                    let Kind::Scalar(scalar) = node.kind else {
                        return Err(refuse(
                            node.place,
                            "a list or a mapping cannot be a key",
                            "write the key as plain text",
                        ));
                    };
                    parent.key = Some((scalar.text, node.place));
                }
            },
            Kind::Scalar(_) => {}
        }
        Ok(())
    }
}
