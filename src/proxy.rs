//! The reverse proxy: what happens to a request between its head and its last octet.
//!
//! [`Gateway`] is Pingora's [`ProxyHttp`]; its phases only call the parts below. Connections,
//! their limits and the reading of HTTP/1 heads are `edge`'s, which drives what [`http_proxy`]
//! makes.

mod answer;
mod authority;
mod balance;
mod exchange;
mod failure;
mod header;
mod path;
mod resolve;
mod route;
mod upstream;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, StatusCode, Version};
use pingora_core::apps::HttpServerOptions;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session};
use prometheus::IntCounter;

pub use self::resolve::{resolve_due, resolve_loop};
pub use self::route::{Site, SiteTable};

use self::answer::Answer;
use self::authority::{Authority, Channel};
use self::exchange::Exchange;
use self::failure::Failure;
use self::header::{Forwarded, Refusal};
use self::route::{Action, Admission};
use self::upstream::UPGRADED_IDLE;
use crate::access_log::AccessLog;
use crate::clock::{Clock, SystemClock};
use crate::config::model::{Config, Limits};
use crate::host::NameBuffer;
use crate::metrics::Metrics;
use crate::tls::TlsInfo;

/// Connections to upstreams that are kept for reuse, for each worker thread.
const KEPT_CONNECTIONS: usize = 1024;

/// The most tries at upstreams for one request, whatever routes say.
const MAX_TRIES: usize = 16;

/// The most octets of a decoded HTTP/2 header list.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// The proxy's phases.
pub struct Gateway {
    sites: Arc<ArcSwap<SiteTable>>,
    access: ArcSwap<AccessLog>,
    limits: Limits,
    refused: Refused,
}

/// Requests that no site answers, by reason.
struct Refused {
    invalid: IntCounter,
    misdirected: IntCounter,
    unknown_host: IntCounter,
}

impl Gateway {
    /// A gateway for the sites that `sites` holds at the time of each request.
    pub fn new(
        sites: Arc<ArcSwap<SiteTable>>,
        metrics: &Metrics,
        access: AccessLog,
        limits: Limits,
    ) -> Self {
        let refused = |reason| metrics.refused.with_label_values(&[reason]);
        Self {
            sites,
            access: ArcSwap::from_pointee(access),
            limits,
            refused: Refused {
                invalid: refused("invalid"),
                misdirected: refused("misdirected"),
                unknown_host: refused("unknown_host"),
            },
        }
    }

    /// Takes another access log from the next line on.
    pub fn set_access_log(&self, access: AccessLog) {
        self.access.store(Arc::new(access));
    }

    /// Decides what to do with a request: the answer to give at once, or `None` where a route
    /// passes it on.
    fn decide(&self, session: &Session, exchange: &mut Exchange) -> Option<Answer> {
        let request = session.req_header();
        let refuse = |refusal: Refusal| {
            let accept = answer::accept(session);
            Some(Answer::error(
                refusal.0,
                refusal.1,
                accept,
                exchange.request_id(),
            ))
        };
        if let Err(refusal) = header::check(request) {
            self.refused.invalid.inc();
            return refuse(refusal);
        }
        let mut buffer = NameBuffer::new();
        let Some(authority) = Authority::parse(authority::of(request), &mut buffer) else {
            self.refused.invalid.inc();
            return refuse(Refusal(
                StatusCode::BAD_REQUEST,
                "The host is not a valid one.",
            ));
        };
        let sites = self.sites.load();
        let target = header::origin_form(request);
        let site = match sites.admit(authority.host, channel(session)) {
            Admission::Serve(site) => site,
            Admission::Misdirected => {
                self.refused.misdirected.inc();
                return refuse(Refusal(
                    StatusCode::MISDIRECTED_REQUEST,
                    "This host is not served on this connection.",
                ));
            }
            Admission::ToTls(site, port) => {
                exchange.site = Some(Arc::clone(site));
                return Some(to_tls(authority, port, target));
            }
            Admission::Unknown => {
                self.refused.unknown_host.inc();
                return refuse(Refusal(StatusCode::NOT_FOUND, "No site has this host."));
            }
        };
        let found = site.find(path::without_query(target));
        let refusal = match found.map(|index| index.and_then(|at| Some((at, site.route(at)?)))) {
            Ok(Some((index, route))) => {
                exchange.site = Some(Arc::clone(site));
                exchange.route = Some(index);
                return match &route.action {
                    Action::Answer(answer) => Some(answer.clone()),
                    Action::Proxy(_) => None,
                };
            }
            Ok(None) => Refusal(StatusCode::NOT_FOUND, "There is nothing at this path."),
            Err(route::Ambiguous) => Refusal(
                StatusCode::BAD_REQUEST,
                "The path can be read in more than one way.",
            ),
        };
        let answer = refuse(refusal);
        exchange.site = Some(Arc::clone(site));
        answer
    }
}

