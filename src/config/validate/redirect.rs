//! The targets of redirects.

use http::Uri;

use super::context::Context;
use super::template::{path_template, sample};
use crate::config::model::{Part, PathMatch, Placeholder, Template};
use crate::config::problem::At;

/// The target of a redirect, if it is valid.
///
/// Clients must not be able to choose the host that they are redirected to. So a URL has its host
/// before anything that they can fill in freely, and a path has its first `/`.
pub(super) fn target(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    raw: &str,
    path: Option<&PathMatch>,
) -> Option<Template> {
    let template = path_template(ctx, at, raw, path)?;
    let begin = match template.as_literal() {
        Some(_) => Ok(()),
        None => check_begin(&template),
    };
    let checked = begin.and_then(|()| destination(&sample(&template)));
    match checked {
        // In normal form, if nothing is left to fill in.
        Ok(uri) => Some(match template.as_literal() {
            Some(_) => Template::literal(&uri.to_string()),
            None => template,
        }),
        Err(hint) => {
            let message = format!("{} is not a redirect target", at.quoted());
            ctx.problems.error(at, message, hint);
            None
        }
    }
}

/// The target of a redirect, or what to do about a malformed one.
fn destination(text: &str) -> Result<Uri, &'static str> {
    const HINT: &str = "write a URL that begins with https:// or http://, or a path with one '/'";
    // `Uri` drops the fragment silently.
    if text.contains('#') {
        return Err("leave out '#' and what follows");
    }
    let uri: Uri = text.parse().map_err(|_| HINT)?;
    let path = text.starts_with('/') && !text.starts_with("//");
    let absolute = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    if path || absolute { Ok(uri) } else { Err(HINT) }
}

/// Checks that the client has no say in where a target leads.
fn check_begin(template: &Template) -> Result<(), &'static str> {
    const IN_HOST: &str = "in the host use no placeholder but {host}, {sni} and {port}, and begin \
                           what follows it with '/', '?', {path} or {?query}";
    const SCHEME: &str = "begin it with https://, http://, '/' or {path}";
    let (first, rest) = template.parts().split_first().ok_or(SCHEME)?;
    let begin = match first {
        Part::Placeholder(Placeholder::Path) => return Ok(()),
        Part::Placeholder(Placeholder::Scheme) => {
            // `{scheme}://` is as good as one of the two.
            let Some((Part::Text(text), rest)) = rest.split_first() else {
                return Err(SCHEME);
            };
            return check_host(text.strip_prefix("://").ok_or(SCHEME)?, rest, IN_HOST);
        }
        Part::Placeholder(_) | Part::Claim(_) | Part::Group { .. } => return Err(SCHEME),
        Part::Text(text) => text,
    };
    if let Some(path) = begin.strip_prefix('/') {
        return match (path.chars().next(), rest.first()) {
            (Some('/' | '\\'), _) => Err("begin a path with one '/'"),
            (None, Some(Part::Placeholder(Placeholder::Path))) => {
                Err("leave out the '/': {path} begins with one")
            }
            // Of several slashes that it leads to, one is left.
            (None, Some(Part::Group { .. })) => Ok(()),
            (None, Some(_)) => Err("write something between the first '/' and a placeholder"),
            _ => Ok(()),
        };
    }
    let schemes = ["https://", "http://"];
    let mut hosts = schemes
        .iter()
        .filter_map(|scheme| begin.strip_prefix(scheme));
    check_host(hosts.next().ok_or(SCHEME)?, rest, IN_HOST)
}

/// Checks the parts of a URL from its host to the end of its host.
fn check_host(begin: &str, rest: &[Part], hint: &'static str) -> Result<(), &'static str> {
    let begin = Part::Text(begin.into());
    for part in std::iter::once(&begin).chain(rest) {
        match part {
            Part::Text(text) => {
                let end = text.find(['/', '?']).unwrap_or(text.len());
                let (host, after) = text.split_at_checked(end).unwrap_or((text, ""));
                if host.contains(['\\', '@']) {
                    return Err(hint);
                }
                if !after.is_empty() {
                    return Ok(());
                }
            }
            Part::Placeholder(Placeholder::Path) => return Ok(()),
            // It may be empty: what follows may still belong to the host.
            Part::Placeholder(Placeholder::QuestionedQuery) => {}
            Part::Placeholder(Placeholder::Host | Placeholder::Sni | Placeholder::Port) => {}
            Part::Placeholder(_) | Part::Claim(_) | Part::Group { .. } => return Err(hint),
        }
    }
    Ok(())
}
