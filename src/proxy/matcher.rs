//! Whether a request is one that a route is for. Nothing here allocates.

use std::sync::Arc;

use super::path;
use super::request::{Fields, Request};
use crate::config::model::{
    self, Conditions, HeaderCondition, PathMatch, PathRegex, QueryCondition, decode_escape,
    decode_path,
};

/// What a route compares requests with.
pub(super) struct Matcher {
    path: PathMatcher,
    /// What a request must have besides.
    conditions: Option<Arc<Conditions>>,
}

/// Paths, percent-decoded.
enum PathMatcher {
    Prefix(Box<[u8]>),
    Exact(Box<[u8]>),
    Regex(PathRegex),
}

/// Why a request is not one that a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch<'a> {
    Path,
    Method(&'a [Box<str>]),
    Header(&'a HeaderCondition),
    Query(&'a QueryCondition),
}

impl Matcher {
    pub(super) fn of(route: &model::Route) -> Self {
        let path = match &route.path {
            PathMatch::Prefix(prefix) => PathMatcher::Prefix(decode_path(prefix.as_bytes()).into()),
            PathMatch::Exact(path) => PathMatcher::Exact(decode_path(path.as_bytes()).into()),
            PathMatch::Regex(regex) => PathMatcher::Regex(regex.clone()),
        };
        Self {
            path,
            conditions: route.conditions.clone(),
        }
    }

    /// Whether the route is for a request with this path, decoded.
    #[inline]
    pub(super) fn matches(&self, path: &[u8], request: &Request<'_>) -> bool {
        self.path.covers(path)
            && match &self.conditions {
                None => true,
                Some(_) => self.condition_mismatches(request).next().is_none(),
            }
    }

    /// Everything that keeps a request with this path from being for the route.
    pub(super) fn mismatches<'a>(
        &'a self,
        path: &[u8],
        request: &'a Request<'_>,
    ) -> impl Iterator<Item = Mismatch<'a>> {
        let path = (!self.path.covers(path)).then_some(Mismatch::Path);
        path.into_iter().chain(self.condition_mismatches(request))
    }

    /// The methods that the route is for, if the method alone keeps a request with this path from it.
    pub(super) fn required_methods<'a>(
        &'a self,
        path: &[u8],
        request: &'a Request<'_>,
    ) -> Option<&'a [Box<str>]> {
        let mut found = self.mismatches(path, request);
        match (found.next(), found.next()) {
            (Some(Mismatch::Method(methods)), None) => Some(methods),
            _ => None,
        }
    }

    fn condition_mismatches<'a>(
        &'a self,
        request: &'a Request<'_>,
    ) -> impl Iterator<Item = Mismatch<'a>> {
        self.conditions.iter().flat_map(move |conditions| {
            let Conditions {
                methods,
                headers,
                query,
            } = &**conditions;
            let has_method =
                methods.is_empty() || methods.iter().any(|one| **one == *request.method);
            let method = (!has_method).then_some(Mismatch::Method(methods));
            let headers = headers
                .iter()
                .filter(move |one| !has_field(request.fields, one));
            let query = query.iter().filter(move |one| !has_parameter(request, one));
            method
                .into_iter()
                .chain(query.map(Mismatch::Query))
                .chain(headers.map(Mismatch::Header))
        })
    }
}

impl PathMatcher {
    #[inline]
    fn covers(&self, path: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => path::covers(prefix, path),
            Self::Exact(exact) => **exact == *path,
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

fn has_field(fields: Fields<'_>, condition: &HeaderCondition) -> bool {
    let wanted = condition.name.as_str().as_bytes();
    fields.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case(wanted) && condition.value.is_met_by(value.trim_ascii())
    })
}

fn has_parameter(request: &Request<'_>, condition: &QueryCondition) -> bool {
    let target = request.origin_form();
    let Some(start) = memchr::memchr(b'?', target) else {
        return false;
    };
    let query = target.get(start + 1..).unwrap_or_default();
    query.split(|&octet| octet == b'&').any(|pair| {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(at).unwrap_or((pair, b""));
        let value = value.get(1..).unwrap_or_default();
        is_encoded(name, &condition.name)
            && match &condition.value {
                model::Expected::Any => true,
                model::Expected::Exactly(text) => is_encoded(value, text),
            }
    })
}

/// Whether `raw` is `text` as it is written in a query: with escapes, and `+` for a space.
fn is_encoded(raw: &[u8], text: &str) -> bool {
    let mut rest = text.bytes();
    let mut at = 0;
    while let Some(&octet) = raw.get(at) {
        let decoded = decode_escape(raw, at);
        at += if decoded.is_some() { 3 } else { 1 };
        let plain = if octet == b'+' { b' ' } else { octet };
        if rest.next() != Some(decoded.unwrap_or(plain)) {
            return false;
        }
    }
    rest.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_compared_decoded() {
        for (raw, text, is_same) in [
            ("a", "a", true),
            ("a+b", "a b", true),
            ("a%20b", "a b", true),
            ("a%2Bb", "a+b", true),
            ("%C3%bc", "\u{fc}", true),
            ("%zz", "%zz", true),
            ("a", "ab", false),
            ("ab", "a", false),
            ("", "", true),
        ] {
            assert_eq!(is_encoded(raw.as_bytes(), text), is_same, "{raw} {text}");
        }
    }
}
