//! What routes change in requests and responses.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::context::Context;
use super::template::{path_template, sample, template};
use crate::config::model::{FieldEdits, Part, PathMatch, Placeholder, Rewriting, Template};
use crate::config::problem::{At, quote};
use crate::config::schema;
use crate::field;

/// Whose fields are changed.
#[derive(Clone, Copy)]
enum Message {
    Request,
    /// Whether the site has `hsts`.
    Response {
        hsts: bool,
    },
}

/// What a route for `path` changes, if anything. `hsts` says whether its site has `hsts`.
pub(super) fn rewriting(
    ctx: &mut Context<'_>,
    raw: &schema::Route,
    path: Option<&PathMatch>,
    hsts: bool,
    at: &At<'_>,
) -> Option<Box<Rewriting>> {
    let mut rewriting = Rewriting::default();
    match path.filter(|_| raw.strip_prefix) {
        Some(PathMatch::Prefix(prefix)) => rewriting.strip_prefix = Some(Arc::clone(prefix)),
        Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => {
            let message = "'strip_prefix' needs a path that is a prefix";
            let hint = "write 'path: /PREFIX', or use 'rewrite'";
            ctx.problems
                .error(&at.key("strip_prefix").at_key(), message, hint);
        }
        // The path is not valid.
        None => {}
    }
    if let Some(raw) = &raw.rewrite {
        rewriting.target = target(ctx, &at.key("rewrite"), raw, path);
    }
    if let Some(raw) = &raw.host {
        rewriting.host = host(ctx, &at.key("host"), raw);
    }
    if let Some(raw) = &raw.request_headers {
        let at = at.key("request_headers");
        rewriting.request_headers = edits(ctx, raw, Message::Request, &at);
    }
    if let Some(raw) = &raw.response_headers {
        let at = at.key("response_headers");
        rewriting.response_headers = edits(ctx, raw, Message::Response { hsts }, &at);
    }
    (rewriting != Rewriting::default()).then(|| Box::new(rewriting))
}

/// The path, or path and query, that a server gets.
pub(super) fn target(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    raw: &str,
    path: Option<&PathMatch>,
) -> Option<Template> {
    let template = path_template(ctx, at, raw, path)?;
    let sample = sample(&template);
    let path = sample.split('?').next().unwrap_or(&sample);
    let is_good = |octet: u8| octet.is_ascii_graphic() && !b"#<>`\"".contains(&octet);
    let begins = match template.parts().first() {
        Some(Part::Text(text)) => text.starts_with('/'),
        Some(Part::Placeholder(placeholder)) => *placeholder == Placeholder::Path,
        Some(Part::Claim(_) | Part::Group { .. }) | None => false,
    };
    let hint = if !begins {
        "begin it with '/' or {path}"
    } else if !sample.bytes().all(is_good) {
        "write spaces, '#' and characters beyond ASCII in percent-encoding"
    } else if path
        .split(['/', '\\'])
        .any(|part| matches!(part, "." | ".."))
    {
        "leave out '.' and '..'"
    } else {
        let mut pairs = template.parts().windows(2);
        let has_two_slashes = pairs.any(|pair| match pair {
            [Part::Text(text), Part::Placeholder(Placeholder::Path)] => {
                text.ends_with('/') && !text.contains('?')
            }
            _ => false,
        });
        if has_two_slashes {
            let message = format!(
                "{} has two slashes in a row: {{path}} begins with one",
                at.quoted()
            );
            ctx.problems
                .warn(at, message, "leave out the '/' before {path}");
        }
        return Some(template);
    };
    let message = format!("{} is not a path for requests", at.quoted());
    ctx.problems.error(at, message, hint);
    None
}