/// Makes the proxy that `edge` hands connections and requests to.
pub fn http_proxy(gateway: Gateway, config: &Config) -> HttpProxy<Gateway> {
    let server = ServerConf {
        threads: config.server.threads,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        max_retries: MAX_TRIES,
        ..ServerConf::default()
    };
    let limits = &config.server.limits;
    let mut proxy = HttpProxy::new(gateway, Arc::new(server));
    proxy.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.idle);
    proxy.server_options = Some(options);
    let mut h2 = H2Options::default();
    h2.max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(limits.h2_streams);
    proxy.h2_options = Some(h2);
    proxy
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        session.set_read_timeout(Some(self.limits.idle));
        session.set_write_timeout(Some(self.limits.idle));
        session.set_total_drain_timeout(Some(self.limits.idle));
        // A client of HTTP/1.0 knows no answers before the last one.
        let old = session.req_header().version == Version::HTTP_10;
        session.set_ignore_info_resp(old);
        exchange.client = client(session);
        if let Some(answer) = self.decide(session, exchange) {
            answer.send(session, exchange.request_id_value()).await?;
            return Ok(true);
        }
        if header::is_websocket(session.req_header()) {
            exchange.websocket = true;
            session.set_read_timeout(Some(UPGRADED_IDLE));
        } else {
            session.req_header_mut().remove_header(&UPGRADE);
        }
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        let Some((proxy, choice)) = exchange.proxy().map(|proxy| (proxy, proxy.pool.next())) else {
            return Err(Error::explain(ErrorType::InternalError, "the route is gone").into_in());
        };
        let chosen = choice.and_then(|choice| Some((proxy.pool.peer(&choice)?, choice)));
        let Some((mut peer, choice)) = chosen else {
            proxy.pool.attempts.unresolved.inc();
            let why = "no server of the upstream has an address yet";
            return Err(Error::explain(ErrorType::HTTPStatus(502), why).into_up());
        };
        peer.options.connection_timeout = Some(proxy.connect_timeout);
        peer.options.total_connection_timeout = Some(proxy.connect_timeout);
        let patience = if exchange.websocket {
            UPGRADED_IDLE
        } else {
            proxy.read_timeout
        };
        peer.options.read_timeout = Some(patience);
        exchange.choice = Some(choice);
        exchange.tries = exchange.tries.saturating_add(1);
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.connected(reused);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing has been sent, so any request can be tried elsewhere.
        error.set_retry(exchange.connect_failed());
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        client_reused: bool,
    ) -> Box<Error> {
        let repeatable = session.req_header().method.is_idempotent()
            && !session.retry_buffer_truncated()
            && session.response_written().is_none();
        error.set_retry(exchange.exchange_failed(&error, client_reused, repeatable));
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let target = header::origin_form(session.req_header());
        if target != request.raw_path() {
            request.set_raw_path(target)?;
        }
        header::join_cookies(request)?;
        let channel = channel(session);
        Forwarded {
            client: exchange.client,
            tls: matches!(channel, Channel::Tls(_)),
            host: host_field(session.req_header())?,
            port: session
                .server_addr()
                .and_then(|a| a.as_inet())
                .map(|address| address.port()),
            request_id: exchange.request_id_value(),
        }
        .write(request)
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        header::clean_response(response, exchange.websocket)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if !response.status.is_informational() {
            response.insert_header(header::REQUEST_ID, exchange.request_id_value())?;
        }
        if session.req_header().version == Version::HTTP_10 {
            // The end of the connection ends the body there.
            response.remove_header(&TRANSFER_ENCODING);
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let failure = Failure::of(error, session.is_body_done());
        exchange.failed(failure, error);
        // A part of an answer is left as it is: its connection or stream is cut, so that nobody
        // takes it for the whole.
        let begun = session.response_written().is_some_and(|head| {
            !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
        });
        let mut error_code = failure::CLIENT_GONE;
        if let Some((status, why)) = failure.answer() {
            error_code = status.as_u16();
            if !begun {
                let accept = answer::accept(session);
                let page = Answer::error(status, why, accept, exchange.request_id());
                session.set_keepalive(None);
                // Where the client cannot take it there is nobody to tell.
                _ = page.send(session, exchange.request_id_value()).await;
            }
        }
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, exchange: &mut Exchange) {
        let access = self.access.load();
        exchange.log(session, &access, SystemClock.now());
    }
}

/// Whether a request came over TLS, and what is known of its handshake.
fn channel(session: &Session) -> Channel<'_> {
    match session
        .digest()
        .and_then(|digest| digest.ssl_digest.as_ref())
    {
        Some(tls) => Channel::Tls(tls.extension.get::<TlsInfo>()),
        None => Channel::Plain,
    }
}

/// The address of the client.
fn client(session: &Session) -> Option<IpAddr> {
    session
        .client_addr()?
        .as_inet()
        .map(|address| address.ip().to_canonical())
}

/// The authority as upstreams get it: in normal form, with the port where the client named one.
fn host_field(request: &RequestHeader) -> Result<HeaderValue> {
    let raw = authority::of(request);
    let mut buffer = NameBuffer::new();
    let invalid = || Error::explain(ErrorType::HTTPStatus(400), "the host is not a valid one");
    let authority = Authority::parse(raw, &mut buffer).ok_or_else(invalid)?;
    let normal = authority.to_string();
    match request.headers.get(HOST) {
        Some(host) if host.as_bytes() == normal.as_bytes() => Ok(host.clone()),
        _ => HeaderValue::try_from(normal).map_err(|_| invalid()),
    }
}

/// The redirect of a plain request to TLS, with its method kept (308).
fn to_tls(authority: Authority<'_>, port: u16, target: &[u8]) -> Answer {
    let host = Authority {
        port: (port != 443).then_some(port),
        ..authority
    };
    let location = [b"https://", host.to_string().as_bytes(), target].concat();
    HeaderValue::try_from(Bytes::from(location).to_vec()).map_or_else(
        |_| Answer::status(StatusCode::BAD_REQUEST),
        |to| Answer::redirect(StatusCode::PERMANENT_REDIRECT, to),
    )
}
