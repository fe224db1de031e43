//! Makes sites of those of the configuration.

use std::sync::Arc;

use http::HeaderValue;

use super::{Action, Route, Site};
use crate::config::model::{self, Access, ErrorPages, Maintenance, PathMatch, SiteTls, TunnelKind};
use crate::host::Pattern;
use crate::metrics::Metrics;
use crate::proxy::authority::Channel;
use crate::proxy::header::declared_length;
use crate::proxy::request::Request;
use crate::proxy::rewriting::Rewriting;
use crate::proxy::site_limits::SiteLimits;

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
        tls_policy: model.tls_policy.clone(),
        https_port: model.https_port,
        routes,
        tunnel: None,
        hsts: model.hsts.map(hsts_field),
        error_pages: model.error_pages.clone(),
        maintenance: model.maintenance.clone(),
        access: model.access.clone(),
        limits: None,
    }
}

impl Site {
    /// Whether a request that arrived through `channel` is answered. Where connections are passed on,
    /// the only answer is the redirect to TLS, if clients speak that with the server.
    pub(in crate::proxy) fn may_have(&self, channel: Channel<'_>) -> bool {
        let kind = self.tunnel.as_ref().map(|tunnel| tunnel.kind);
        match (kind, channel) {
            (None, _) | (Some(TunnelKind::PassThrough), Channel::Plain) => true,
            (Some(TunnelKind::PassThrough | TunnelKind::Tcp), _) => false,
        }
    }

    /// What the route at an index changes in requests and responses.
    pub(crate) fn rewriting(&self, index: usize) -> Option<&Rewriting> {
        self.routes.get(index)?.rewriting.as_deref()
    }

    /// The path of the route at an index as it is configured; `None` if it is for all paths.
    pub(in crate::proxy) fn route_path(&self, index: usize) -> Option<&str> {
        match &self.routes.get(index)?.path {
            PathMatch::Prefix(path) if **path == *"/" => None,
            path => Some(path.text()),
        }
    }

    /// How responses to requests of the route at an index are compressed, if they are.
    pub(crate) fn compression(&self, index: usize) -> Option<&Arc<model::Compression>> {
        self.routes.get(index)?.compression.as_ref()
    }

    /// The maintenance of the route at an index, or of the site for requests that no route is for.
    pub(crate) fn maintenance(&self, index: Option<usize>) -> Option<&Maintenance> {
        match index.and_then(|index| self.routes.get(index)) {
            Some(route) => route.maintenance.as_deref(),
            None => self.maintenance.as_deref(),
        }
    }

    /// Who may have what the route at an index serves, or the site where no route is for a request.
    pub(crate) fn access(&self, index: Option<usize>) -> Option<&Arc<Access>> {
        match index.and_then(|index| self.routes.get(index)) {
            Some(route) => route.access.as_ref(),
            None => self.access.as_ref(),
        }
    }

    pub(crate) fn error_pages(&self) -> Option<&Arc<ErrorPages>> {
        self.error_pages.as_ref()
    }

    /// `Strict-Transport-Security`, for responses over TLS.
    pub(crate) fn hsts(&self) -> Option<&HeaderValue> {
        self.hsts.as_ref()
    }

    /// Its limits and those of its routes, if there are any.
    pub(crate) fn limits(&self) -> Option<&Arc<SiteLimits>> {
        self.limits.as_ref()
    }

    /// Whether the body of a request is declared larger than the route at an index allows.
    pub(crate) fn refuses_body(&self, index: usize, request: &Request<'_>) -> bool {
        match self.action(index) {
            Some(Action::Proxy(proxy)) if proxy.max_body > 0 => {
                declared_length(request.fields).is_some_and(|length| length > proxy.max_body)
            }
            _ => false,
        }
    }

    /// Whether the route at an index refuses a request because its client has presented no
    /// certificate.
    pub(crate) fn refuses_client(&self, index: usize, request: &Request<'_>) -> bool {
        let route = self.routes.get(index);
        route.is_some_and(|route| route.needs_certificate) && request.client_certificate().is_none()
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
