//! What `edge` speaks to: the gateway's own answers, and Pingora's proxy behind them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_proxy::HttpProxy;

use super::direct_response::{DirectResponder, Prepared, Request};
use super::{Gateway, http_proxy};
use crate::config::model::Config;
use crate::shutdown::ShutdownWatch;

/// Whether the connection of a request of HTTP/1 is kept though Pingora drops it, as it does after
/// each failure of an upstream. Whoever hands over a session leaves one in its user context.
#[derive(Clone, Debug, Default)]
pub struct KeepAlive(Arc<AtomicBool>);

impl KeepAlive {
    /// Notes that a whole answer was sent which says that the connection is kept.
    pub(super) fn grant(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether another request may follow.
    pub fn is_granted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The gateway as an application.
pub struct ProxyApp {
    gateway: Gateway,
    proxy: Arc<HttpProxy<Gateway>>,
}

impl ProxyApp {
    /// With a proxy that keeps at most `kept` idle connections to upstreams.
    pub fn new(gateway: Gateway, config: &Config, kept: usize) -> Self {
        Self {
            proxy: Arc::new(http_proxy(gateway.clone(), config, kept)),
            gateway,
        }
    }
}

impl DirectResponder for ProxyApp {
    fn prepare_response(&self, request: &Request<'_>) -> Option<Prepared> {
        self.gateway.prepare_response(request)
    }

    fn prepare_refusal(&self, status: StatusCode, why: &str, request: &Request<'_>) -> Prepared {
        self.gateway.prepare_refusal(status, why, request)
    }

    fn record_sent(&self, answer: Prepared, request: &Request<'_>, octets: usize) {
        self.gateway.record_sent(&answer, request, octets);
    }
}

/// Written out, since `async_trait` would put one allocation around another.
impl HttpServerApp for ProxyApp {
    fn process_new_http<'a, 'b, 'c>(
        self: &'a Arc<Self>,
        session: ServerSession,
        shutdown: &'b ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.proxy.process_new_http(session, shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    fn http_cleanup<'a, 'c>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'c>>
    where
        'a: 'c,
        Self: 'c,
    {
        self.proxy.http_cleanup()
    }
}
