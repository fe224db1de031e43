//! Makes sites of those of the configuration.

use std::sync::Arc;

use http::HeaderValue;

use super::{Route, Site};
use crate::config::model::{self, SiteTls};
use crate::host::Pattern;
use crate::metrics::Metrics;

/// A site with its routes.
pub(super) fn site(model: &model::Site, routes: Arc<[Route]>, metrics: &Metrics) -> Site {
    let name = match model.hosts.first() {
        Some(Pattern::Exact(name)) => name.to_shared(),
        Some(other) => other.to_string().into(),
        None => "".into(),
    };
    Site {
        metrics: metrics.site(&name),
        name,
        tls: model.tls != SiteTls::Off,
        routes,
        hsts: model.hsts.map(hsts_field),
        error_pages: model.error_pages.clone(),
        maintenance: model.maintenance.clone(),
        access: model.access.clone(),
    }
}

/// The value of `Strict-Transport-Security` (RFC 6797, section 6.1).
fn hsts_field(hsts: model::Hsts) -> HeaderValue {
    let mut text = format!("max-age={}", hsts.max_age.as_secs());
    for (is_on, directive) in [
        (hsts.subdomains, "; includeSubDomains"),
        (hsts.preload, "; preload"),
    ] {
        if is_on {
            text.push_str(directive);
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("max-age=0"))
}
