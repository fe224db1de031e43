//! What a route does with requests.

use std::sync::Arc;
use std::time::Duration;

use crate::config::model;
use crate::metrics::TunnelMetrics;
use crate::proxy::redirect::Redirect;
use crate::proxy::response::LocalResponse;
use crate::proxy::upstream::Pool;

/// What a route does with a request.
pub(crate) enum Action {
    Respond(LocalResponse),
    Redirect(Redirect),
    Proxy(Proxy),
    Files(Arc<model::Files>),
}

/// How the octets of a site's connections are passed on.
pub(crate) struct Tunnel {
    pub(crate) kind: model::TunnelKind,
    /// What concerns requests alone has no meaning.
    pub(crate) proxy: Proxy,
    /// How long no octet may pass in either direction.
    pub(crate) idle: Duration,
    /// How many connections to upstreams there may be at a time, 0 for as many as there is room for.
    pub(crate) upstream_connections: usize,
    pub(crate) metrics: Arc<TunnelMetrics>,
}

/// How a request is passed on.
pub(crate) struct Proxy {
    pub(crate) pool: Arc<Pool>,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) send_timeout: Duration,
    /// For the whole request, until the end of its response.
    pub(crate) total_timeout: Option<Duration>,
    /// The most octets of a request's body, 0 for any number.
    pub(crate) max_body: u64,
    pub(crate) retries: model::Retries,
}
