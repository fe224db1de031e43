//! Compares a located tree with the schema and decodes what is right.
//!
//! Every unknown key, wrong type, unknown word, and repeated or missing key is reported at its
//! place, all at once. Wrong values are left out of the result, so that the rest can still be
//! validated. References in values (`${…}`) are resolved here.

mod type_words;

use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

use super::interpolate::{Environment, has_reference, interpolate};
use super::problem::{At, Problems, nearest, quote, suggest};
use super::source::Sources;
use super::yaml_tree::{Kind, Map, Node, Scalar};

/// Compares trees with a schema.
pub(super) struct Check<'c> {
    pub(super) schema: &'c Json,
    pub(super) sources: &'c mut Sources,
    pub(super) problems: &'c mut Problems,
    pub(super) environment: Environment<'c>,
}

/// A part of the schema, with references resolved.
#[derive(Clone, Copy)]
struct Shape<'s> {
    json: &'s Json,
    /// The name of the type, if it has one.
    name: Option<&'s str>,
    /// Whether the value is a secret.
    secret: bool,
}

impl Shape<'_> {
    fn is(&self, kind: &str) -> bool {
        self.json.get("type").and_then(Json::as_str) == Some(kind)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.json.get(key).and_then(Json::as_f64)
    }
}

impl<'c> Check<'c> {
    /// Decodes the whole tree.
    pub(super) fn root(&mut self, root: &Node) -> Yaml {
        let at = At::root(root);
        let shape = self.shape(self.schema);
        self.value(&at, root, shape)
            .unwrap_or_else(|| Yaml::Mapping(serde_yaml::Mapping::new()))
    }

    /// Decodes a value; `None` if it is wrong, which is reported.
    fn value(&mut self, at: &At<'_>, node: &Node, shape: Shape<'c>) -> Option<Yaml> {
        if shape.secret {
            self.problems.hide_place(node.place);
        }
        let Some(shape) = self.fitting(node, shape) else {
            return self.unexpected(at, node, shape);
        };
        match &node.kind {
            Kind::Map(map) if shape.is("object") => Some(self.map(at, map, shape)),
            Kind::List(list) if shape.is("array") => self.list(at, list, shape),
            Kind::Scalar(scalar) if scalar.is_null() && shape.is("object") => {
                Some(self.map(at, &Map::default(), shape))
            }
            Kind::Scalar(scalar) if scalar.is_null() && shape.is("array") => {
                self.list(at, &[], shape)
            }
            Kind::Scalar(scalar) => self.scalar(at, node, scalar, shape),
            Kind::Map(_) | Kind::List(_) => self.unexpected(at, node, shape),
        }
    }

    fn map(&mut self, at: &At<'_>, map: &Map, shape: Shape<'c>) -> Yaml {
        let mut out = serde_yaml::Mapping::with_capacity(map.entries.len());
        let properties = shape.json.get("properties").and_then(Json::as_object);
        let others = shape
            .json
            .get("additionalProperties")
            .filter(|json| json.is_object());
        for repeated in &map.repeated {
            let message = format!(
                "the key {} is defined twice, first at {}",
                quote(&repeated.key),
                self.sources.describe(repeated.first),
            );
            let at = at.key(&repeated.key).at_place(repeated.again);
            self.problems.error(&at, message, "keep one of the two");
        }
        // Keys that are present, but misspelled.
        let mut meant: Vec<&str> = Vec::new();
        let mut unknown = false;
        for (key, entry) in &map.entries {
            let here = at.key(key);
            let property = properties.and_then(|properties| properties.get(key));
            let Some(json) = property.or(others) else {
                unknown = true;
                let known = properties
                    .into_iter()
                    .flat_map(|map| map.keys())
                    .map(String::as_str);
                if let Some(near) = nearest(key, known.clone()) {
                    meant.push(near);
                    if !map.entries.contains_key(near) {
                        self.problems.mark_lost(at, near);
                    }
                }
                let hint = match &**key {
                    "<<" => "merge keys are not supported here: write the keys out".to_owned(),
                    "prefix" if known.clone().any(|known| known == "regex") => {
                        "a path without a key is a prefix: write 'path: /PREFIX'".to_owned()
                    }
                    _ => suggest(key, known),
                };
                let message = format!("the key {} is unknown", quote(key));
                self.problems.broken(&here.at_key(), message, hint);
                continue;
            };
            let shape = self.shape(json);
            let value = self.value(&here, &entry.value, shape);
            // A named entry stays, so that references to it are not reported as well.
            let value = match property {
                Some(_) => value,
                None => value.or_else(|| Some(self.placeholder(shape))),
            };
            if let Some(value) = value {
                out.insert(Yaml::String(key.clone()), value);
            }
        }
        self.missing(at, map, shape, &meant);
        if !unknown {
            self.count(at, map, shape);
        }
        Yaml::Mapping(out)
    }

