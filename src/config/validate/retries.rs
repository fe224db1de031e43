//! `retries` of a route.

use http::StatusCode;

use super::context::Context;
use crate::config::model::{Retries, RetryCause, RetryCauses};
use crate::config::problem::At;
use crate::config::schema;

pub(super) fn retries(
    ctx: &mut Context<'_>,
    raw: Option<&schema::Retries>,
    at: &At<'_>,
) -> Retries {
    let attempts = |attempts| u32::try_from(attempts).unwrap_or(1);
    match raw {
        None => Retries::new(1),
        Some(schema::Retries::Attempts(count)) => Retries::new(attempts(*count)),
        Some(schema::Retries::Rules(rules)) => Retries {
            attempts: attempts(rules.attempts),
            on: causes(&rules.on),
            budget: budget(ctx, &rules.budget, &at.key("budget")),
        },
    }
}

fn causes(conditions: &[schema::RetryCondition]) -> RetryCauses {
    use schema::RetryCondition::{Failure, Status};
    use schema::RetryFailure;
    let causes = conditions.iter().filter_map(|condition| match condition {
        Failure(RetryFailure::Connect) => Some(RetryCause::Connect),
        Failure(RetryFailure::Reset) => Some(RetryCause::Reset),
        Failure(RetryFailure::Timeout) => Some(RetryCause::Timeout),
        Status(status) => {
            let status = u16::try_from(*status).ok()?;
            Some(RetryCause::Status(StatusCode::from_u16(status).ok()?))
        }
    });
    causes.fold(RetryCauses::default(), RetryCauses::with)
}

fn budget(ctx: &mut Context<'_>, text: &str, at: &At<'_>) -> u32 {
    let number = text.strip_suffix('%').map(str::trim_end);
    let percent = number
        .filter(|number| number.bytes().all(|octet| octet.is_ascii_digit()))
        .and_then(|number| number.parse().ok())
        .filter(|percent| (1..=100).contains(percent));
    percent.unwrap_or_else(|| {
        let message = format!("{} is not a share of the requests", at.quoted());
        let hint = "write a percentage from 1% to 100%, such as 20%";
        ctx.problems.error(at, message, hint);
        100
    })
}
