//! Words for the types of values: what was expected, what was found, how to fix it.

use serde_json::Value as Json;

use crate::config::interpolate::has_reference;
use crate::config::problem::quote;
use crate::config::yaml_tree::{Kind, Node, Scalar};

/// The meaning of a plain scalar in the core schema of YAML 1.2, section 10.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    Nothing,
    Number,
    Text,
    Truth,
}

/// What a scalar means.
pub(super) fn resolve_scalar(scalar: &Scalar) -> Resolved {
    if !scalar.plain {
        return Resolved::Text;
    }
    if scalar.is_null() {
        return Resolved::Nothing;
    }
    let text = &*scalar.text;
    if matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE") {
        return Resolved::Truth;
    }
    if is_number(text) {
        return Resolved::Number;
    }
    Resolved::Text
}

fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.chars().all(|char| char.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.chars().all(|char| char.is_digit(8));
    }
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(bare, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // Rust parses the same decimal forms, and also words such as 'inf'.
    bare.starts_with(|char: char| char.is_ascii_digit() || char == '.')
        && bare.parse::<f64>().is_ok()
}

/// The words that a value can be.
pub(super) fn words(schema: &Json) -> Option<Vec<&str>> {
    let words = schema.get("enum")?.as_array()?;
    Some(words.iter().filter_map(Json::as_str).collect())
}

/// What a type is called.
pub(super) fn expected(name: Option<&str>, schema: &Json) -> String {
    match name {
        Some("Duration") => return "a duration such as 30s".to_owned(),
        Some("Size") => return "a size such as 64KiB".to_owned(),
        _ => {}
    }
    if let Some(words) = words(schema) {
        return match words.as_slice() {
            [one] => format!("'{one}'"),
            several => format!("one of {}", several.join(", ")),
        };
    }
    match schema.get("type").and_then(Json::as_str) {
        Some("array") => "a list",
        Some("boolean") => "true or false",
        Some("integer") => return numbers(schema),
        Some("number") => "a number",
        Some("object") => "a mapping of keys",
        _ => "text",
    }
    .to_owned()
}

/// Whole numbers; if there are only a few, which.
fn numbers(schema: &Json) -> String {
    let bound = |key| schema.get(key).and_then(Json::as_u64);
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) if most.saturating_sub(least) < 4 => {
            let all: Vec<String> = (least..=most).map(|number| number.to_string()).collect();
            format!("one of {}", all.join(", "))
        }
        _ => "a whole number".to_owned(),
    }
}

/// What a word of another program's configuration is called here, where `expected` is.
fn known_elsewhere(word: &str, expected: &str) -> Option<&'static str> {
    let is_balance = expected.contains("round_robin");
    match word {
        "ip_hash" | "source" if is_balance => Some("{ hash: client_ip }"),
        "least_conn" | "leastconn" if is_balance => Some("least_requests"),
        _ => None,
    }
}

/// What the file contains.
pub(super) fn found(node: &Node, secret: bool) -> String {
    let scalar = match &node.kind {
        Kind::List(_) => return "a list".to_owned(),
        Kind::Map(_) => return "a mapping of keys".to_owned(),
        Kind::Scalar(scalar) => scalar,
    };
    if has_reference(&scalar.text) {
        return format!("what {} stands for", quote(&scalar.text));
    }
    let kind = match resolve_scalar(scalar) {
        Resolved::Nothing => return "nothing".to_owned(),
        Resolved::Number => "the number",
        Resolved::Text => "the text",
        Resolved::Truth => "the truth value",
    };
    if secret {
        kind.replace("the", "a")
    } else {
        format!("{kind} {}", quote(&scalar.text))
    }
}

/// How to write a mapping.
const MAPPING: &str = "write lines of 'key: value', or { key: value }";

/// How to fix a wrong type.
pub(super) fn hint(node: &Node, name: Option<&str>, schema: &Json, expected: &str) -> String {
    let kind = schema.get("type").and_then(Json::as_str);
    match &node.kind {
        Kind::Scalar(scalar) if !has_reference(&scalar.text) => {
            let resolved = resolve_scalar(scalar);
            match (name, kind, resolved) {
                (_, _, Resolved::Nothing) => "give a value, or remove the key".to_owned(),
                (Some("Duration"), _, Resolved::Number) => {
                    "add a unit: ms, s, m, h or d".to_owned()
                }
                (_, Some("string"), _)
                    if words(schema).is_none_or(|words| words.contains(&&*scalar.text)) =>
                {
                    "put it in quotes".to_owned()
                }
                (_, Some("object"), _) => MAPPING.to_owned(),
                (_, Some("array"), _) => "write it as a list: [first, second]".to_owned(),
                (_, Some("integer"), Resolved::Number) => {
                    "write a whole number, 0 or more".to_owned()
                }
                (_, Some("integer" | "number" | "boolean"), Resolved::Text) if !scalar.plain => {
                    format!("write {expected} without quotes")
                }
                (_, None, Resolved::Text) if !scalar.plain && is_number(&scalar.text) => {
                    format!("write {expected}, a number without quotes")
                }
                _ => match known_elsewhere(&scalar.text, expected) {
                    Some(here) => format!("write {here}"),
                    None => format!("write {expected}"),
                },
            }
        }
        Kind::List(_) if kind == Some("string") => "write one value without brackets".to_owned(),
        Kind::Map(_) if kind == Some("string") => "write one value without keys".to_owned(),
        Kind::Map(_) if kind == Some("array") => "begin each entry with '- '".to_owned(),
        Kind::List(_) if kind == Some("object") => MAPPING.to_owned(),
        Kind::List(_) | Kind::Map(_) | Kind::Scalar(_) => format!("write {expected}"),
    }
}

/// The range of a number.
pub(super) fn range(schema: &Json) -> String {
    let bound = |key| schema.get(key).filter(|json| json.is_number());
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!("give a number from {least} to {most}"),
        (Some(least), None) => format!("give {least} or more"),
        (None, Some(most)) => format!("give {most} or less"),
        (None, None) => "give another number".to_owned(),
    }
}
