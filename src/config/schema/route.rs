//! `upstreams` and `sites`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{BasicAuth, ForwardAuth};
use super::client_auth::{ClientAuth, RouteClientAuth};
use super::compress::Compress;
use super::error_page::{ErrorPage, Maintenance};
use super::files::Files;
use super::jwt::Jwt;
use super::rate_limit::RateLimit;
use super::retries::Retries;
use super::rewrite::{HeaderEdits, Hsts};
use super::route_path::RoutePath;
use super::site_tls::SiteTls;
use super::sticky::Sticky;
use super::text::{Duration, Size, Switch};
use super::tunnel::Tunnel;
use super::upstream::{
    Balance, Eject, Health, KeepAlive, Protocol, SendProxyProtocol, UpstreamTls,
};

/// A pool of servers that requests are passed to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["servers"]))]
pub(crate) struct Upstream {
    /// The servers: `ADDRESS:PORT`, `NAME:PORT`, `srv:NAME`, `unix:PATH`, or a mapping with more
    /// about one.
    #[schemars(length(min = 1))]
    pub(crate) servers: Vec<UpstreamServer>,
    /// What is spoken to the servers: `http1`; `h2`, without TLS by prior knowledge; or `auto`,
    /// which each server chooses in its TLS handshake, and which is HTTP/1.1 without TLS.
    pub(crate) protocol: Protocol,
    /// How a server is chosen: `round_robin`, in turn; `least_requests`, the one with the fewest
    /// requests in flight; or `{ hash: … }`, the same one for the same key.
    pub(crate) balance: Balance,
    /// A cookie that keeps a client at its server, whatever `balance` says.
    pub(crate) sticky: Option<Sticky>,
    /// How servers that do not work are found before requests are sent to them.
    pub(crate) health: Option<Health>,
    /// When a server that fails requests is left out.
    pub(crate) eject: Option<Eject>,
    /// How long the share of a server that comes back, or is added by a reload, rises from a tenth to
    /// what `balance` gives it. Not with `hash`. By default it has its share at once.
    pub(crate) slow_start: Option<Duration>,
    /// The maximum number of requests in flight at each address, 0 for no limit.
    #[schemars(range(max = 1_000_000))]
    pub(crate) max_connections: u64,
    /// How connections to the servers are kept for the next request.
    pub(crate) keepalive: KeepAlive,
    /// Whether to use TLS to the servers: `off`, `on`, or how.
    pub(crate) tls: UpstreamTls,
    /// Whether each connection to a server begins with the address of the client that it is for,
    /// by the PROXY protocol: `v1` as text, `v2` in binary. No connection is used for more than one
    /// request then.
    pub(crate) send_proxy_protocol: SendProxyProtocol,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            protocol: Protocol::default(),
            balance: Balance::default(),
            sticky: None,
            health: None,
            eject: None,
            slow_start: None,
            max_connections: 0,
            keepalive: KeepAlive::default(),
            tls: UpstreamTls::Switch(Switch::Off),
            send_proxy_protocol: SendProxyProtocol::Off,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum UpstreamServer {
    Address(String),
    Weighted(WeightedServer),
}

/// A server and how much it is used.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct WeightedServer {
    /// `ADDRESS:PORT`, `NAME:PORT`, `srv:NAME` for the servers that SRV records name, or
    /// `unix:PATH`.
    pub(crate) address: String,
    /// Its share of the requests relative to the others.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) weight: u64,
    /// Whether it is used only while no other server is available.
    pub(crate) backup: bool,
    /// The maximum number of requests in flight at each of its addresses, 0 for no limit. By
    /// default that of the upstream.
    #[schemars(range(max = 1_000_000))]
    pub(crate) max_connections: Option<u64>,
}

impl Default for WeightedServer {
    fn default() -> Self {
        Self {
            address: String::new(),
            weight: 1,
            backup: false,
            max_connections: None,
        }
    }
}

