//! Which requests a route is for: its path, and further conditions.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::HeaderName;
use regex::bytes::{Captures, Regex, RegexBuilder};

/// The most octets that a compiled expression may take.
const MAX_COMPILED: usize = 256 << 10;

/// The most octets that an expression may take to remember the states it has been in.
const MAX_STATES: usize = 512 << 10;

/// The paths that a route covers. A path is compared decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Begins with `/`. It covers whole segments: `/api` and `/api/` both cover `/api/x`; `/api`
    /// covers `/api` but not `/apis`.
    Prefix(Arc<str>),
    /// Begins with `/`, and covers this path only.
    Exact(Arc<str>),
    /// Covers every path in which the expression is found.
    Regex(PathRegex),
}

impl PathMatch {
    /// The path or expression as it is configured.
    pub fn text(&self) -> &str {
        match self {
            Self::Prefix(path) | Self::Exact(path) => path,
            Self::Regex(regex) => regex.text(),
        }
    }
}

impl From<&str> for PathMatch {
    fn from(prefix: &str) -> Self {
        Self::Prefix(prefix.into())
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Prefix(_) => "path",
            Self::Exact(_) => "exact path",
            Self::Regex(_) => "expression",
        };
        write!(f, "{kind} {}", self.text())
    }
}

/// An expression for paths. Copies share what is compiled.
#[derive(Clone)]
pub struct PathRegex {
    text: Arc<str>,
    compiled: Arc<Regex>,
}

impl PathRegex {
    /// Compiles an expression. It is compared octet by octet, and `.` is any octet: no octet in a
    /// path keeps it from being found.
    ///
    /// # Errors
    /// If it is malformed, or larger than allowed once compiled.
    pub fn compile(text: &str) -> Result<Self, regex::Error> {
        let compiled = RegexBuilder::new(text)
            .unicode(false)
            .dot_matches_new_line(true)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_STATES)
            .build()?;
        Ok(Self {
            text: text.into(),
            compiled: Arc::new(compiled),
        })
    }

    /// The expression as it is configured.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The index of a group by its name or number; `None` if there is none.
    pub(crate) fn group(&self, name: &str) -> Option<usize> {
        match name.bytes().all(|octet| octet.is_ascii_digit()) {
            true => {
                let groups = 1..self.compiled.captures_len();
                name.parse().ok().filter(|index| groups.contains(index))
            }
            false => {
                let mut names = self.compiled.capture_names();
                names.position(|one| one == Some(name))
            }
        }
    }

    /// What the groups are in a decoded path, if the expression is found there.
    pub(crate) fn captures<'p>(&self, path: &'p [u8]) -> Option<Captures<'p>> {
        self.compiled.captures(path)
    }

    /// Whether the expression is found in a decoded path.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.compiled.is_match(path)
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathRegex {}

impl Hash for PathRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PathRegex").field(&self.text).finish()
    }
}

/// What a request must have besides its path. Each list is sorted, so that equal conditions are
/// written in one way only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// It has one of these methods; any if there are none.
    pub methods: Vec<Box<str>>,
    /// It has each of these fields.
    pub headers: Vec<HeaderCondition>,
    /// Its query has each of these parameters.
    pub query: Vec<QueryCondition>,
}

/// A field that a request must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderCondition {
    pub name: HeaderName,
    pub value: Expected,
}

/// A parameter that the query of a request must have, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryCondition {
    pub name: Box<str>,
    pub value: Expected,
}

/// The value of a field or parameter that a request must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    Any,
    Exactly(Box<str>),
}

impl Conditions {
    /// How many there are. Of routes for the same path, the one with more conditions is tried first.
    pub fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len()
    }

    /// Whether every request that meets `other` meets these conditions too.
    pub(crate) fn include(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || !other.methods.is_empty()
                && other.methods.iter().all(|one| self.methods.contains(one));
        let headers = self.headers.iter().all(|own| {
            let mut others = other.headers.iter();
            others.any(|one| own.name == one.name && own.value.includes(&one.value))
        });
        let query = self.query.iter().all(|own| {
            let mut others = other.query.iter();
            others.any(|one| own.name == one.name && own.value.includes(&one.value))
        });
        methods && headers && query
    }
}

impl Expected {
    /// Whether a value is as expected.
    pub(crate) fn is_met_by(&self, value: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(text) => text.as_bytes() == value,
        }
    }

    fn includes(&self, other: &Self) -> bool {
        *self == Self::Any || self == other
    }
}

