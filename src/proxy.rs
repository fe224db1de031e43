//! The reverse proxy: what happens to a request between its head and its last octet.
//!
//! [`Gateway`] is Pingora's [`ProxyHttp`]; its phases only call the parts below. Connections,
//! their limits and the reading of HTTP/1 heads are `edge`'s, which drives what [`http_proxy`]
//! makes.

mod app;
mod authority;
mod balance;
mod body;
mod challenge;
mod connection_limit;
mod deadline;
mod dial;
mod direct_response;
mod failure;
mod flow;
mod header;
mod link;
mod path;
mod phases;
mod request_ctx;
mod resolve;
mod response;
mod route;
mod server;
mod upstream;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderValue, StatusCode};
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, Session};
use prometheus::IntCounter;

pub use self::app::{KeepAlive, ProxyApp};
pub(crate) use self::authority::Authority;
pub use self::direct_response::{DirectResponder, Fields, Prepared, Request};
pub use self::flow::{Flow, Write};
pub use self::resolve::{resolve_due, resolve_loop};
pub use self::route::{Site, SiteTable};

use self::authority::Channel;
use self::connection_limit::ConnectionLimit;
use self::dial::Dialer;
use self::header::Refusal;
use self::request_ctx::RequestCtx;
use self::response::LocalResponse;
use self::route::{Action, Admission};
use crate::access_log::AccessLog;
use crate::certificate::sni::CertificateSet;
use crate::clock::UnixTime;
use crate::config::model::Config;
use crate::host::{Host, NameBuffer};
use crate::metrics::Metrics;
use crate::tls::{GlobalCertificate, TlsInfo};

/// The most connections to upstreams that each worker thread keeps for reuse.
const KEPT_CONNECTIONS: usize = 1024;

/// The most tries at upstreams for one request, whatever routes say.
const MAX_TRIES: usize = 16;

/// The most octets of a decoded HTTP/2 header list.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Octets of request bodies that an HTTP/2 client may send ahead, on one stream and on all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Octets of an answer that are held for an HTTP/2 stream whose client does not take them.
const SEND_BUFFER: usize = 32 * 1024;

/// Streams that an HTTP/2 client may make the gateway reset before its connection is closed.
const MAX_RESETS: usize = 256;

/// The proxy's phases. A handle; clones share the state.
#[derive(Clone)]
pub struct Gateway {
    sites: Arc<ArcSwap<SiteTable>>,
    access: Arc<ArcSwap<AccessLog>>,
    certificates: GlobalCertificate,
    /// Certificates that ended before are of no use.
    started: UnixTime,
    refused: Refused,
    connection_limit: Arc<ConnectionLimit>,
    dialer: Dialer,
}

/// Requests that no site answers, by reason.
#[derive(Clone)]
struct Refused {
    invalid: IntCounter,
    misdirected: IntCounter,
    unknown_host: IntCounter,
    no_room: IntCounter,
}

impl Gateway {
    /// A gateway for the sites that `sites` holds at the time of each request. `access` may be
    /// replaced while it runs. `certificates` says what CAs that validate names are answered, and
    /// which hosts can be reached by TLS.
    pub fn new(
        sites: Arc<ArcSwap<SiteTable>>,
        metrics: &Metrics,
        access: Arc<ArcSwap<AccessLog>>,
        certificates: GlobalCertificate,
    ) -> Self {
        let refused = |reason| metrics.refused.with_label_values(&[reason]);
        Self {
            sites,
            access,
            certificates,
            started: UnixTime::MIN,
            refused: Refused {
                invalid: refused("invalid"),
                misdirected: refused("misdirected"),
                unknown_host: refused("unknown_host"),
                no_room: refused("no_room"),
            },
            connection_limit: Arc::default(),
            dialer: Dialer::default(),
        }
    }

    /// The sites for a request. For the first of a TLS connection those that were in force at its
    /// handshake, so that its certificate and its answer belong to one state of the configuration.
    fn sites(&self, session: &Session) -> Arc<SiteTable> {
        channel(session)
            .attachment()
            .unwrap_or_else(|| self.sites.load_full())
    }

    /// Counts certificates as none that had ended at `started`.
    pub fn with_start_time(self, started: UnixTime) -> Self {
        Self { started, ..self }
    }

    /// Lets requests use at most so many connections to upstreams at a time, whatever the
    /// configuration allows.
    #[must_use]
    pub fn with_upstream_connections(self, most: usize) -> Self {
        self.connection_limit.set_most_used(most);
        self
    }