    /// Reports required keys that are missing.
    fn missing(&mut self, at: &At<'_>, map: &Map, shape: Shape<'c>, meant: &[&str]) {
        let required = shape.json.get("required").and_then(Json::as_array);
        for key in required.into_iter().flatten().filter_map(Json::as_str) {
            if !map.entries.contains_key(key) && !meant.contains(&key) {
                let message = format!("the key '{key}' is missing");
                self.problems
                    .broken(&at.key(key), message, format!("add '{key}:'"));
            }
        }
    }

    /// Reports too few or too many of the keys that exclude each other.
    fn count(&mut self, at: &At<'_>, map: &Map, shape: Shape<'c>) {
        let least = shape.number("minProperties").unwrap_or(0.0);
        let none_is_fine = map.entries.is_empty() && least < 1.0;
        let exclusive = shape.number("maxProperties") == Some(1.0);
        if !exclusive || map.entries.len() == 1 || none_is_fine {
            return;
        }
        let properties = shape.json.get("properties").and_then(Json::as_object);
        let known: Vec<_> = properties
            .into_iter()
            .flat_map(|map| map.keys())
            .map(|key| format!("'{key}'"))
            .collect();
        let message = match map.entries.len() {
            0 => "nothing is chosen here",
            _ => "several keys here exclude each other",
        };
        let hint = format!("give exactly one of {}", known.join(", "));
        self.problems.broken(at, message, hint);
    }

    fn list(&mut self, at: &At<'_>, list: &[Node], shape: Shape<'c>) -> Option<Yaml> {
        if list.is_empty() && shape.number("minItems").is_some_and(|least| least > 0.0) {
            self.problems
                .broken(at, "the list is empty", "add at least one entry");
            return None;
        }
        let items = self.shape(shape.json.get("items").unwrap_or(&Json::Null));
        let mut out = Vec::with_capacity(list.len());
        for (index, node) in list.iter().enumerate() {
            let value = self.value(&at.index(index), node, items);
            // An element stays, so that the indices of the others do.
            out.push(value.unwrap_or_else(|| self.placeholder(items)));
        }
        Some(Yaml::Sequence(out))
    }

    fn scalar(
        &mut self,
        at: &At<'_>,
        node: &Node,
        scalar: &Scalar,
        shape: Shape<'c>,
    ) -> Option<Yaml> {
        let file = node.place.file;
        let text = match interpolate(&scalar.text, file, self.sources, self.environment) {
            Ok(text) => text.into_owned(),
            Err((message, hint)) => {
                self.problems.broken(at, message, hint);
                return None;
            }
        };
        let reference = has_reference(&scalar.text);
        if shape.is("string") {
            // A reference always stands for text, whatever it looks like.
            if !reference && type_words::resolve_scalar(scalar) != type_words::Resolved::Text {
                return self.unexpected(at, node, shape);
            }
            if let Some(words) = type_words::words(shape.json)
                && !words.contains(&&*text)
            {
                let near = nearest(&text, words.iter().copied()).filter(|_| !reference);
                let hint = match near {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("give one of {}", words.join(", ")),
                };
                let message = format!("{} is not known here", quote(&scalar.text));
                self.problems.broken(at, message, hint);
                return None;
            }
            return Some(Yaml::String(text));
        }
        if !scalar.plain && !reference {
            return self.unexpected(at, node, shape);
        }
        let text = text.trim();
        let value = if shape.is("integer") {
            text.parse::<u64>().ok().map(Yaml::from)
        } else if shape.is("number") {
            text.parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .map(Yaml::from)
        } else if shape.is("boolean") {
            text.to_ascii_lowercase()
                .parse::<bool>()
                .ok()
                .map(Yaml::from)
        } else {
            None
        };
        let Some(value) = value else {
            return self.unexpected(at, node, shape);
        };
        if let Some(number) = value.as_f64() {
            let least = shape.number("minimum").filter(|least| number < *least);
            let most = shape.number("maximum").filter(|most| number > *most);
            if least.is_some() || most.is_some() {
                let message = format!("{} is out of range", quote(&scalar.text));
                self.problems
                    .broken(at, message, type_words::range(shape.json));
                return None;
            }
        }
        Some(value)
    }

