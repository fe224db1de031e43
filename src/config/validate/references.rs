//! References from one section to another: issuers, entries of `dns` and upstreams.

use std::sync::Arc;

use super::context::Context;
use crate::config::model::{Config, Upstream};
use crate::config::problem::{At, quote, suggest};
use crate::config::schema;

use indexmap::IndexMap;

/// Upstreams by name.
pub(super) type Upstreams = IndexMap<Arc<str>, Arc<Upstream>>;

/// The issuers in `names`, or the first of all if there are no `names`.
pub(super) fn issuers(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    names: Option<&schema::Names>,
) -> Vec<Arc<str>> {
    let raw = ctx.raw;
    let Some(names) = names else {
        if raw.issuers.is_empty() && !ctx.problems.is_lost("issuers") {
            let message = "no issuer is named, and none is defined";
            let hint = "define one below 'issuers:'";
            ctx.problems.error(at, message, hint);
        }
        return first_issuer(ctx).into_iter().collect();
    };
    let names = names.as_slice();
    if names.is_empty() {
        let message = "the list is empty";
        ctx.problems
            .error(at, message, "name an issuer, or remove the key");
    }
    let mut found = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let at = at.index(index);
        if raw.issuers.contains_key(name) {
            found.push(use_issuer(ctx, name));
        } else {
            report_dangling(ctx, &at, "issuer", "issuers", issuer_names(raw), name);
        }
    }
    found
}

/// The first issuer, which is the default.
pub(super) fn first_issuer(ctx: &mut Context<'_>) -> Option<Arc<str>> {
    let first = ctx.raw.issuers.keys().next()?;
    Some(use_issuer(ctx, first))
}

/// Marks an issuer as used.
pub(super) fn use_issuer(ctx: &mut Context<'_>, name: &str) -> Arc<str> {
    if let Some(known) = ctx.used.issuers.get(name) {
        return Arc::clone(known);
    }
    let name: Arc<str> = Arc::from(name);
    ctx.used.issuers.insert(Arc::clone(&name));
    name
}

/// The names of all issuers.
pub(super) fn issuer_names(raw: &schema::Root) -> impl Iterator<Item = &str> + Clone {
    raw.issuers.keys().map(String::as_str)
}

/// An entry of `dns`.
pub(super) fn dns_entry(ctx: &mut Context<'_>, at: &At<'_>, name: &str) -> Option<Arc<str>> {
    let raw = ctx.raw;
    if raw.dns.contains_key(name) {
        let name: Arc<str> = Arc::from(name);
        ctx.used.dns.insert(Arc::clone(&name));
        return Some(name);
    }
    let known = raw.dns.keys().map(String::as_str);
    report_dangling(ctx, at, "entry in 'dns'", "dns", known, name);
    None
}

/// An upstream.
pub(super) fn upstream(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    name: &str,
    upstreams: &Upstreams,
) -> Option<Arc<Upstream>> {
    if let Some((name, upstream)) = upstreams.get_key_value(name) {
        ctx.used.upstreams.insert(Arc::clone(name));
        return Some(Arc::clone(upstream));
    }
    let known = upstreams.keys().map(|name| &**name);
    report_dangling(ctx, at, "upstream", "upstreams", known, name);
    None
}

/// Reports a reference to something that is not defined.
pub(super) fn report_dangling<'n>(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    kind: &str,
    section: &str,
    known: impl Iterator<Item = &'n str> + Clone,
    name: &str,
) {
    if ctx.problems.is_lost(section) {
        return;
    }
    let hint = match known.clone().next() {
        None => format!("define it below '{section}:'"),
        Some(_) if ctx.problems.is_full() => String::new(),
        Some(_) => suggest(name, known),
    };
    let message = format!("there is no {kind} {}", at.quoted());
    ctx.problems.error(at, message, hint);
}

/// Warns of upstreams, issuers and entries of `dns` that nothing refers to.
pub(super) fn warn_unused(ctx: &mut Context<'_>, config: &Config, root: &At<'_>) {
    let upstreams = root.key("upstreams");
    for name in config.upstreams.keys() {
        if !ctx.used.upstreams.contains(name) {
            let at = upstreams.key(name);
            let message = format!("no route uses the upstream {}", quote(name));
            ctx.problems
                .warn(&at.at_key(), message, "remove it, or name it in a route");
        }
    }
    let issuers = root.key("issuers");
    for name in ctx.raw.issuers.keys() {
        if !ctx.used.issuers.contains(&**name) {
            let at = issuers.key(name);
            let message = format!("nothing uses the issuer {}", quote(name));
            let hint = "remove it, or name it in a site's 'tls' or a certificate's 'issuer'";
            ctx.problems.warn(&at.at_key(), message, hint);
        }
    }
    // A single entry of `dns` need not be named.
    if config.dns.len() < 2 {
        return;
    }
    let dns = root.key("dns");
    for name in config.dns.keys() {
        if !ctx.used.dns.contains(name) {
            let message = format!("nothing uses the entry {}", quote(name));
            let hint = "remove it, or name it in the 'dns' of an issuer or a certificate";
            ctx.problems.warn(&dns.key(name).at_key(), message, hint);
        }
    }
}
