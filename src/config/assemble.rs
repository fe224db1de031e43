//! A configuration that a program puts together, instead of one from files.
//!
//! It takes the way of any other configuration, so that the same defaults and the same checks apply
//! to it. Only reading is left out: `check` looks for mistakes that types rule out.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::problem::Problems;
use super::source::{Sources, absolute};
use super::yaml_tree::{Entry, Kind, Map, Node, Place, Scalar};
use super::{Diagnostics, Loaded, schema, validate};

/// What stands for a file in messages.
const SHOWN: &str = "Engine::builder()";

/// Where everything stands.
const PLACE: Place = Place::start(0);

/// The model of what is written in `raw`. Relative paths are relative to the current directory.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn assemble(raw: &schema::Root) -> Result<Loaded, Diagnostics> {
    let mut sources = Sources::default();
    let mut problems = Problems::default();
    sources.add(PathBuf::from(SHOWN), absolute(Path::new(".")), "".into());
    // Secrets are redacted in it, as in all that is serialized.
    let tree = serde_json::to_value(raw).unwrap_or_default();
    let config = validate::validate(raw, &node(tree), &mut sources, &mut problems, None);
    let errors = problems.errors();
    let list = problems.into_diagnostics(&sources);
    let files = sources.into_watched();
    if errors > 0 {
        return Err(Diagnostics { list, files });
    }
    Ok(Loaded::new(config, list, files))
}

/// A value as if a file had it. What is not given is not written.
fn node(value: Value) -> Node {
    let kind = match value {
        Value::Array(list) => Kind::List(list.into_iter().map(node).collect()),
        Value::Object(entries) => {
            let mut map = Map::default();
            for (key, value) in entries.into_iter().filter(|(_, value)| !value.is_null()) {
                let value = node(value);
                map.insert(key, Entry { key: PLACE, value });
            }
            Kind::Map(map)
        }
        Value::String(text) => Kind::Scalar(Scalar { text, plain: false }),
        other => Kind::Scalar(Scalar {
            text: other.to_string(),
            plain: true,
        }),
    };
    Node { place: PLACE, kind }
}