    /// Whether a client that is sent to TLS is presented a certificate for `host` that has been of
    /// use since the start. One that ends meanwhile still counts: what has been HTTPS is not
    /// taken back to plain HTTP.
    fn has_tls(&self, host: Host<'_>) -> bool {
        let snapshot = self.certificates.snapshot();
        let map = &snapshot.certificates;
        let (covers, set) = match host {
            Host::Name(name) => (snapshot.covers(name), map.lookup(name)),
            Host::Ip(address) => {
                let own = map.lookup_ip(address);
                (
                    snapshot.covers_ip(address),
                    own.or_else(|| map.default_set()),
                )
            }
        };
        let is_of_use = |set: &Arc<CertificateSet>| {
            let mut certificates = set.by_kind.iter();
            certificates.any(|certificate| certificate.not_after() >= self.started)
        };
        covers && set.is_none_or(is_of_use)
    }

    /// Decides what to do with a request: the answer to give at once, or `None` where a route
    /// passes it on.
    fn decide_response(
        &self,
        sites: &SiteTable,
        session: &Session,
        ctx: &mut RequestCtx,
    ) -> Option<LocalResponse> {
        let request = session.req_header();
        let refuse = |refusal: Refusal| {
            let accept = response::accept_field(session);
            Some(LocalResponse::error(
                refusal.0,
                refusal.1,
                accept,
                ctx.request_id(),
            ))
        };
        if let Err(refusal) = header::check_request(request) {
            self.refused.invalid.inc();
            return refuse(refusal);
        }
        let mut buffer = NameBuffer::new();
        let Some(authority) = Authority::parse(authority::of(request), &mut buffer) else {
            self.refused.invalid.inc();
            return refuse(Refusal(StatusCode::BAD_REQUEST, "The host is not valid."));
        };
        let target = header::origin_form(request);
        let challenges = self.certificates.challenges();
        if let Some(answer) = challenge::token_response(challenges, request, authority.host, target)
        {
            return Some(answer);
        }
        let site = match sites.admit_host(authority.host, channel(session)) {
            Admission::Serve(site) => site,
            Admission::Misdirected => {
                self.refused.misdirected.inc();
                return refuse(Refusal(
                    StatusCode::MISDIRECTED_REQUEST,
                    "This host is not served on this connection.",
                ));
            }
            Admission::ToTls(site, _) if sites.https_optional && !self.has_tls(authority.host) => {
                site
            }
            Admission::ToTls(site, port) => {
                ctx.site = Some(Arc::clone(site));
                return Some(to_tls(authority, port, target));
            }
            Admission::Unknown => {
                self.refused.unknown_host.inc();
                return refuse(Refusal(StatusCode::NOT_FOUND, "No site has this host."));
            }
        };
        let found = site.find_route(path::without_query(target));
        let refusal = match found.map(|index| index.and_then(|at| Some((at, site.route(at)?)))) {
            Ok(Some((index, route))) => {
                ctx.site = Some(Arc::clone(site));
                ctx.route = Some(index);
                return match &route.action {
                    Action::Respond(answer) => Some(answer.clone()),
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
        ctx.site = Some(Arc::clone(site));
        answer
    }
}

/// Makes the proxy behind [`ProxyApp`], or any Pingora program's. It keeps at most `kept` idle
/// connections to upstreams.
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

/// The redirect of a plain request to TLS, with its method kept (308).
fn to_tls(authority: Authority<'_>, port: u16, target: &[u8]) -> LocalResponse {
    let host = Authority {
        port: (port != 443).then_some(port),
        ..authority
    };
    let location = [b"https://", host.to_string().as_bytes(), target].concat();
    HeaderValue::try_from(location).map_or_else(
        |_| LocalResponse::status(StatusCode::BAD_REQUEST),
        |to| LocalResponse::redirect(StatusCode::PERMANENT_REDIRECT, to),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_to_tls_keeps_host_path_and_query() {
        let mut buffer = NameBuffer::new();
        let authority = Authority::parse(b"A.example:8080", &mut buffer).expect("valid");
        let to = |port| to_tls(authority, port, b"/x?y=z");
        let expected = |to: &'static str| {
            LocalResponse::redirect(StatusCode::PERMANENT_REDIRECT, HeaderValue::from_static(to))
        };
        assert_eq!(to(443), expected("https://a.example/x?y=z"));
        assert_eq!(to(8443), expected("https://a.example:8443/x?y=z"));
    }
}
