//! The reverse proxy: what happens to a request between its head and its last octet.
//!
//! [`ProxyApp`] decides what to do with a request. It responds itself, or passes the request on: over
//! a lane of its own, [`forward`], or through Pingora's proxy, whose phases are those of
//! [`Gateway`]. Connections, their limits and the reading of HTTP/1 heads belong to `edge`.

mod accept_encoding;
mod admission;
mod alarm;
mod app;
mod authentication;
mod authority;
mod availability;
mod balance;
mod body;
mod coded_fields;
mod connection;
mod connection_limit;
mod deadline;
mod decision;
mod dial;
mod drain;
mod encoder;
mod encodings;
mod endpoint;
mod error_page;
mod explain;
mod failure;
mod failure_reason;
mod file_transfer;
mod files;
mod flow;
mod forward;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod granted;
mod grpc;
mod handover;
mod hash;
mod head_watch;
mod header;
mod health;
mod http2;
mod known_addresses;
mod link;
mod matcher;
mod no_server;
mod overload;
mod path;
mod phase_ctx;
mod phases;
mod prepared;
mod progress;
mod proxy_header;
mod race;
mod rate_limit;
mod redirect;
mod refusal;
mod relayed;
mod request;
mod request_ctx;
mod request_id;
mod resolve;
mod response;
mod response_fields;
mod response_head;
mod retry;
mod retry_budget;
mod rewriting;
mod route;
mod server;
mod server_tls;
mod session_body;
mod site_limits;
mod slots;
mod sticky;
mod system_roots;
mod template;
mod tls_failure;
mod tls_policy;
mod tls_stream;
mod token_keys;
mod trailers;
mod tunnel;
mod upstream;
mod warm_up;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;

pub use self::app::{DirectResponder, Lane, ProxyApp, Routed};
pub(crate) use self::authority::Authority;
pub use self::availability::Standing;
pub(crate) use self::body::Body as HeldBody;
pub use self::connection_limit::Held;
pub use self::decision::Decision;
pub(crate) use self::dial::queued;
pub use self::explain::{Answer, Explanation, Question, Reason};
pub use self::flow::{Flow, Write};
pub use self::forward::{Carried, Client, ResponseBody, ResponseHead};
pub use self::framing::Framing;
pub use self::handover::{Handover, KeepAlive};
pub use self::health::health_loop;
pub use self::overload::{Overload, overload_loop};
pub use self::prepared::Prepared;
pub(crate) use self::proxy_header::Addresses;
pub(crate) use self::request::is_well_formed;
pub use self::request::{Fields, Request};
pub use self::resolve::{resolve_loop, resolve_new};
pub use self::route::{Site, SiteTable};
pub(crate) use self::session_body::{
    BODY_END, DRAIN_LIMIT, DRAIN_TIMEOUT, IDLE_AFTER, IDLE_BEFORE,
};
pub use self::sticky::StickyKey;
pub use self::token_keys::token_key_loop;
pub use self::trailers::{check_size as check_trailers, parse_trailers, write_last_chunk};
pub use self::tunnel::{Opening, TunnelClient};
pub use self::upstream::{EndpointView, Pool};

use self::authentication::{Authenticator, Denial};
use self::connection_limit::{ConnectionLimit, Resource};
use self::decision::Router;
use self::dial::Dialer;
use self::failure_reason::FailureCounters;
use self::file_transfer::FileReaders;
use self::refusal::{Refusal, RefusalCounters};
use self::request_ctx::{RequestCtx, RequestRecord, record_spans};
use self::response::LocalResponse;
use crate::access_log::AccessLog;
use crate::clock::{Clock as _, SystemClock, UnixTime};
use crate::config::model::Config;
use crate::metrics::{Metrics, Traced};
use crate::throttle::Throttle;
use crate::tls::GlobalCertificate;
use crate::trace::Tracer;

/// The most lines in the access log, in a second, for requests that are refused and have no site.
const REFUSED_LINES: u32 = 500;

/// The most connections to upstreams that each worker thread keeps for reuse.
const KEPT_CONNECTIONS: usize = 1024;

/// The most attempts at upstreams for one request, whatever its route allows.
const MAX_TRIES: usize = 16;

/// The most octets of a decoded HTTP/2 header list.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Octets of request bodies that an HTTP/2 client may send ahead, on one stream and on all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Octets of a response that are buffered for an HTTP/2 stream whose client does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that an HTTP/2 client may make the gateway reset before its connection is closed.
const MAX_RESETS: usize = 256;

/// The proxy's phases. A handle; clones share the state.
#[derive(Clone)]
pub struct Gateway {
    router: Router,
    access: Arc<ArcSwap<AccessLog>>,
    refused_lines: Arc<Throttle>,
    refused: RefusalCounters,
    failed: FailureCounters,
    connection_limit: Arc<ConnectionLimit>,
    file_limit: Arc<ConnectionLimit>,
    dialer: Dialer,
    file_readers: FileReaders,
    authenticator: Authenticator,
}

