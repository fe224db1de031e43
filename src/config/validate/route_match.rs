//! Which requests a route is for, in which order routes are tried, and which are never reached.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use indexmap::IndexMap;

use super::context::Context;
use crate::config::model::{
    Conditions, Expected, HeaderCondition, PathMatch, PathRegex, QueryCondition, Route,
    decode_escape, decode_path,
};
use crate::config::problem::{At, quote};
use crate::config::schema;

/// With how many routes for the same path a route is compared at most, to find out whether it is
/// ever reached.
const MOST_COMPARED: usize = 100;

/// The paths that a route covers; `None` if they are malformed.
pub(super) fn route_path(
    ctx: &mut Context<'_>,
    raw: &schema::RoutePath,
    at: &At<'_>,
) -> Option<PathMatch> {
    match raw {
        schema::RoutePath::Prefix(path) => {
            let hint = "leave out the '*': a route covers everything below its path";
            check_path(ctx, at, path, hint).then(|| PathMatch::Prefix(path.as_str().into()))
        }
        schema::RoutePath::Other(kind) => match (&kind.exact, &kind.regex) {
            (Some(path), None) => {
                let at = at.key("exact");
                let hint = "leave out the '*', or write an expression: { regex: \"^/a/.*$\" }";
                check_path(ctx, &at, path, hint).then(|| PathMatch::Exact(path.as_str().into()))
            }
            (None, Some(text)) => expression(ctx, text, &at.key("regex")).map(PathMatch::Regex),
            // Neither, or both: the schema has one of the two.
            _ => None,
        },
    }
}

/// Whether this is the path of a route. `star` is what to do about a `*`.
fn check_path(ctx: &mut Context<'_>, at: &At<'_>, path: &str, star: &str) -> bool {
    let hint = if !path.starts_with('/') {
        "begin it with '/'"
    } else if path.contains(['?', '#']) {
        "leave out '?', '#' and what follows: this is compared with the path alone"
    } else if path.contains('*') {
        star
    } else if !path.bytes().all(|octet| octet.is_ascii_graphic()) {
        "write spaces and characters beyond ASCII in percent-encoding"
    } else if path.contains("//") || path.split('/').any(|part| matches!(part, "." | "..")) {
        "leave out empty parts, '.' and '..'"
    } else {
        let octets = path.as_bytes();
        let mut signs = memchr::memchr_iter(b'%', octets);
        if signs.any(|sign| decode_escape(octets, sign).is_none()) {
            let message = format!("{} has a '%' without two hexadecimal digits", at.quoted());
            ctx.problems
                .warn(at, message, "write '%25' for a '%' in a path");
        }
        return true;
    };
    let message = format!("{} is not a path of a route", at.quoted());
    ctx.problems.error(at, message, hint);
    false
}

fn expression(ctx: &mut Context<'_>, text: &str, at: &At<'_>) -> Option<PathRegex> {
    let regex = match ctx.expressions.get(text) {
        Some(known) => known.clone(),
        None => match PathRegex::compile(text) {
            Ok(regex) => {
                ctx.expressions.insert(text.to_owned(), regex.clone());
                regex
            }
            Err(error) => {
                let (why, hint) = describe_error(&error);
                let message = format!("{} is not a regular expression: {why}", at.quoted());
                ctx.problems.error(at, message, hint);
                return None;
            }
        },
    };
    let anchored = text.strip_prefix('^').and_then(|rest| rest.chars().next());
    if anchored.is_some_and(char::is_alphanumeric) && !text.contains('|') {
        let message = format!("no path matches {}: each begins with '/'", at.quoted());
        ctx.problems
            .warn(at, message, "begin the expression with ^/");
    } else if text.contains("\\?") {
        let message = format!("{} is compared with a path, which has no '?'", at.quoted());
        let hint = "give the parameters of the query under 'query'";
        ctx.problems.warn(at, message, hint);
    }
    Some(regex)
}

/// What is wrong with an expression, and what to do. The expression itself is not part of it.
fn describe_error(error: &regex::Error) -> (String, &'static str) {
    match error {
        regex::Error::CompiledTooBig(_) => (
            "it is too large once compiled".to_owned(),
            "repeat less in it, or divide it among several routes",
        ),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            (
                last.strip_prefix("error: ").unwrap_or(last).to_owned(),
                "write one such as ^/u/[0-9]+$, without look-around and back-references",
            )
        }
    }
}

