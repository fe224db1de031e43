//! `sticky` of an upstream.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::context::Context;
use crate::config::model::{Action, Site, Sticky, Upstream};
use crate::config::problem::At;
use crate::config::schema;

/// The longest time that browsers keep a cookie for.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);

pub(super) fn sticky(ctx: &mut Context<'_>, raw: &schema::Sticky, at: &At<'_>) -> Sticky {
    let max_age = raw.max_age.as_ref().map(|max_age| {
        let second = Duration::from_secs(1);
        ctx.duration(&at.key("max_age"), max_age, second, LONGEST)
    });
    let cookie = at.key("cookie");
    check_cookie_name(ctx, &raw.cookie, &cookie);
    Sticky {
        cookie: raw.cookie.as_str().into(),
        max_age,
    }
}

/// Checks the name of a cookie, a token as the name of a field is (RFC 6265, section 4.1.1).
pub(super) fn check_cookie_name(ctx: &mut Context<'_>, name: &str, at: &At<'_>) {
    if name.parse::<HeaderName>().is_err() {
        let message = format!("{} is not the name of a cookie", at.quoted());
        let hint = "use letters, digits, '-' and '_', such as session";
        ctx.problems.error(at, message, hint);
    }
}

/// Warns of upstreams of one site whose cookies have the same name: clients have one such cookie for
/// the whole site.
pub(super) fn warn_shared_cookies(ctx: &mut Context<'_>, sites: &[Arc<Site>], root: &At<'_>) {
    let mut known = HashSet::new();
    for site in sites {
        // Those with cookies, in the order of the routes.
        let mut sticky: Vec<(&Upstream, &str)> = Vec::new();
        for route in site.routes.iter() {
            let Action::Proxy(proxy) = &route.action else {
                continue;
            };
            let upstream = &*proxy.upstream;
            let Some(cookie) = upstream.sticky.as_ref().map(|sticky| &*sticky.cookie) else {
                continue;
            };
            if sticky.iter().any(|(one, _)| one.name == upstream.name) {
                continue;
            }
            let first = sticky.iter().find(|(_, other)| *other == cookie);
            if let Some((first, _)) = first
                && known.insert((Arc::clone(&first.name), Arc::clone(&upstream.name)))
            {
                let host = site.hosts.first();
                let host = host.map(ToString::to_string).unwrap_or_default();
                let message = format!(
                    "the upstream '{}' has a cookie of the same name, and the site '{host}' uses \
                     both: each replaces the other's",
                    first.name,
                );
                let hint = "give the cookies different names";
                let upstreams = root.key("upstreams");
                let at = upstreams.key(&upstream.name);
                let at = at.key("sticky");
                ctx.problems.warn(&at.key("cookie"), message, hint);
            }
            sticky.push((upstream, cookie));
        }
    }
}