/// Some hosts, and what to do with their requests: `routes`, or `upstream` for short; or with their
/// connections: `pass_through` or `tcp`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["hosts"]))]
pub(crate) struct Site {
    /// Host names and IP addresses; `*.example.com` for any one label, `*` alone for every other host.
    #[schemars(length(min = 1))]
    pub(crate) hosts: Vec<String>,
    /// The addresses where the site is served, and nowhere else; by default those of `server.https` and
    /// `server.http`. Others than those are opened, for HTTPS unless `tls` is `off`.
    pub(crate) listen: Vec<String>,
    /// Where the certificate comes from: `auto` for one that covers the host, else one from the
    /// first issuer; or an issuer's name; or `off` to serve the site over plain HTTP only. Or a
    /// mapping with more about TLS.
    pub(crate) tls: SiteTls,
    /// Certificates that clients present: `off`, or whose. By default as `tls` says for all sites.
    pub(crate) client_auth: Option<ClientAuth>,
    /// What to do with requests. The route with the most specific path wins, whatever the order.
    #[schemars(length(min = 1))]
    pub(crate) routes: Option<Vec<Route>>,
    /// The upstream for all requests: short for one route.
    pub(crate) upstream: Option<String>,
    /// The upstream that connections are passed to as they come, TLS included, by the name that
    /// clients request. Or a mapping with more about it.
    pub(crate) pass_through: Option<Tunnel>,
    /// The upstream that gets the octets within TLS, whatever their protocol. Or a mapping with more
    /// about it.
    pub(crate) tcp: Option<Tunnel>,
    /// Tells browsers to use HTTPS only: `Strict-Transport-Security` on every response over TLS.
    pub(crate) hsts: Option<Hsts>,
    /// Whether responses of servers, files, and those of `respond` are compressed: `off`, `on`, or
    /// how. A route's own `compress` takes precedence.
    pub(crate) compress: Option<Compress>,
    /// Pages for errors, by status (`404`), class (`4xx`, `5xx`) or `default`: a file, or several
    /// of different media types. Those of `server` are for what these are not for.
    #[schemars(with = "BTreeMap<String, ErrorPage>")]
    pub(crate) error_pages: IndexMap<String, ErrorPage>,
    /// Whether clients get a page instead of what the site serves: `on`, `off`, or how.
    pub(crate) maintenance: Option<Maintenance>,
    /// Networks whose clients are served, `10.0.0.0/8`; no others are then. A route's own list takes
    /// precedence.
    pub(crate) allow: Option<Vec<String>>,
    /// Networks whose clients are not served, even if they are allowed. A route's own list takes
    /// precedence.
    pub(crate) deny: Option<Vec<String>>,
    /// The users that are served, by name and password. A route's own takes precedence.
    pub(crate) basic_auth: Option<BasicAuth>,
    /// The tokens that requests need to be served. A route's own takes precedence.
    pub(crate) jwt: Option<Jwt>,
    /// A service that is asked whether a request is served. A route's own takes precedence.
    pub(crate) forward_auth: Option<ForwardAuth>,
    /// How many requests are served in a time, those of all routes together that have no limit of
    /// their own; or `off`.
    pub(crate) rate_limit: Option<RateLimit>,
    /// The maximum number of requests in progress, 0 for no limit; others are refused with 503.
    #[schemars(range(max = 1_000_000))]
    pub(crate) max_requests: u64,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            listen: Vec::new(),
            tls: SiteTls::Certificate("auto".to_owned()),
            client_auth: None,
            routes: None,
            upstream: None,
            pass_through: None,
            tcp: None,
            hsts: None,
            compress: None,
            error_pages: IndexMap::new(),
            maintenance: None,
            allow: None,
            deny: None,
            basic_auth: None,
            jwt: None,
            forward_auth: None,
            rate_limit: None,
            max_requests: 0,
        }
    }
}

