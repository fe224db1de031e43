//! Members of JSON as CAs really send them: wrong types, `null` and stray prefixes are skipped, not
//! fatal.

use http::Uri;
use serde_json::{Map, Value};

/// The JSON value in a body, whatever surrounds it.
pub(super) fn json(body: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches(|char: char| char.is_whitespace() || char == '\u{feff}');
    let first = |text: &str| {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        values.next()?.ok()
    };
    first(text).or_else(|| first(text.get(text.find('{')?..)?))
}

/// The text of a value: a string, a number or a boolean.
pub(super) fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// The text of a member.
pub(super) fn member(members: &Map<String, Value>, name: &str) -> Option<String> {
    members.get(name).and_then(text)
}

/// The texts in a list; a single text counts as a list of one.
pub(super) fn texts(value: Option<&Value>) -> impl Iterator<Item = String> {
    let values = match value {
        Some(Value::Array(values)) => values.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    values.iter().filter_map(text)
}

/// The member as a word in lower case; empty if it is absent.
pub(super) fn word(members: &Map<String, Value>, name: &str) -> String {
    member(members, name)
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// Completes a URL that may be relative to its host (RFC 3986, section 4.2).
pub(super) fn absolute(base: &Uri, url: &str) -> String {
    let url = url.trim();
    match (base.scheme_str(), base.authority()) {
        (Some(scheme), Some(_)) if url.starts_with("//") => format!("{scheme}:{url}"),
        (Some(scheme), Some(authority)) if url.starts_with('/') => {
            format!("{scheme}://{authority}{url}")
        }
        _ => url.to_owned(),
    }
}

/// The URL in a member.
pub(super) fn url_member(base: &Uri, members: &Map<String, Value>, name: &str) -> Option<String> {
    url_at(base, &member(members, name)?)
}

/// The URL in a text; `None` if it is not one.
pub(super) fn url_at(base: &Uri, text: &str) -> Option<String> {
    let url = absolute(base, text);
    let parsed: Uri = url.parse().ok()?;
    (parsed.scheme().is_some() && parsed.host().is_some()).then_some(url)
}
