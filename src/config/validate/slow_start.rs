//! `slow_start` of an upstream.

use std::time::Duration;

use super::context::Context;
use crate::config::model::Balance;
use crate::config::problem::At;
use crate::config::schema;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);

pub(super) fn slow_start(
    ctx: &mut Context<'_>,
    raw: Option<&schema::Duration>,
    balance: &Balance,
    at: &At<'_>,
) -> Option<Duration> {
    let time = ctx.duration(at, raw?, SHORTEST, LONGEST);
    if matches!(balance, Balance::Hash(_)) {
        let message = "'slow_start' has no meaning with 'hash'";
        let hint = "remove it: each key has its server";
        ctx.problems.error(&at.at_key(), message, hint);
    }
    Some(time)
}
