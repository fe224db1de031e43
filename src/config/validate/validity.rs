//! `validity`.

use std::time::Duration;

use super::context::Context;
use super::value::FOREVER;
use crate::config::model::Validity;
use crate::config::problem::At;
use crate::config::schema;

pub(super) fn validity(ctx: &mut Context<'_>, raw: &schema::Validity, at: &At<'_>) -> Validity {
    if raw.warn_fraction <= 0.0 || raw.warn_fraction > 1.0 {
        let at = at.key("warn_fraction");
        let message = format!("{} is not a fraction of the lifetime", at.quoted());
        ctx.problems.error(
            &at,
            message,
            "give a number over 0, and at most 1, such as 0.33",
        );
    }
    let warn_before = raw.warn_before.as_ref().map(|before| {
        let at = at.key("warn_before");
        ctx.duration(&at, before, Duration::from_secs(1), FOREVER)
    });
    Validity {
        warn_before,
        warn_fraction: raw.warn_fraction,
    }
}