/// The names of what is required, never a value: it may be a secret.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lead = "";
        if !self.methods.is_empty() {
            write!(f, "method {}", self.methods.join(" or "))?;
            lead = ", ";
        }
        for header in &self.headers {
            write!(f, "{lead}header {}", header.name)?;
            lead = ", ";
        }
        for parameter in &self.query {
            write!(f, "{lead}parameter {}", parameter.name)?;
            lead = ", ";
        }
        Ok(())
    }
}

/// A path without escapes. A slash that is data stays escaped, since it is no separator.
pub(crate) fn decode_path(path: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', path).is_none() {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&octet) = path.get(at) {
        let decoded = decode_escape(path, at);
        at += if decoded.is_some() { 3 } else { 1 };
        match decoded {
            Some(b'/') => out.extend_from_slice(b"%2f"),
            decoded => out.push(decoded.unwrap_or(octet)),
        }
    }
    Cow::Owned(out)
}

/// The octet that the escape at `at` stands for; `None` if there is no escape.
pub(crate) fn decode_escape(text: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| {
        text.get(at)
            .and_then(|&octet| char::from(octet).to_digit(16))
    };
    if text.get(at) != Some(&b'%') {
        return None;
    }
    let (high, low) = (digit(at + 1)?, digit(at + 2)?);
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(
        methods: &[&str],
        headers: &[(&str, &str)],
        query: &[(&str, &str)],
    ) -> Conditions {
        let expected = |value: &str| match value {
            "*" => Expected::Any,
            value => Expected::Exactly(value.into()),
        };
        Conditions {
            methods: methods.iter().map(|&method| method.into()).collect(),
            headers: headers
                .iter()
                .map(|(name, value)| HeaderCondition {
                    name: name.parse().expect("a name"),
                    value: expected(value),
                })
                .collect(),
            query: query
                .iter()
                .map(|&(name, value)| QueryCondition {
                    name: name.into(),
                    value: expected(value),
                })
                .collect(),
        }
    }

    #[test]
    fn conditions_include_those_that_are_at_least_as_strict() {
        let none = conditions(&[], &[], &[]);
        let get = conditions(&["GET"], &[], &[]);
        let read = conditions(&["GET", "HEAD"], &[], &[]);
        let beta = conditions(&[], &[("x-beta", "*")], &[]);
        let first = conditions(&["GET"], &[("x-beta", "1")], &[]);
        let page = conditions(&[], &[], &[("page", "1")]);
        for (outer, inner, includes) in [
            (&none, &get, true),
            (&get, &none, false),
            (&read, &get, true),
            (&get, &read, false),
            (&beta, &first, true),
            (&first, &beta, false),
            (&get, &first, true),
            (&page, &page, true),
            (&page, &beta, false),
        ] {
            assert_eq!(outer.include(inner), includes, "{outer:?} {inner:?}");
        }
        assert_eq!(
            [&none, &read, &first, &page].map(Conditions::count),
            [0, 1, 2, 1]
        );
    }

    #[test]
    fn an_expression_sees_every_octet_and_is_bounded() {
        let regex = |text: &str| PathRegex::compile(text).expect("valid");
        assert!(regex("^/u/.*/x$").is_match(b"/u/\n\xff/x"));
        assert!(!regex("^/u/x$").is_match(b"/u/x\n"));
        assert!(regex("/[^/]+$").is_match(b"/\xc3\xbc"));
        for large in ["[a-z]{1000}{1000}", "(?u:\\w){5000}"] {
            let error = PathRegex::compile(large).expect_err("too large");
            assert!(matches!(error, regex::Error::CompiledTooBig(_)), "{error}");
        }
    }

    #[test]
    fn escapes_are_decoded_except_for_slashes() {
        for (path, decoded) in [
            ("/a", "/a"),
            ("/%61%2Fb%2e", "/a%2fb."),
            ("/%zz%4", "/%zz%4"),
            ("/%2561", "/%61"),
        ] {
            assert_eq!(&*decode_path(path.as_bytes()), decoded.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_description_has_no_values() {
        let all = conditions(&["GET", "HEAD"], &[("x-key", "secret")], &[("a", "b")]);
        assert_eq!(
            all.to_string(),
            "method GET or HEAD, header x-key, parameter a"
        );
    }
}
