//! `sticky` of an upstream.

use std::time::Duration;

use http::HeaderName;

use super::context::Context;
use crate::config::model::Sticky;
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