/// What a route requires of a request besides its path; `None` if nothing.
pub(super) fn conditions(
    ctx: &mut Context<'_>,
    raw: &schema::Route,
    at: &At<'_>,
) -> Option<Arc<Conditions>> {
    if raw.methods.is_none() && raw.headers.is_empty() && raw.query.is_empty() {
        return None;
    }
    let conditions = Conditions {
        methods: methods(
            ctx,
            raw.methods.as_deref().unwrap_or_default(),
            &at.key("methods"),
        ),
        headers: headers(ctx, &raw.headers, &at.key("headers")),
        query: query(ctx, &raw.query, &at.key("query")),
    };
    (conditions.count() > 0).then(|| Arc::new(conditions))
}

fn methods(ctx: &mut Context<'_>, raw: &[String], at: &At<'_>) -> Vec<Box<str>> {
    let mut methods: Vec<Box<str>> = Vec::with_capacity(raw.len());
    for (index, method) in raw.iter().enumerate() {
        let at = at.index(index);
        let upper = method.to_ascii_uppercase();
        if Method::from_bytes(method.as_bytes()).is_err() {
            let message = format!("{} is not a method", at.quoted());
            let hint = "write a name such as GET or POST";
            ctx.problems.error(&at, message, hint);
        } else if upper != *method {
            let message = format!("{} is not in capitals, as methods are", at.quoted());
            let hint = match at.is_reference() {
                true => "write it in capitals".to_owned(),
                false => format!("write {upper}"),
            };
            ctx.problems.error(&at, message, hint);
        } else if matches!(&**method, "CONNECT" | "TRACE") {
            let message = format!("requests with the method {} are refused", at.quoted());
            ctx.problems.error(&at, message, "leave it out");
        } else if methods.iter().any(|known| **known == **method) {
            let message = format!("the method {} is already in the list", at.quoted());
            ctx.problems.warn(&at, message, "keep one of the two");
        } else {
            methods.push(method.as_str().into());
        }
    }
    methods.sort_unstable();
    methods
}

fn headers(
    ctx: &mut Context<'_>,
    raw: &IndexMap<String, String>,
    at: &At<'_>,
) -> Vec<HeaderCondition> {
    let mut headers: Vec<HeaderCondition> = Vec::with_capacity(raw.len());
    for (key, value) in raw {
        let at = at.key(key);
        let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
            let message = format!("{} is not the name of a header field", quote(key));
            let hint = "write a name such as X-Beta";
            ctx.problems.error(&at.at_key(), message, hint);
            continue;
        };
        if name == http::header::HOST {
            let message = "a route does not choose by 'Host': its site does";
            let hint = "make a site with this host under 'hosts'";
            ctx.problems.error(&at.at_key(), message, hint);
        } else if headers.iter().any(|known| known.name == name) {
            let message = format!("the field {} is already there in other letters", quote(key));
            let hint = "keep one of the two";
            ctx.problems.error(&at.at_key(), message, hint);
        } else if HeaderValue::from_bytes(value.as_bytes()).is_err() || value.trim() != value {
            let message = format!("no header field has the value {}", at.quoted());
            let hint = "write it without line ends, and without spaces around it";
            ctx.problems.error(&at, message, hint);
        } else {
            let value = expected(value);
            headers.push(HeaderCondition { name, value });
        }
    }
    headers.sort_unstable_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    headers
}

fn query(
    ctx: &mut Context<'_>,
    raw: &IndexMap<String, String>,
    at: &At<'_>,
) -> Vec<QueryCondition> {
    if raw.contains_key("") {
        let message = "the name of a parameter is empty";
        let hint = "write it as it is in the query, decoded";
        ctx.problems.error(&at.key("").at_key(), message, hint);
    }
    let mut query: Vec<_> = raw
        .iter()
        .map(|(name, value)| QueryCondition {
            name: name.as_str().into(),
            value: expected(value),
        })
        .collect();
    query.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    query
}

fn expected(value: &str) -> Expected {
    match value {
        "*" => Expected::Any,
        value => Expected::Exactly(value.into()),
    }
}

/// Paths that are the same for every request.
type PathKey = (u8, Box<[u8]>);

fn path_key(path: &PathMatch) -> PathKey {
    match path {
        PathMatch::Exact(path) => (0, decode_path(path.as_bytes()).into()),
        PathMatch::Prefix(path) => (1, decode_path(path.as_bytes()).into()),
        PathMatch::Regex(regex) => (2, regex.text().as_bytes().into()),
    }
}

/// The routes of a site so far, to find one that is there twice.
#[derive(Default)]
pub(super) struct SeenRoutes(HashMap<(PathKey, Option<Arc<Conditions>>), usize>);