/// The `Host` that a server gets.
fn host(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Template> {
    let template = template(ctx, at, raw)?;
    let is_free = |part: &Part| {
        use Placeholder::{Path, Query, QuestionedQuery};
        matches!(part, Part::Placeholder(Path | Query | QuestionedQuery))
    };
    let hint = if template.parts().iter().any(is_free) {
        "leave out the path and the query"
    } else if field::is_authority(sample(&template).as_bytes()) {
        return Some(template);
    } else {
        "write a host such as app.internal, with or without a port"
    };
    let message = format!("{} is not a host for requests", at.quoted());
    ctx.problems.error(at, message, hint);
    None
}

fn edits(
    ctx: &mut Context<'_>,
    raw: &schema::HeaderEdits,
    message: Message,
    at: &At<'_>,
) -> FieldEdits {
    let mut edits = FieldEdits::default();
    let mut seen = HashSet::new();
    let set_at = at.key("set");
    for (name, text) in &raw.set {
        let at = set_at.key(name);
        if !seen.insert(name.to_ascii_lowercase()) {
            let message = format!("the field {} is set twice", quote(name));
            ctx.problems
                .error(&at.at_key(), message, "keep one of the two");
        }
        check_name(ctx, &at.at_key(), name, message);
        if let Some(value) = value(ctx, &at, text) {
            edits.set.push((Arc::from(&**name), value));
        }
    }
    let add_at = at.key("add");
    for (name, texts) in &raw.add {
        let at = add_at.key(name);
        check_name(ctx, &at.at_key(), name, message);
        for (index, text) in texts.as_slice().iter().enumerate() {
            if let Some(value) = value(ctx, &at.index(index), text) {
                edits.add.push((Arc::from(&**name), value));
            }
        }
    }
    let remove_at = at.key("remove");
    for (index, name) in raw.remove.iter().enumerate() {
        check_name(ctx, &remove_at.index(index), name, message);
        edits.remove.push(Arc::from(&**name));
    }
    edits
}

/// The value of a field.
fn value(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Template> {
    let template = template(ctx, at, raw)?;
    let sample = sample(&template);
    if HeaderValue::from_str(&sample).is_err() || sample.trim_ascii() != sample {
        let message = format!("{} is not the value of a field", at.quoted());
        let hint = "leave out line ends, control characters, characters beyond ASCII, and spaces \
                    around it";
        ctx.problems.error(at, message, hint);
        return None;
    }
    Some(template)
}

/// Reports a field of requests to servers that nothing but the gateway may set.
pub(super) fn check_request_field(ctx: &mut Context<'_>, at: &At<'_>, name: &str) {
    check_name(ctx, at, name, Message::Request);
}

/// Reports a field that a route must not change.
fn check_name(ctx: &mut Context<'_>, at: &At<'_>, name: &str, message: Message) {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let is_framing = || {
        let is_expectation = matches!(message, Message::Request) && is("expect");
        field::is_hop_by_hop(name.as_bytes()) || is("content-length") || is_expectation
    };
    let (why, hint) = if HeaderName::from_bytes(name.as_bytes()).is_err() {
        ("is not the name of a field", "write a name such as X-Name")
    } else {
        match message {
            Message::Request if is("host") => (
                "is changed by its own key",
                "write 'host: NAME' beside 'upstream'",
            ),
            _ if is_framing() => (
                "belongs to the connection or to the framing of the body",
                "remove it: the gateway writes such fields itself",
            ),
            Message::Request if !field::has_plain_name(name.as_bytes()) => (
                "has other characters than letters, digits and '-', so servers may take it for \
                 another one",
                "write '-' instead",
            ),
            Message::Request if field::is_vouched_for(name.as_bytes()) => (
                "says how the request arrived, for which only the gateway vouches",
                "remove it, or choose another name",
            ),
            Message::Response { .. } if is("date") || is("x-request-id") => {
                ("is written by the gateway", "remove it")
            }
            Message::Response { hsts: true } if is("strict-transport-security") => {
                ("is what 'hsts' of the site sets", "remove one of the two")
            }
            _ => return,
        }
    };
    let message = format!("the field {} {why}", quote(name));
    ctx.problems.error(at, message, hint);
}