/// What to do with some requests: one of `upstream`, `redirect`, `respond` and `files`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Route {
    /// Begins with `/` and covers whole segments: `/api` covers `/api` and `/api/x`, not `/apis`;
    /// `/api/` covers `/api/x` only. Or `{ exact: PATH }`, or `{ regex: EXPRESSION }`.
    pub(crate) path: RoutePath,
    /// For requests with one of these methods only.
    #[schemars(length(min = 1))]
    pub(crate) methods: Option<Vec<String>>,
    /// For requests with each of these header fields only, by name: the value, or `*` for any.
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) headers: IndexMap<String, String>,
    /// For requests with each of these query parameters only, by name: the value, or `*` for any.
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) query: IndexMap<String, String>,
    /// Pass the request to the upstream of this name.
    pub(crate) upstream: Option<String>,
    /// Redirect to another URL.
    pub(crate) redirect: Option<Redirect>,
    /// Respond with a fixed text.
    pub(crate) respond: Option<Respond>,
    /// Respond with files of a directory.
    pub(crate) files: Option<Files>,
    /// How long to wait for the upstream; with `upstream`.
    pub(crate) timeout: Option<Timeout>,
    /// How often a request is retried at another server, 1 by default, or when and how often; with
    /// `upstream`.
    pub(crate) retries: Option<Retries>,
    /// The size of a request's body, 0 for no limit; with `upstream`. By default that of the
    /// server's limits.
    pub(crate) max_body: Option<Size>,
    /// Whether the path of the route is removed from the path that the server gets; with `upstream`
    /// or `files`.
    pub(crate) strip_prefix: bool,
    /// The path that the server gets, with placeholders: `/static{path}`. The query stays, unless a
    /// query is given here; with `upstream` or `files`.
    pub(crate) rewrite: Option<String>,
    /// The `Host` that the server gets, with placeholders. By default the client's; with `upstream`.
    pub(crate) host: Option<String>,
    /// Changes to the fields of requests to the server; with `upstream`.
    pub(crate) request_headers: Option<HeaderEdits>,
    /// Changes to the fields of responses to clients, whoever responds.
    pub(crate) response_headers: Option<HeaderEdits>,
    /// Whether responses are compressed: `off`, `on`, or how; with `upstream`, `files` or `respond`.
    /// By default as its site says.
    pub(crate) compress: Option<Compress>,
    /// Whether clients get a page instead: `on`, `off`, or how. By default that of the site.
    pub(crate) maintenance: Option<Maintenance>,
    /// Networks whose clients are served, `10.0.0.0/8`; no others are then. By default those of the
    /// site.
    pub(crate) allow: Option<Vec<String>>,
    /// Networks whose clients are not served, even if they are allowed. By default those of the site.
    pub(crate) deny: Option<Vec<String>>,
    /// The users that are served, by name and password; or `off`. By default those of the site.
    pub(crate) basic_auth: Option<BasicAuth>,
    /// The tokens that requests need to be served; or `off`. By default as the site says.
    pub(crate) jwt: Option<Jwt>,
    /// A service that is asked whether a request is served; or `off`. By default that of the site.
    pub(crate) forward_auth: Option<ForwardAuth>,
    /// `required`: clients without a certificate get 403. For sites whose `client_auth` is optional.
    pub(crate) client_auth: Option<RouteClientAuth>,
    /// How many requests are served in a time, or `off`. By default they count for the site's limit.
    pub(crate) rate_limit: Option<RateLimit>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            path: RoutePath::Prefix("/".to_owned()),
            methods: None,
            headers: IndexMap::new(),
            query: IndexMap::new(),
            upstream: None,
            redirect: None,
            respond: None,
            files: None,
            timeout: None,
            retries: None,
            max_body: None,
            strip_prefix: false,
            rewrite: None,
            host: None,
            request_headers: None,
            response_headers: None,
            compress: None,
            maintenance: None,
            allow: None,
            deny: None,
            basic_auth: None,
            jwt: None,
            forward_auth: None,
            client_auth: None,
            rate_limit: None,
        }
    }
}

/// How long to wait for an upstream.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeout {
    /// For the connection, TLS included.
    pub(crate) connect: Duration,
    /// For the next bytes of the response.
    pub(crate) read: Duration,
    /// For accepting the next bytes of the request.
    pub(crate) send: Duration,
    /// For the whole request, until the end of its response; `0s` for no limit.
    pub(crate) total: Duration,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            connect: Duration::new("5s"),
            read: Duration::new("60s"),
            send: Duration::new("60s"),
            total: Duration::new("0s"),
        }
    }
}

/// A redirect to another URL.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["to"]))]
pub(crate) struct Redirect {
    /// An `https://` or `http://` URL, or a path that begins with `/`, with placeholders:
    /// `https://new.example.com{path}{?query}`.
    pub(crate) to: String,
    /// 301 and 308 are permanent, 302, 303 and 307 temporary.
    pub(crate) status: u64,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            to: String::new(),
            status: 302,
        }
    }
}

/// A response with a fixed text.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Respond {
    /// From 200 to 599.
    pub(crate) status: u64,
    /// The text.
    pub(crate) body: String,
    /// The media type of the text.
    pub(crate) content_type: String,
}

impl Default for Respond {
    fn default() -> Self {
        Self {
            status: 200,
            body: String::new(),
            content_type: "text/plain; charset=utf-8".to_owned(),
        }
    }
}