impl SeenRoutes {
    /// Reports a route for the same requests as an earlier one. `at` is where all of them are.
    pub(super) fn check(
        &mut self,
        ctx: &mut Context<'_>,
        index: usize,
        path: &PathMatch,
        conditions: Option<&Arc<Conditions>>,
        at: &At<'_>,
    ) {
        let key = (path_key(path), conditions.cloned());
        let Some(first) = self.0.insert(key, index) else {
            return;
        };
        // With a condition that is misspelled, the two may differ.
        let is_unclear = [first, index].iter().any(|index| {
            let at = at.index(*index);
            ["methods", "headers", "query"].iter().any(|key| {
                let at = at.key(key);
                ctx.problems.is_broken(&at) || ctx.problems.is_lost(&at.path())
            })
        });
        if is_unclear {
            return;
        }
        let what = match conditions {
            None => "path",
            Some(_) => "path and conditions",
        };
        let at = at.index(index);
        let path_at = at.key("path");
        let at = if path_at.is_written() { path_at } else { at };
        let message = format!("routes[{first}] has the same {what}");
        ctx.problems.error(&at, message, "keep one of the two");
    }
}

/// Puts routes, which stand at these indices, into the order in which they are tried: exact paths,
/// then prefixes from the longest on, then expressions as they stand; of equal paths the one with
/// more conditions, then the one that stands earlier.
pub(super) fn sort_routes(routes: &mut [(usize, Route)]) {
    let mut expressions: HashMap<Arc<str>, usize> = HashMap::new();
    routes.sort_by_cached_key(|(index, route)| {
        let place = match &route.path {
            PathMatch::Exact(path) => (0, usize::MAX - decode_path(path.as_bytes()).len()),
            PathMatch::Prefix(path) => (1, usize::MAX - decode_path(path.as_bytes()).len()),
            PathMatch::Regex(regex) => {
                (2, *expressions.entry(regex.text().into()).or_insert(*index))
            }
        };
        let conditions = route.conditions.as_ref();
        let count = conditions.map_or(0, |conditions| conditions.count());
        (place, Reverse(count), *index)
    });
}

/// Warns of routes that are never reached: another is tried earlier, for all of their requests.
/// `routes` are in the order in which they are tried, `at` is where all of them are.
pub(super) fn warn_unreachable(ctx: &mut Context<'_>, routes: &[(usize, Route)], at: &At<'_>) {
    if routes.iter().all(|(_, route)| route.conditions.is_none())
        && !matches!(
            routes.last(),
            Some((
                _,
                Route {
                    path: PathMatch::Regex(_),
                    ..
                }
            ))
        )
    {
        return;
    }
    let mut by_path: HashMap<PathKey, Vec<usize>> = HashMap::new();
    for (place, (index, route)) in routes.iter().enumerate() {
        let alike = by_path.entry(path_key(&route.path)).or_default();
        let mut earlier = alike.clone();
        alike.push(place);
        alike.truncate(MOST_COMPARED);
        if matches!(route.path, PathMatch::Regex(_)) {
            // The prefix of every path.
            let everything = by_path.get(&path_key(&PathMatch::from("/")));
            earlier.extend(everything.into_iter().flatten());
        }
        let winner = earlier.iter().find_map(|&place| {
            let (index, other) = routes.get(place)?;
            includes(other, route).then_some((*index, other))
        });
        let Some((first, winner)) = winner else {
            continue;
        };
        let is_prefix = matches!(winner.path, PathMatch::Prefix(_));
        let is_lower_kind = is_prefix && matches!(route.path, PathMatch::Regex(_));
        if !is_lower_kind && winner.conditions == route.conditions {
            // It is there twice, which is an error.
            continue;
        }
        let at = at.index(*index);
        let path_at = at.key("path");
        let at = if path_at.is_written() { path_at } else { at };
        let (why, hint) = match is_lower_kind {
            true => (
                "prefixes come before expressions, and this one covers every path",
                "write the other as { regex: \"^/\" }, after this one",
            ),
            false => (
                "it stands earlier, for the same path and for all requests of this one",
                "put this one before the other, or give it one more condition",
            ),
        };
        let message = format!("the route is never reached because of routes[{first}]: {why}");
        ctx.problems.warn(&at, message, hint);
    }
}

/// Whether every request that meets the conditions of `other` meets those of `route`.
fn includes(route: &Route, other: &Route) -> bool {
    match (&route.conditions, &other.conditions) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(others)) => own.include(others),
    }
}
