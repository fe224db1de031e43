//! `hsts` of sites.

use std::time::Duration;

use super::context::Context;
use super::value::FOREVER;
use crate::config::model::{Hsts, SiteTls};
use crate::config::problem::At;
use crate::config::schema;

/// What lists of preloaded hosts demand: a year.
const PRELOADED: Duration = Duration::from_secs(365 * 24 * 3600);

/// `hsts` of a site.
pub(super) fn hsts(ctx: &mut Context<'_>, raw: &schema::Hsts, tls: &SiteTls, at: &At<'_>) -> Hsts {
    let max_age_at = at.key("max_age");
    let max_age = ctx.duration(&max_age_at, &raw.max_age, Duration::ZERO, FOREVER);
    if *tls == SiteTls::Off {
        let message = "'hsts' has no meaning for a site with 'tls: off'";
        ctx.problems.error(&at.at_key(), message, "remove it");
    }
    if raw.preload && !(raw.subdomains && max_age >= PRELOADED) {
        let message = "lists of preloaded hosts take only hosts that are remembered for a year \
                       with all hosts below them";
        let hint =
            "write { max_age: 365d, subdomains: true, preload: true }, or leave out 'preload'";
        ctx.problems.error(&at.key("preload"), message, hint);
    }
    Hsts {
        max_age,
        subdomains: raw.subdomains,
        preload: raw.preload,
    }
}
