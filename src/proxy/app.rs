//! The gateway as an application: it responds itself where a request's head suffices, and hands all
//! other requests to Pingora's proxy.
//!
//! A direct response takes a fraction of the time that the way through Pingora's proxy takes, which
//! is made for upstreams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_proxy::HttpProxy;

use super::decision::{Decision, Step};
use super::request::Request;
use super::request_ctx::RequestCtx;
use super::response::LocalResponse;
use super::{Gateway, header, http_proxy};
use crate::clock::{Clock, SystemClock};
use crate::config::model::Config;
use crate::shutdown::ShutdownWatch;

/// An application that can respond by itself.
pub trait DirectResponder: HttpServerApp {
    /// Decides what to do with a request that has no body and asks for nothing special.
    fn route(&self, request: &Request<'_>) -> Routed;

    /// The response to a request that is refused as malformed: `why` is a clause that says what is
    /// wrong with it. It is to be passed to [`Self::record_sent`].
    fn prepare_refusal(&self, status: StatusCode, why: &str, request: &Request<'_>) -> Prepared;

    /// Counts and logs a response that has been sent, with so many octets after its head.
    fn record_sent(&self, response: Prepared, request: &Request<'_>, octets: usize);
}

/// What to do with a request whose head has been read.
pub enum Routed {
    /// Send this, and pass it to [`DirectResponder::record_sent`].
    Respond(Box<Prepared>),
    /// Pass the request to [`HttpServerApp::process_new_http`], with what was decided; `None` if
    /// that takes more than the head.
    Forward(Option<Decision>),
}

/// A response that is ready to be sent, and the context of its request.
pub struct Prepared {
    ctx: RequestCtx,
    /// `None` if it is the one that was decided for the request.
    page: Option<LocalResponse>,
    /// Whether the client requests the head alone.
    head_alone: bool,
}

impl Prepared {
    fn new(ctx: RequestCtx, page: Option<LocalResponse>, request: &Request<'_>) -> Self {
        Self {
            ctx,
            page,
            head_alone: request.method == "HEAD",
        }
    }

    fn response(&self) -> Option<&LocalResponse> {
        self.page.as_ref().or_else(|| self.ctx.response())
    }

    pub fn status(&self) -> StatusCode {
        self.response()
            .map_or(StatusCode::INTERNAL_SERVER_ERROR, LocalResponse::code)
    }

    /// The fields of its head, without those of the connection and the time.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let own = self.response().into_iter().flat_map(LocalResponse::fields);
        let id = self.ctx.request_id_value().clone();
        own.chain([(header::REQUEST_ID, id)])
    }

    /// What follows the head, if anything.
    pub fn body(&self) -> Option<&Bytes> {
        let response = self.response().filter(|_| !self.head_alone)?;
        response.body()
    }
}

/// The gateway as an application.
pub struct ProxyApp {
    gateway: Gateway,
    proxy: Arc<HttpProxy<Gateway>>,
}

impl ProxyApp {
    /// An application whose proxy keeps at most `kept` idle connections to upstreams.
    pub fn new(gateway: Gateway, config: &Config, kept: usize) -> Self {
        Self {
            proxy: Arc::new(http_proxy(gateway.clone(), config, kept)),
            gateway,
        }
    }
}

impl DirectResponder for ProxyApp {
    fn route(&self, request: &Request<'_>) -> Routed {
        let router = &self.gateway.router;
        if router.is_validation(request) {
            return Routed::Forward(None);
        }
        let decision = router.route(request);
        match decision.step() {
            // 400 ends the connection.
            Step::Respond(response)
                if request.is_read() && response.code() != StatusCode::BAD_REQUEST =>
            {
                let ctx = RequestCtx::decided(decision, request.client);
                Routed::Respond(Box::new(Prepared::new(ctx, None, request)))
            }
            Step::Respond(_) | Step::Refuse(_) | Step::Pass(_) => Routed::Forward(Some(decision)),
        }
    }

    fn prepare_refusal(&self, status: StatusCode, why: &str, request: &Request<'_>) -> Prepared {
        let mut ctx = RequestCtx::new();
        ctx.client = request.client;
        let mut sentence = why.to_owned();
        if let Some(first) = sentence.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        sentence.push('.');
        let accept = request.fields.get(&ACCEPT);
        let page = LocalResponse::error(status, &sentence, accept, ctx.request_id());
        Prepared::new(ctx, Some(page), request)
    }

    fn record_sent(&self, response: Prepared, request: &Request<'_>, octets: usize) {
        let status = response.status().as_u16();
        let ctx = &response.ctx;
        ctx.count_status(status);
        let access = self.gateway.access.load();
        if access.is_on() {
            ctx.log_request(status, octets, request, &access, SystemClock.now());
        }
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
