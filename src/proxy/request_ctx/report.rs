//! What the log says of a request that failed.

use pingora_core::Error;

use super::RequestCtx;
use crate::proxy::failure::{ErrorSummary, Failure};

/// Logs how a request failed.
pub(super) fn log_failure(ctx: &RequestCtx, failure: Failure, error: &Error) {
    let site = ctx.site().map_or("-", |site| &site.name);
    let upstream = ctx.upstream().unwrap_or("-");
    let request_id = ctx.request_id();
    match failure {
        Failure::Client(status, _) => {
            tracing::debug!(site, request_id, status = status.as_u16(), %error, "refused");
        }
        Failure::Gone => {
            tracing::debug!(site, upstream, request_id, %error, "the client went away");
        }
        Failure::Gateway(status, _) => tracing::error!(
            site, upstream, request_id, status = status.as_u16(), error = %ErrorSummary(error),
            "a request failed",
        ),
        Failure::Upstream(status, _) => {
            let failures = ctx.proxy().map(|proxy| &proxy.pool.failures);
            if let Some(suppressed) = failures.map_or(Some(0), |failures| failures.admit()) {
                tracing::warn!(
                    site, upstream, request_id, status = status.as_u16(), suppressed,
                    error = %ErrorSummary(error), "an upstream failed",
                );
            }
        }
    }
}
