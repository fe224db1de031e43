//! What the schema has but this build does not do yet: checked all the same, then refused.
//!
//! A configuration written ahead of a feature is therefore right when the feature arrives, and all
//! its mistakes are reported at once. Each part moves to its place along with its feature.

use super::context::Context;
use super::value::url;
use crate::config::problem::{At, quote};
use crate::config::schema;

/// Refuses a feature of the schema that is not there yet.
fn refuse(ctx: &mut Context<'_>, at: &At<'_>) {
    let path = at.path();
    let key = path.rsplit('.').next().unwrap_or_default();
    let message = format!("{} is not available in this build yet", quote(key));
    ctx.problems
        .refuse(&at.at_key(), message, "remove it for now");
}

pub(super) fn etcd(ctx: &mut Context<'_>, raw: &schema::Etcd, at: &At<'_>) {
    let endpoints = at.key("endpoints");
    for (index, text) in raw.endpoints.iter().enumerate() {
        let at = endpoints.index(index);
        let good = url(text).is_some_and(|url| matches!(url.path(), "" | "/"));
        if !good {
            let message = format!("{} is not the URL of a member of etcd", at.quoted());
            let hint = "write https://HOST:PORT, such as https://10.0.0.1:2379";
            ctx.problems.error(&at, message, hint);
        }
    }
    if !raw.prefix.starts_with('/') {
        let at = at.key("prefix");
        let message = format!("the prefix {} does not begin with '/'", at.quoted());
        ctx.problems.error(&at, message, "write /snigate");
    }
    for (key, path) in [("ca", &raw.ca), ("cert", &raw.cert), ("key", &raw.key)] {
        if let Some(path) = path {
            ctx.path(&at.key(key), path);
        }
    }
    ctx.both(
        at,
        ["user", "password"],
        [raw.user.is_some(), raw.password.is_some()],
    );
    ctx.both(at, ["cert", "key"], [raw.cert.is_some(), raw.key.is_some()]);
    refuse(ctx, at);
}
