//! `rate_limit` of sites and routes.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::context::Context;
use super::value::MOMENT;
use crate::config::model::{RateKey, RateLimit, RouteRate};
use crate::config::problem::At;
use crate::config::schema;

/// The longest time in which requests are counted.
const DAY: Duration = Duration::from_secs(86_400);

/// The limit of a site. `authenticates` says whether all that is served under it is for users only.
pub(super) fn site_rate(
    ctx: &mut Context<'_>,
    raw: Option<&schema::RateLimit>,
    authenticates: bool,
    at: &At<'_>,
) -> Option<Arc<RateLimit>> {
    match raw {
        Some(schema::RateLimit::On(raw)) => Some(rate_limit(ctx, raw, authenticates, at)),
        Some(schema::RateLimit::Off(_)) | None => None,
    }
}

/// The limit of a route. `authenticates` says whether it is for users only.
pub(super) fn route_rate(
    ctx: &mut Context<'_>,
    raw: Option<&schema::RateLimit>,
    authenticates: bool,
    at: &At<'_>,
) -> RouteRate {
    match raw {
        Some(schema::RateLimit::On(raw)) => RouteRate::Own(rate_limit(ctx, raw, authenticates, at)),
        Some(schema::RateLimit::Off(_)) => RouteRate::Off,
        None => RouteRate::OfSite,
    }
}

fn rate_limit(
    ctx: &mut Context<'_>,
    raw: &schema::RateLimitOptions,
    authenticates: bool,
    at: &At<'_>,
) -> Arc<RateLimit> {
    let requests = raw.requests.max(1);
    Arc::new(RateLimit {
        requests,
        per: ctx.duration(&at.key("per"), &raw.per, MOMENT, DAY),
        burst: raw.burst.unwrap_or(requests).max(1),
        by: key(ctx, &raw.by, authenticates, &at.key("by")),
        headers: matches!(raw.headers, schema::Switch::On),
    })
}

fn key(ctx: &mut Context<'_>, raw: &schema::RateKey, authenticates: bool, at: &At<'_>) -> RateKey {
    match raw {
        schema::RateKey::Word(schema::RateKeyWord::ClientIp) => RateKey::ClientIp,
        schema::RateKey::Word(schema::RateKeyWord::Site) => RateKey::Site,
        schema::RateKey::Word(schema::RateKeyWord::User) => {
            if !authenticates {
                let message = "requests are counted by user, but no users are authenticated here";
                let hint = "add 'basic_auth' or 'jwt', or count by client_ip";
                ctx.problems.error(at, message, hint);
            }
            RateKey::User
        }
        schema::RateKey::Field(field) => {
            let at = at.key("header");
            let name = field.header.parse::<HeaderName>();
            if name.is_err() {
                let message = format!("{} is not the name of a header field", at.quoted());
                let hint = "use letters, digits and '-', such as X-Api-Key";
                ctx.problems.error(&at, message, hint);
            }
            name.map_or(RateKey::ClientIp, RateKey::Header)
        }
    }
}
