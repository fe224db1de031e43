//! What the limits of a site and a route make of a request.

use std::sync::Arc;

use http::HeaderValue;

use super::{Decision, Outcome};
use crate::proxy::rate_limit::RateLimiter;
use crate::proxy::refusal::Refusal;
use crate::proxy::request::Request;
use crate::proxy::route::Site;
use crate::proxy::site_limits::{SiteLimits, SitePermit};

/// What limits have made of a request that they let pass.
#[derive(Clone, Default)]
pub(super) struct Passed {
    /// `RateLimit-Policy` and `RateLimit`.
    fields: Option<[HeaderValue; 2]>,
    /// Counts the request as long as it is in progress.
    permit: Option<Arc<SitePermit>>,
}

/// Counts the request, and refuses it if it is one too many. What is not served for another
/// reason than its path is not counted.
pub(super) fn apply_limits(decision: &mut Decision, request: &Request<'_>) {
    let Some(site) = &decision.site else {
        return;
    };
    let (Some(limits), Some(index)) = (site.limits(), counted_as(decision)) else {
        return;
    };
    let (site, limits) = (Arc::clone(site), Arc::clone(limits));
    let limiter = limits.rate(index);
    let waits = limiter.is_some_and(RateLimiter::is_by_user) && decision.needs_identity();
    let refusal = match limiter {
        Some(limiter) if !waits => count_request(decision, limiter, index, request),
        Some(_) | None => None,
    };
    let refusal = refusal.or_else(|| begin_request(decision, &site, &limits));
    if let Some(refusal) = refusal {
        decision.outcome = Outcome::Refuse(refusal);
    }
}

/// Counts the request for its user, who is known now, if the limit is one of users.
pub(in crate::proxy) fn apply_user_limit(decision: &mut Decision, request: &Request<'_>) {
    let Some(limits) = decision.site().and_then(Site::limits).map(Arc::clone) else {
        return;
    };
    let Some(index) = counted_as(decision) else {
        return;
    };
    let limiter = limits.rate(index).filter(|limiter| limiter.is_by_user());
    let refusal = limiter.and_then(|limiter| count_request(decision, limiter, index, request));
    if let Some(refusal) = refusal {
        decision.outcome = Outcome::Refuse(refusal);
    }
}

/// The fields that say how many requests are left, `RateLimit-Policy` and `RateLimit`, if the
/// response is to have them.
pub(in crate::proxy) fn rate_fields(decision: &Decision) -> Option<&[HeaderValue; 2]> {
    decision.passed.as_ref()?.fields.as_ref()
}

/// The index of the route whose limit the request counts for, `Some(None)` if it is the site's;
/// `None` if it is not counted.
#[expect(clippy::option_option, reason = "counted or not, for a route or not")]
fn counted_as(decision: &Decision) -> Option<Option<usize>> {
    match decision.outcome {
        Outcome::Route(index) => Some(Some(index)),
        Outcome::Refuse(
            Refusal::NoRoute | Refusal::Method | Refusal::AmbiguousPath | Refusal::BodyTooLarge,
        ) => Some(None),
        Outcome::Refuse(_) | Outcome::Respond(_) => None,
    }
}

fn count_request(
    decision: &mut Decision,
    limiter: &RateLimiter,
    index: Option<usize>,
    request: &Request<'_>,
) -> Option<Refusal> {
    match limiter.count_request(request, decision.user()) {
        Ok(None) => None,
        Ok(Some(state)) => {
            let passed = decision.passed.get_or_insert_default();
            passed.fields = Some([limiter.policy().clone(), state]);
            None
        }
        Err(exceeded) => Some(Refusal::RateLimited(index, exceeded)),
    }
}

fn begin_request(decision: &mut Decision, site: &Site, limits: &SiteLimits) -> Option<Refusal> {
    if !limits.has_most() {
        return None;
    }
    let Some(permit) = limits.begin_request(&site.name) else {
        return Some(Refusal::SiteFull);
    };
    decision.passed.get_or_insert_default().permit = Some(Arc::new(permit));
    None
}