    /// Reports a value of the wrong type.
    fn unexpected(&mut self, at: &At<'_>, node: &Node, shape: Shape<'c>) -> Option<Yaml> {
        let expected = self.describe(shape);
        let found = type_words::found(node, shape.secret);
        let hint = type_words::hint(node, shape.name, shape.json, &expected);
        self.problems
            .broken(at, format!("expected {expected}, found {found}"), hint);
        None
    }

    /// The form among several that a value is meant to have; `None` if it has none of them.
    fn fitting(&self, node: &Node, shape: Shape<'c>) -> Option<Shape<'c>> {
        let Some(forms) = shape.json.get("anyOf").and_then(Json::as_array) else {
            return Some(shape);
        };
        let forms: Vec<_> = forms.iter().map(|json| self.shape(json)).collect();
        let by_kind = |kinds: &[&str]| {
            forms
                .iter()
                .find(|form| kinds.iter().any(|kind| form.is(kind)))
                .copied()
        };
        match &node.kind {
            Kind::Map(_) => by_kind(&["object"]),
            Kind::List(_) => by_kind(&["array"]),
            Kind::Scalar(scalar) if has_reference(&scalar.text) => by_kind(&["string"]),
            Kind::Scalar(scalar) => match type_words::resolve_scalar(scalar) {
                type_words::Resolved::Text => by_kind(&["string"]).filter(|form| {
                    let words = type_words::words(form.json);
                    words.is_none_or(|words| words.contains(&&*scalar.text))
                }),
                type_words::Resolved::Number => by_kind(&["integer", "number"]),
                type_words::Resolved::Truth => by_kind(&["boolean"]),
                type_words::Resolved::Nothing => by_kind(&["object", "array"]),
            },
        }
    }

    /// Describes what is expected.
    fn describe(&self, shape: Shape<'c>) -> String {
        match shape.json.get("anyOf").and_then(Json::as_array) {
            Some(forms) => {
                let forms: Vec<_> = forms
                    .iter()
                    .map(|json| {
                        let form = self.shape(json);
                        type_words::expected(form.name, form.json)
                    })
                    .collect();
                forms.join(" or ")
            }
            None => type_words::expected(shape.name, shape.json),
        }
    }

    /// A value of the right type without a meaning, in place of a wrong one.
    fn placeholder(&self, shape: Shape<'c>) -> Yaml {
        if let Some(forms) = shape.json.get("anyOf").and_then(Json::as_array) {
            return match forms.first() {
                Some(json) => self.placeholder(self.shape(json)),
                None => Yaml::Null,
            };
        }
        if shape.is("object") {
            Yaml::Mapping(serde_yaml::Mapping::new())
        } else if shape.is("array") {
            Yaml::Sequence(Vec::new())
        } else if shape.is("string") {
            let word = type_words::words(shape.json).and_then(|words| words.first().copied());
            Yaml::from(word.unwrap_or_default())
        } else if shape.is("boolean") {
            Yaml::from(false)
        } else {
            Yaml::from(0)
        }
    }

    /// Resolves references to types.
    fn shape(&self, mut json: &'c Json) -> Shape<'c> {
        let mut name = None;
        let mut secret = false;
        // This is the maximum nesting of types: a schema that refers to itself ends here too.
        for _ in 0..8 {
            secret |= json
                .get("writeOnly")
                .and_then(Json::as_bool)
                .unwrap_or(false);
            let only = json.get("allOf").and_then(|all| all.get(0));
            let reference = json
                .get("$ref")
                .and_then(Json::as_str)
                .and_then(|reference| reference.strip_prefix("#/definitions/"));
            let target = reference.and_then(|name| self.schema.get("definitions")?.get(name));
            name = reference.or(name);
            match target.or(only) {
                Some(next) => json = next,
                None => break,
            }
        }
        Shape { json, name, secret }
    }
}
