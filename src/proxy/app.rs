//! The gateway as an application: it responds itself where a request's head suffices, and passes all
//! other requests on, over its own lane or over Pingora's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::StatusCode;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_proxy::HttpProxy;

use super::authentication::Denial;
use super::decision::{Decision, Step, apply_user_limit};
use super::file_transfer::transfer_file;
use super::forward::{Carried, Client, forward};
use super::header::is_websocket;
use super::prepared::Prepared;
use super::refusal::Refusal;
use super::request::Request;
use super::request_ctx::RequestCtx;
use super::route::Site;
use super::tunnel::{self, Opening, TunnelClient};
use super::{Gateway, http_proxy};
use crate::config::model::{Config, ListenAddress, Protocol};
use crate::shutdown::ShutdownWatch;
use crate::tls::TlsInfo;

/// Octets of a response that are buffered for one HTTP/2 stream. The edge bounds what all streams of
/// a connection have there; Pingora's proxy does not, and has less for each.
const OWN_SEND_BUFFER: usize = 128 * 1024;

/// An application that can respond by itself, and passes requests on.
pub trait DirectResponder: HttpServerApp {
    /// Decides what to do with a request.
    fn route(&self, request: &Request<'_>) -> Routed;

    /// Decides what to do with a request that may be a CA's, which takes a look into the storage.
    fn route_validation(&self, request: &Request<'_>) -> impl Future<Output = Routed> + Send;

    /// Finds out who sends a request, and decides what to do with it then. `gone` is ready once the
    /// client is gone, which ends the search.
    fn authorize(
        &self,
        decision: Decision,
        request: &Request<'_>,
        gone: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Routed> + Send;

    /// Does what else it takes to decide what to do with a request, until the client is `gone`.
    fn complete_routing(
        &self,
        routed: Routed,
        request: &Request<'_>,
        gone: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Routed> + Send
    where
        Self: Sync,
    {
        async move {
            let routed = match routed {
                Routed::Validation => self.route_validation(request).await,
                routed => routed,
            };
            match routed {
                Routed::Authorize(decision) => self.authorize(decision, request, gone).await,
                routed => routed,
            }
        }
    }

    /// Passes a request on, and its response to the client.
    fn forward<C: Client>(
        &self,
        decision: Decision,
        request: &Request<'_>,
        client: &mut C,
    ) -> impl Future<Output = Carried> + Send;

    /// The site whose connections are passed through, by the name that a ClientHello requests and the
    /// address that its connection was accepted at.
    fn passed_through(&self, name: &[u8], place: Option<&ListenAddress>) -> Option<Arc<Site>>;

    /// Whether a CA is about to validate this name over TLS for the gateway.
    fn awaits_validation(&self, name: &[u8]) -> bool;

    /// The site that gets the octets within a TLS connection that was accepted at `place`, if it was
    /// made for one that does.
    fn terminated_for(&self, info: &TlsInfo, place: Option<&ListenAddress>) -> Option<Arc<Site>>;

    /// Passes the octets of a connection for `site` on, until the connection ends.
    fn tunnel<C: TunnelClient>(
        &self,
        site: &Arc<Site>,
        opening: Opening<'_>,
        client: &mut C,
    ) -> impl Future<Output = ()> + Send;

    /// The response to a request that is refused as malformed: `why` is a clause that says what is
    /// wrong with it. It is to be passed to [`Self::record_sent`].
    fn prepare_refusal(
        &self,
        status: StatusCode,
        why: &'static str,
        request: &Request<'_>,
    ) -> Prepared;

    /// Counts and logs a response that has been sent, with so many octets after its head.
    fn record_sent(&self, response: Prepared, request: &Request<'_>, octets: usize);
}

/// What to do with a request whose head has been read.
pub enum Routed {
    /// Send this, and pass it to [`DirectResponder::record_sent`].
    Respond(Box<Prepared>),
    /// Pass the request to [`DirectResponder::forward`].
    Forward(Decision),
    /// Pass the request to [`HttpServerApp::process_new_http`], with what was decided.
    Process(Decision),
    /// Ask [`DirectResponder::route_validation`].
    Validation,
    /// Ask [`DirectResponder::authorize`].
    Authorize(Decision),
    /// The client is gone, and the request has been recorded.
    Gone,
}

/// How requests reach their servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lane {
    /// On the edge's own streams.
    #[default]
    Own,
    /// Through Pingora's proxy.
    Pingora,
}

/// The gateway as an application.
pub struct ProxyApp {
    gateway: Gateway,
    proxy: Arc<HttpProxy<Gateway>>,
    lane: Lane,
}

impl ProxyApp {
    /// An application whose proxy keeps at most `kept` idle connections to upstreams.
    pub fn new(gateway: Gateway, config: &Config, kept: usize) -> Self {
        Self {
            proxy: Arc::new(http_proxy(gateway.clone(), config, kept)),
            gateway,
            lane: Lane::default(),
        }
    }

    /// Sends requests over this lane.
    #[must_use]
    pub fn with_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }

    fn decide(&self, request: &Request<'_>) -> Routed {
        let decision = self.gateway.router.route(request);
        match decision.relayed.clone() {
            None => self.follow(decision, request),
            Some(relayed) => self.follow(decision, &request.through(Some(&relayed))),
        }
    }

    /// Takes the next step with a request.
    fn follow(&self, decision: Decision, request: &Request<'_>) -> Routed {
        match decision.needs_identity() {
            true => Routed::Authorize(decision),
            false => self.proceed(decision, None, request),
        }
    }

    /// Does what was decided, unless the request is refused for another reason.
    fn proceed(&self, decision: Decision, denial: Option<Denial>, request: &Request<'_>) -> Routed {
        let denial = match decision.step() {
            _ if denial.is_some() => denial,
            Step::Respond(_) | Step::Redirect(_) => None,
            Step::Files(_) => return Routed::Forward(decision),
            Step::Refuse(refusal) => Some(refusal.into()),
            Step::Pass(proxy) => {
                // Pingora's proxy cannot take a response back, nor replace it, and speaks no HTTP/2
                // with servers.
                let needs_own_lane = || {
                    let pages = decision.error_pages();
                    proxy.retries.on.has_statuses()
                        || pages.is_some_and(|pages| pages.has_upstream())
                        || proxy.pool.protocol() != Protocol::Http1
                        || decision.needs_own_lane()
                        || (request.is_http2() && is_websocket(request))
                };
                return match self.lane {
                    Lane::Pingora if !needs_own_lane() => Routed::Process(decision),
                    Lane::Own | Lane::Pingora => Routed::Forward(decision),
                };
            }
        };
        let mut ctx = RequestCtx::new();
        let taken = ctx.take_decision(decision, request);
        let denial = denial.or_else(|| taken.err().map(Denial::from));
        Routed::Respond(Box::new(match denial {
            Some(denial) => self.gateway.prepare_denial(ctx, denial, request),
            None => Prepared::new(ctx, None, request),
        }))
    }
}

impl DirectResponder for ProxyApp {
    fn route(&self, request: &Request<'_>) -> Routed {
        let router = &self.gateway.router;
        if router.is_validation(request) {
            return Routed::Validation;
        }
        self.decide(request)
    }

    async fn route_validation(&self, request: &Request<'_>) -> Routed {
        self.gateway.router.look_up_validation(request).await;
        self.decide(request)
    }

    async fn authorize(
        &self,
        mut decision: Decision,
        request: &Request<'_>,
        gone: impl Future<Output = ()> + Send,
    ) -> Routed {
        let relayed = decision.relayed.clone();
        let request = &request.through(relayed.as_deref());
        let authenticator = &self.gateway.authenticator;
        let authenticated = tokio::select! {
            biased;
            authenticated = decision.authenticate(authenticator, request) => Some(authenticated),
            () = gone => None,
        };
        let Some(authenticated) = authenticated else {
            let mut ctx = RequestCtx::new();
            // Nothing is sent, whatever the route would make of it.
            _ = ctx.take_decision(decision, request);
            self.gateway.record_request(&ctx, None, 0, request);
            return Routed::Gone;
        };
        let denial = authenticated.err();
        if denial.is_none() {
            apply_user_limit(&mut decision, request);
        }
        self.proceed(decision, denial, request)
    }

    async fn forward<C: Client>(
        &self,
        decision: Decision,
        request: &Request<'_>,
        client: &mut C,
    ) -> Carried {
        let gateway = &self.gateway;
        match (decision.files().is_some(), decision.relayed.clone()) {
            (false, None) => forward(gateway, decision, request, client).await,
            // In a box, since it needs more room than what is passed on.
            (true, relayed) => {
                let request = request.through(relayed.as_deref());
                Box::pin(transfer_file(gateway, decision, &request, client)).await
            }
            // In a box, since few requests are relayed.
            (false, Some(relayed)) => {
                let request = request.through(Some(&relayed));
                Box::pin(forward(gateway, decision, &request, client)).await
            }
        }
    }

    fn passed_through(&self, name: &[u8], place: Option<&ListenAddress>) -> Option<Arc<Site>> {
        self.gateway.router.passed_through(name, place)
    }

    fn awaits_validation(&self, name: &[u8]) -> bool {
        self.gateway.router.awaits_validation(name)
    }

    fn terminated_for(&self, info: &TlsInfo, place: Option<&ListenAddress>) -> Option<Arc<Site>> {
        let site = self.gateway.router.terminated_for(info, place);
        if site.is_none() {
            self.gateway.refused.count(Refusal::Misdirected);
            tracing::debug!(
                server_name = info.server_name.as_ref().map(tracing::field::display),
                "a connection is closed: what it was made for is not served on it",
            );
        }
        site
    }

    async fn tunnel<C: TunnelClient>(
        &self,
        site: &Arc<Site>,
        opening: Opening<'_>,
        client: &mut C,
    ) {
        tunnel::carry(&self.gateway, site, opening, client).await;
    }

    fn prepare_refusal(
        &self,
        status: StatusCode,
        why: &'static str,
        request: &Request<'_>,
    ) -> Prepared {
        let refusal = Refusal::Invalid(status, "The request is malformed.");
        let decision = self.gateway.router.refuse(refusal, request);
        let relayed = decision.relayed.clone();
        let request = &request.through(relayed.as_deref());
        let mut ctx = RequestCtx::new();
        self.gateway.refused.count(refusal);
        ctx.record_refusal(refusal);
        // No route rewrites anything.
        _ = ctx.take_decision(decision, request);
        ctx.record_refusal(Refusal::Invalid(status, why));
        let mut sentence = why.to_owned();
        if let Some(first) = sentence.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        sentence.push('.');
        let page = ctx.error_page(status, &sentence, request);
        Prepared::new(ctx, Some(page), request)
    }

    fn record_sent(&self, response: Prepared, request: &Request<'_>, octets: usize) {
        let status = Some(response.status());
        self.gateway
            .record_request(&response.ctx, status, octets, request);
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
        let mut options = self.proxy.h2_options()?;
        if self.lane == Lane::Own {
            options.max_send_buffer_size(OWN_SEND_BUFFER);
        }
        Some(options)
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