impl Gateway {
    /// A gateway for the sites that `sites` holds at the time of each request. `access` may be
    /// replaced while it runs. `certificates` holds pending validations, and knows which hosts can
    /// be reached by TLS.
    pub fn new(
        sites: Arc<ArcSwap<SiteTable>>,
        metrics: &Metrics,
        access: Arc<ArcSwap<AccessLog>>,
        certificates: GlobalCertificate,
    ) -> Self {
        Self {
            router: Router::new(sites, certificates),
            access,
            refused_lines: Arc::new(Throttle::per_second(REFUSED_LINES)),
            refused: RefusalCounters::new(metrics),
            failed: FailureCounters::new(metrics),
            connection_limit: Arc::default(),
            file_limit: Arc::new(ConnectionLimit::of(Resource::File)),
            dialer: Dialer::default(),
            file_readers: FileReaders::default(),
            authenticator: Authenticator::default(),
        }
    }

    /// Ignores certificates that had expired at `started`.
    pub fn with_start_time(self, started: UnixTime) -> Self {
        let router = self.router.with_start_time(started);
        Self { router, ..self }
    }

    /// Begins traces of requests with `tracer`.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        let router = self.router.with_tracer(tracer);
        Self { router, ..self }
    }

    /// Limits how many connections to upstreams requests use at a time, whatever the configuration
    /// allows.
    #[must_use]
    pub fn with_upstream_connections(self, most: usize) -> Self {
        self.connection_limit.set_most_used(most);
        self
    }

    /// Limits how many files are sent at a time.
    #[must_use]
    pub fn with_files(self, most: usize) -> Self {
        self.file_limit.set_most_used(most);
        self
    }

    /// What refuses requests when there are too many.
    pub fn overload(&self) -> Overload {
        Overload {
            upstreams: Arc::clone(&self.connection_limit),
            files: Arc::clone(&self.file_limit),
        }
    }

    /// The response to a request that is not served.
    fn prepare_page(&self, ctx: RequestCtx, refusal: Refusal, request: &Request<'_>) -> Prepared {
        self.prepare_denial(ctx, refusal.into(), request)
    }

    /// The same for a request that may be refused with the response of somebody else.
    fn prepare_denial(
        &self,
        mut ctx: RequestCtx,
        denial: Denial,
        request: &Request<'_>,
    ) -> Prepared {
        // The client's next connection meets what the site demands, this one never will.
        let closes = denial.refusal == Refusal::Outdated;
        let page = self.page(&mut ctx, denial, request);
        Prepared::new(ctx, Some(page), request).closing(closes)
    }

    fn page(&self, ctx: &mut RequestCtx, denial: Denial, request: &Request<'_>) -> LocalResponse {
        let refusal = denial.refusal;
        self.refused.count(refusal);
        ctx.record_refusal(refusal);
        match denial.response {
            Some(response) => *response,
            None => ctx.refusal_page(refusal, request),
        }
    }

    /// Decides what to do with a request that the edge has not seen.
    async fn decide(&self, request: &Request<'_>) -> (Decision, Option<Denial>) {
        self.router.look_up_validation(request).await;
        let mut decision = self.router.route(request);
        let relayed = decision.relayed.clone();
        let request = request.through(relayed.as_deref());
        let authenticated = decision.authenticate(&self.authenticator, &request).await;
        (decision, authenticated.err())
    }

    /// Responds to a request that is not served.
    fn refuse(&self, ctx: RequestCtx, refusal: Refusal, request: &Request<'_>) -> Carried {
        Carried::Respond(Box::new(self.prepare_page(ctx, refusal, request)))
    }

    /// Counts and logs a request that has ended, with so many octets after the response's head.
    /// `written` is the status of that, if it was begun.
    fn record_request(
        &self,
        ctx: &RequestCtx,
        written: Option<StatusCode>,
        octets: usize,
        request: &Request<'_>,
    ) {
        let status = ctx.status(written);
        let failed = ctx.failure_reason(written);
        if let Some(reason) = failed {
            self.failed.count(reason);
        }
        let at = |id| Traced {
            id,
            at: SystemClock.now(),
        };
        ctx.count(status, octets, ctx.trace_id(request).map(at));
        if let Some(tracer) = self.router.tracer() {
            record_spans(tracer, ctx, request, status);
        }
        let access = self.access.load();
        if !access.is_on() {
            return;
        }
        let held_back = match ctx.is_stray() {
            true => self.refused_lines.admit(),
            false => Some(0),
        };
        if let Some(held_back) = held_back {
            access.write(&RequestRecord {
                ctx,
                request,
                status,
                failed,
                bytes: octets,
                now: SystemClock.now(),
                held_back,
            });
        }
    }
}

/// Pingora's proxy with the phases of `gateway`, for [`ProxyApp`] or any Pingora program. It keeps
/// at most `kept` idle connections to upstreams.
pub fn http_proxy(gateway: Gateway, config: &Config, kept: usize) -> HttpProxy<Gateway> {
    let threads = config.server.threads.max(1);
    gateway
        .connection_limit
        .set_most_idle(kept.clamp(1, KEPT_CONNECTIONS.saturating_mul(threads)));
    let server = ServerConf {
        threads: config.server.threads,
        upstream_keepalive_pool_size: (kept / config.server.threads.max(1))
            .clamp(1, KEPT_CONNECTIONS),
        max_retries: MAX_TRIES,
        ..ServerConf::default()
    };
    let mut proxy = HttpProxy::new(gateway, Arc::new(server));
    proxy.handle_init_modules();
    let mut h2 = H2Options::default();
    h2.max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(MAX_RESETS));
    proxy.h2_options = Some(h2);
    proxy
}
