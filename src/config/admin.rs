//! Where the gateway of a configuration accepts commands, even if the rest of the configuration is
//! invalid.
//!
//! Whoever repairs a configuration needs its gateway. A guess could be another gateway, so the
//! default address counts only if certainly no other is configured.

use std::collections::HashMap;
use std::path::Path;

use super::check::Check;
use super::include::Reader;
use super::model::Admin;
use super::problem::Problems;
use super::source::Sources;
use super::yaml_tree::{Kind, Map, Node, Place};
use super::{Loader, schema, validate};
use crate::secret::Secret;

/// The relevant keys of `server`.
const KEYS: [&str; 2] = ["admin", "admin_token"];

impl Loader<'_> {
    /// `server.admin` and `server.admin_token`, from whatever of the files can be read; `None` if
    /// they are unclear.
    pub(super) fn read_admin(&self, path: &Path) -> Option<(Admin, Option<Secret>)> {
        let mut sources = Sources::default();
        let mut problems = Problems::default();
        let mut reader = Reader {
            sources: &mut sources,
            problems: &mut problems,
            environment: self.environment,
            seen: HashMap::new(),
            merged: Map::default(),
            salvages: true,
        };
        reader.file(path, None);
        let merged = reader.merged;
        let is_whole = problems.errors() == 0;
        let root = node(merged);
        let is_written = root
            .entry("server")
            .is_some_and(|server| server.value.entry("admin").is_some());
        if !is_written && (!is_whole || self.may_be_misspelt(&root, &mut sources)) {
            return None;
        }
        self.decode_admin(only_admin(root), &mut sources)
    }

    /// Returns true if a key resembles those that lead to the address.
    fn may_be_misspelt(&self, root: &Node, sources: &mut Sources) -> bool {
        let (_, problems) = self.check(root, sources);
        problems.is_lost("server") || problems.is_lost("server.admin")
    }

    fn decode_admin(&self, root: Node, sources: &mut Sources) -> Option<(Admin, Option<Secret>)> {
        let (decoded, mut problems) = self.check(&root, sources);
        let raw: schema::Root = serde_yaml::from_value(decoded).ok()?;
        let server = validate::validate(&raw, &root, sources, &mut problems, None).server;
        // Other missing keys have been removed here.
        let diagnostics = problems.into_diagnostics(sources);
        let is_wrong = |path: &str| path.starts_with("server.admin");
        if diagnostics.iter().any(|one| is_wrong(&one.path)) {
            return None;
        }
        Some((server.admin, server.admin_token))
    }

    fn check(&self, root: &Node, sources: &mut Sources) -> (serde_yaml::Value, Problems) {
        let schema = schema::schema();
        let mut problems = Problems::default();
        let decoded = Check {
            schema: &schema,
            sources,
            problems: &mut problems,
            environment: self.environment,
        }
        .root(root);
        (decoded, problems)
    }
}

/// A configuration reduced to the keys in question.
fn only_admin(root: Node) -> Node {
    let mut left = Map::default();
    if let Kind::Map(mut map) = root.kind
        && let Some(mut server) = map.entries.shift_remove("server")
    {
        if let Kind::Map(keys) = &mut server.value.kind {
            keys.entries.retain(|key, _| KEYS.contains(&&**key));
            keys.repeated.retain(|one| KEYS.contains(&&*one.key));
        }
        left.insert("server".to_owned(), server);
    }
    node(left)
}

fn node(map: Map) -> Node {
    Node {
        place: Place::start(0),
        kind: Kind::Map(map),
    }
}
