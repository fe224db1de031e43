//! `${NAME}` and `${file:PATH}` in the values of a configuration.
//!
//! The value of a reference goes into the decoded value only: neither the located tree nor any
//! message ever contains it.

use std::borrow::Cow;
use std::env::VarError;
use std::path::Path;

use super::source::{self, Sources};

use crate::printable::Printable as _;

/// The maximum size of a file for `${file:PATH}`, in octets.
const MAX_VALUE: u64 = 1 << 20;

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Result<String, VarError>;

/// What is wrong with a reference, and what to do.
pub(super) type Failure = (String, String);

/// Returns true if a text contains a reference.
pub(super) fn has_reference(text: &str) -> bool {
    text.contains("${")
}

/// Replaces references with their values; `$$` is a plain `$`.
///
/// Relative paths are relative to the directory of `file`.
pub(super) fn interpolate<'t>(
    text: &'t str,
    file: u32,
    sources: &mut Sources,
    environment: Environment<'_>,
) -> Result<Cow<'t, str>, Failure> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let Some((reference, after)) = after.split_once('}') else {
                return Err((
                    "a '${' has no '}'".to_owned(),
                    "close it, or write '$${' for the characters themselves".to_owned(),
                ));
            };
            out.push_str(&value(reference, file, sources, environment)?);
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn value(
    reference: &str,
    file: u32,
    sources: &mut Sources,
    environment: Environment<'_>,
) -> Result<String, Failure> {
    if let Some(path) = reference.strip_prefix("file:") {
        let path = sources.resolve(file, Path::new(path.trim()));
        sources.watch(&path);
        return match source::read_at_most(&path, MAX_VALUE) {
            Ok(mut text) => {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
                Ok(text)
            }
            Err((what, hint)) => Err((format!("the file {} {what}", path.printable()), hint)),
        };
    }
    if !is_variable(reference) {
        return Err((
            format!("'${{{reference}}}' is neither a variable nor 'file:PATH'"),
            "write '${NAME}' or '${file:PATH}', or '$${' for the characters themselves".to_owned(),
        ));
    }
    environment(reference).map_err(|error| match error {
        VarError::NotPresent => (
            format!("the environment variable {reference} is not set"),
            "set it for the process that reads this file, or write '$${' for the characters \
             themselves"
                .to_owned(),
        ),
        VarError::NotUnicode(_) => (
            format!("the environment variable {reference} is not valid UTF-8"),
            "set it to UTF-8 text".to_owned(),
        ),
    })
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|char: char| char.is_ascii_digit())
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_')
}
