//! From a request to the action of a route.
//!
//! A [`SiteTable`] is built once for a configuration and never changes. A request's site is looked
//! up by hash. Its routes are tried in their order, which the configuration has sorted, without a
//! lock.

mod action;
mod admission;
mod hashing;
mod hosts;
mod key_servers;
mod pools;
mod site;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

pub(crate) use self::action::{Action, Proxy, Tunnel};
pub(crate) use self::admission::Admission;
use self::hosts::AllHosts;
pub(crate) use self::hosts::Hosts;
use self::pools::Pools;
use self::site::site;
use crate::config::model::{
    self, Access, Config, ErrorPages, ListenAddress, Maintenance, NetworkSet,
};
use crate::dns::stub::StubResolver;
use crate::host::NameBuffer;
use crate::jwt::KeyServer;
use crate::metrics::{Metrics, SiteMetrics};
use crate::proxy::matcher::{Matcher, Mismatch};
use crate::proxy::path::{self, Ambiguous};
use crate::proxy::redirect::Redirect;
use crate::proxy::refusal::Refusal;
use crate::proxy::request::{Fields, Request};
use crate::proxy::response::LocalResponse;
use crate::proxy::rewriting::Rewriting;
use crate::proxy::site_limits::{AllLimits, SiteLimits};
use crate::proxy::sticky::StickyKey;
use crate::proxy::upstream::Pool;

/// Every site of a configuration, by host.
#[derive(Default)]
pub struct SiteTable {
    hosts: AllHosts,
    pools: Pools,
    /// Looks up the names of servers.
    resolver: Arc<StubResolver>,
    /// The port that plain requests are redirected to for sites without their own, `None` if there is
    /// none.
    pub(crate) https_port: Option<u16>,
    /// Whether a plain request is served if there is no certificate for its host yet.
    pub(crate) https_optional: bool,
    /// How long a client may make no progress.
    pub(crate) idle: Duration,
    /// How many requests may be at upstreams at a time, 0 for as many as there is room for.
    pub(crate) upstream_connections: usize,
    /// The proxies that are believed about clients.
    pub(crate) trusted_proxies: NetworkSet,
    /// The most octets of a request's body where the route does not say, 0 for any number.
    max_body: u64,
    /// The key of the cookies that keep clients at their servers, if it has been needed.
    sticky_key: Option<StickyKey>,
    /// The error pages for requests without a site.
    pub(crate) error_pages: Option<Arc<ErrorPages>>,
    /// The limits of sites, with what has been counted for them.
    limits: AllLimits,
    /// The servers that publish verification keys.
    pub(crate) key_servers: Box<[Arc<KeyServer>]>,
}

/// A site, ready for requests.
pub struct Site {
    /// The first of its hosts, for metrics and logs.
    pub(crate) name: Arc<str>,
    /// Whether it is served over TLS only, or over plain connections only.
    pub(crate) tls: bool,
    /// What it demands of connections, if anything beyond what all sites do.
    pub(crate) tls_policy: Option<Arc<model::TlsPolicy>>,
    /// The port that it is served at by TLS, if it says where it is served.
    pub(crate) https_port: Option<u16>,
    /// Shared by all sites with the same routes.
    routes: Arc<[Route]>,
    /// How its connections are passed on, instead of requests.
    pub(crate) tunnel: Option<Tunnel>,
    /// `Strict-Transport-Security`.
    hsts: Option<HeaderValue>,
    error_pages: Option<Arc<ErrorPages>>,
    /// For requests that no route is for.
    maintenance: Option<Arc<Maintenance>>,
    access: Option<Arc<Access>>,
    limits: Option<Arc<SiteLimits>>,
    pub(crate) metrics: SiteMetrics,
}

/// A route, ready for requests.
struct Route {
    /// As it is configured.
    path: model::PathMatch,
    matcher: Matcher,
    action: Action,
    rewriting: Option<Box<Rewriting>>,
    compression: Option<Arc<model::Compression>>,
    maintenance: Option<Arc<Maintenance>>,
    access: Option<Arc<Access>>,
    needs_certificate: bool,
}

impl SiteTable {
    /// Builds the table for `config`. Upstreams that are the same as in `previous` keep their state.
    pub fn build(config: &Config, metrics: &Metrics, previous: Option<&Self>) -> Self {
        Self::build_with_key(config, metrics, previous, None)
    }

    /// The same with the key of the cookies that keep clients at their servers. Without one, that of
    /// `previous` or a new one is used.
    pub fn build_with_key(
        config: &Config,
        metrics: &Metrics,
        previous: Option<&Self>,
        sticky_key: Option<StickyKey>,
    ) -> Self {
        let known = previous.map(|table| &table.pools);
        let known_key = sticky_key.or_else(|| previous?.sticky_key.clone());
        let sticky_key = pools::sticky_key(config, known_key);
        let mut table = Self {
            resolver: Arc::new(StubResolver::new(&config.server.resolvers)),
            https_port: https_port(&config.server.https),
            https_optional: config.server.https_optional,
            idle: config.server.limits.idle,
            upstream_connections: config.server.limits.upstream_connections,
            trusted_proxies: config.server.trusted_proxies.clone(),
            max_body: config.server.limits.max_body,
            sticky_key,
            error_pages: config.server.error_pages.clone(),
            hosts: AllHosts::of(config),
            ..Self::default()
        };
        table.pools = pools::pools(config, metrics, known, table.sticky_key.as_ref());
        table.key_servers = key_servers::connect(config, metrics, previous);
        let known = previous.map(|table| &table.limits);
        table.add(&config.sites, metrics, known);
        table
    }

    /// A table of these sites that shares no state of upstreams with another table.
    pub fn of_sites(sites: &[Arc<model::Site>], metrics: &Metrics) -> Self {
        let mut table = Self::default();
        table.add(sites, metrics, None);
        table
    }

    /// Whether a GET request for this host and target, without fields, leads to a route.
    pub fn has_route(&self, host: &[u8], target: &[u8]) -> bool {
        let request = Request {
            method: "GET",
            target,
            authority: host,
            version: "HTTP/1.1",
            fields: Fields::Lines(b""),
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        let mut buffer = NameBuffer::new();
        let site = buffer.normalize(host).and_then(|host| self.lookup(host));
        site.is_some_and(|site| matches!(site.find_route(&request), Ok(Some(_))))
    }

    /// Whether it has a key of the cookies that keep clients at their servers.
    pub fn has_sticky_key(&self) -> bool {
        self.sticky_key.is_some()
    }

    fn add(&mut self, sites: &[Arc<model::Site>], metrics: &Metrics, known: Option<&AllLimits>) {
        self.limits = AllLimits::after(known);
        // By their address in the model, which outlives this.
        let mut shared: HashMap<*const model::Route, Arc<[Route]>> = HashMap::new();
        for model in sites {
            let routes = shared.entry(model.routes.as_ptr());
            let routes = routes.or_insert_with(|| self.routes(&model.routes, metrics));
            let mut site = site(model, Arc::clone(routes), metrics);
            site.limits = self.limits.add(&site.name, model, known);
            let tunnel = model.tunnel.as_ref();
            site.tunnel = tunnel.map(|tunnel| self.tunnel(tunnel, &site.name, metrics));
            self.hosts.add(&Arc::new(site), &model.hosts, &model.listen);
        }
    }

    /// The site for `host`, a name in normal form, where sites are served that do not say where.
    pub fn lookup(&self, host: &str) -> Option<&Arc<Site>> {
        self.hosts.general().lookup(host)
    }

    /// The sites that a request may be for, by the address that its connection was accepted at.
    pub(crate) fn hosts_for(&self, request: &Request<'_>) -> &Hosts {
        self.hosts.at(|| request.place())
    }

    /// The sites that a connection may be for which was accepted at `place`, if that is known.
    pub(crate) fn hosts_at(&self, place: Option<&ListenAddress>) -> &Hosts {
        self.hosts.at(|| place)
    }

    /// What looks up the names of servers.
    pub(crate) fn resolver(&self) -> &Arc<StubResolver> {
        &self.resolver
    }

    /// Every upstream's pool, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// Routes bound to the pools of this table.
    fn routes(&self, routes: &[model::Route], metrics: &Metrics) -> Arc<[Route]> {
        let routes = routes.iter().map(|route| Route {
            path: route.path.clone(),
            matcher: Matcher::of(route),
            action: self.action(route, metrics),
            rewriting: route.rewriting.as_deref().map(Rewriting::new).map(Box::new),
            compression: route.compression.clone(),
            maintenance: route.maintenance.clone(),
            access: route.access.clone(),
            needs_certificate: route.needs_certificate,
        });
        routes.collect()
    }

    fn proxy(&self, proxy: &model::Proxy, metrics: &Metrics) -> Proxy {
        Proxy {
            // The checked model names no upstream that it does not hold.
            pool: self
                .pools
                .get(&proxy.upstream.name)
                .map_or_else(|| pools::own_pool(&proxy.upstream, metrics), Arc::clone),
            connect_timeout: proxy.connect_timeout,
            read_timeout: proxy.read_timeout,
            send_timeout: proxy.send_timeout,
            total_timeout: proxy.total_timeout,
            max_body: proxy.max_body.unwrap_or(self.max_body),
            retries: proxy.retries,
        }
    }

    fn tunnel(&self, tunnel: &model::Tunnel, site: &str, metrics: &Metrics) -> Tunnel {
        Tunnel {
            kind: tunnel.kind,
            proxy: self.proxy(&tunnel.proxy, metrics),
            idle: tunnel.idle,
            upstream_connections: self.upstream_connections,
            metrics: metrics.tunnels.site(site),
        }
    }

    fn action(&self, route: &model::Route, metrics: &Metrics) -> Action {
        match &route.action {
            model::Action::Proxy(proxy) => Action::Proxy(self.proxy(proxy, metrics)),
            model::Action::Files(files) => Action::Files(Arc::clone(files)),
            // Only the target is sent: neither the request's path nor its query is added to it.
            model::Action::Redirect { to, status } => {
                let fixed = to.as_literal().map(HeaderValue::from_str);
                match fixed {
                    Some(Ok(to)) => Action::Respond(LocalResponse::redirect(*status, to)),
                    _ => Action::Redirect(Redirect {
                        status: *status,
                        to: to.clone(),
                    }),
                }
            }
            model::Action::Respond {
                status,
                body,
                content_type,
            } => {
                let plain = LocalResponse::new(*status, content_type.clone(), body.clone());
                Action::Respond(plain.with_encodings(route))
            }
        }
    }
}

impl Site {
    /// The index of the route for a request.
    ///
    /// `Ok(None)` if no route is for it.
    ///
    /// # Errors
    /// If servers may read its path in ways that lead to different routes.
    pub(crate) fn find_route(&self, request: &Request<'_>) -> Result<Option<usize>, Ambiguous> {
        let path = path::without_query(request.origin_form());
        path::resolve(path, |path| {
            self.routes
                .iter()
                .position(|route| route.matcher.matches(path, request))
        })
        .ok_or(Ambiguous)
    }

    /// Why a request is refused that no route is for.
    pub(crate) fn refusal(&self, request: &Request<'_>) -> Refusal {
        match self.allowed_methods(request) {
            Some(_) => Refusal::Method,
            None => Refusal::NoRoute,
        }
    }

    /// The methods with which a request would lead to a route that is not for its own; `None` if
    /// there are none.
    pub(crate) fn allowed_methods(&self, request: &Request<'_>) -> Option<HeaderValue> {
        let path = path::without_query(request.origin_form());
        let path = path::read_plainly(path);
        let routes = self.routes.iter();
        let mut allowed: Vec<&str> = routes
            .filter_map(|route| route.matcher.required_methods(&path, request))
            .flatten()
            .map(|method| &**method)
            .collect();
        if allowed.is_empty() {
            return None;
        }
        allowed.sort_unstable();
        allowed.dedup();
        HeaderValue::try_from(allowed.join(", ")).ok()
    }

    /// What keeps a request from each of the routes, by the plain reading of its path.
    pub(super) fn mismatches<'a>(
        &'a self,
        request: &'a Request<'_>,
    ) -> impl Iterator<Item = Vec<Mismatch<'a>>> {
        let path = path::without_query(request.origin_form());
        let path = path::read_plainly(path);
        let routes = self.routes.iter();
        routes.map(move |route| route.matcher.mismatches(&path, request).collect::<Vec<_>>())
    }

    /// The action of the route at an index that [`Self::find_route`] gave.
    pub(crate) fn action(&self, index: usize) -> Option<&Action> {
        Some(&self.routes.get(index)?.action)
    }
}

/// The port of the HTTPS listeners, if there are any.
fn https_port(addresses: &[ListenAddress]) -> Option<u16> {
    (!addresses.is_empty()).then(|| ListenAddress::https_port(addresses))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{SiteTls, UpstreamAddress, UpstreamServer};
    use crate::host::{Host, Pattern};
    use crate::proxy::authority::Channel;
    use crate::tls::TlsInfo;

    fn upstream(port: u16) -> Arc<model::Upstream> {
        let address = UpstreamAddress::Ip((Ipv4Addr::LOCALHOST, port).into());
        let servers = vec![UpstreamServer::new(address)];
        Arc::new(model::Upstream::new("app", servers))
    }

    fn site(hosts: &[&str], tls: SiteTls, paths: &[&str]) -> Arc<model::Site> {
        let action = model::Action::Respond {
            status: StatusCode::OK,
            body: bytes::Bytes::new(),
            content_type: HeaderValue::from_static("text/plain"),
        };
        Arc::new(model::Site {
            listen: Vec::new(),
            https_port: None,
            hosts: hosts
                .iter()
                .map(|host| host.parse().expect("a pattern"))
                .collect(),
            tls,
            tls_policy: None,
            tunnel: None,
            routes: paths
                .iter()
                .map(|path| model::Route {
                    path: (*path).into(),
                    conditions: None,
                    action: action.clone(),
                    rewriting: None,
                    compression: None,
                    maintenance: None,
                    access: None,
                    needs_certificate: false,
                    rate: model::RouteRate::OfSite,
                })
                .collect(),
            hsts: None,
            error_pages: None,
            maintenance: None,
            access: None,
            limits: model::SiteLimits::default(),
            origin: model::Origin::default(),
        })
    }

    fn table(sites: &[Arc<model::Site>]) -> SiteTable {
        let metrics = Metrics::new().expect("metrics");
        SiteTable {
            https_port: Some(443),
            ..SiteTable::of_sites(sites, &metrics)
        }
    }

    fn name<'a>(table: &'a SiteTable, host: &str) -> Option<&'a str> {
        table.lookup(host).map(|site| &*site.name)
    }

    #[test]
    fn the_exact_host_wins_over_the_wildcard_and_the_catch_all() {
        let auto = || SiteTls::Auto(Vec::new());
        let sites = [
            site(&["any.example", "*"], auto(), &["/"]),
            site(&["wild.example", "*.a.example"], auto(), &["/"]),
            site(&["x.a.example"], auto(), &["/"]),
        ];
        let all = table(&sites);
        assert_eq!(name(&all, "x.a.example"), Some("x.a.example"));
        assert_eq!(name(&all, "y.a.example"), Some("wild.example"));
        assert_eq!(name(&all, "y.y.a.example"), Some("any.example"));
        assert_eq!(name(&all, "a.example"), Some("any.example"));
        let some = table(&sites[1..]);
        assert_eq!(name(&some, "y.y.a.example"), None);
        assert_eq!(name(&some, "a.example"), None);
        assert!(some.has_route(b"X.A.Example.", b"/anything"));
        assert!(!some.has_route(b"x.a.example.org", b"/"));
    }

    #[test]
    fn a_site_is_found_by_as_many_look_ups_however_many_there_are() {
        for count in [10, 100_000] {
            let mut sites: Vec<_> = (0..count)
                .map(|number| match number % 10 {
                    0 => format!("*.w{number}.example"),
                    _ => format!("www.s{number}.example"),
                })
                .map(|host| site(&[&host], SiteTls::Off, &["/"]))
                .collect();
            sites.push(site(&["192.0.2.1"], SiteTls::Off, &["/"]));
            let table = table(&sites);
            let look_ups = |host: &str| {
                let (found, hashes) = hashing::counted::count_hashes(|| table.lookup(host));
                (found.is_some(), hashes)
            };
            assert_eq!(look_ups("www.s3.example"), (true, 1), "{count}");
            assert_eq!(look_ups("any.w0.example"), (true, 2), "{count}");
            assert_eq!(look_ups("a.b.c.d.unknown.example"), (false, 2), "{count}");
            let ip = Host::Ip("192.0.2.1".parse().expect("an address"));
            let (found, hashes) =
                hashing::counted::count_hashes(|| table.hosts.general().find_site(ip));
            assert_eq!((found.is_some(), hashes), (true, 1), "{count}");
        }
    }

    #[test]
    fn a_site_is_served_where_it_belongs_and_nowhere_else() {
        let table = table(&[
            site(&["secure.example"], SiteTls::Auto(Vec::new()), &["/"]),
            site(&["plain.example"], SiteTls::Off, &["/"]),
            site(&["*"], SiteTls::Auto(Vec::new()), &["/"]),
        ]);
        let info = |asked: &str, fell_back| TlsInfo::new(asked.parse().ok(), None, fell_back);
        let secure = info("secure.example", false);
        let plain = info("plain.example", false);
        let other = info("other.example", false);
        let fallen = info("other.example", true);
        let outcome = |host: &str, channel: Channel<'_>| match table.hosts.general().admit_host(
            Host::Name(host),
            channel,
            table.https_port,
        ) {
            Admission::Serve(site) => site.name.to_string(),
            Admission::Misdirected => "421".to_owned(),
            Admission::ToTls(_, port) => format!("308 {port}"),
            Admission::Unknown => "404".to_owned(),
        };
        assert_eq!(
            outcome("secure.example", Channel::Tls(Some(&secure))),
            "secure.example"
        );
        assert_eq!(outcome("secure.example", Channel::Tls(Some(&plain))), "421");
        assert_eq!(outcome("secure.example", Channel::Tls(None)), "421");
        assert_eq!(outcome("secure.example", Channel::Plain), "308 443");
        assert_eq!(outcome("plain.example", Channel::Tls(Some(&plain))), "421");
        assert_eq!(outcome("plain.example", Channel::Plain), "plain.example");
        assert_eq!(outcome("other.example", Channel::Tls(Some(&other))), "*");
        assert_eq!(outcome("other.example", Channel::Tls(Some(&fallen))), "421");
        assert_eq!(outcome("other.example", Channel::Tls(Some(&secure))), "421");
    }

    /// The body of the route that wins, or the status of the refusal.
    fn winner(routes: &[(&str, &str)], line: &str, fields: &[u8]) -> String {
        let list: String = routes
            .iter()
            .map(|(name, route)| format!("  - {{ {route}, respond: {{ body: {name} }} }}\n"))
            .collect();
        let text = format!("sites:\n- hosts: [a.example]\n  tls: off\n  routes:\n{list}");
        let loaded = crate::config::load_str(&text, std::path::Path::new("/"));
        let table = table(&loaded.expect("valid").config.sites);
        let site = table.lookup("a.example").expect("a site");
        let (method, target) = line.split_once(' ').expect("a request line");
        let request = Request {
            method,
            target: target.as_bytes(),
            authority: b"a.example",
            version: "HTTP/1.1",
            fields: Fields::Lines(fields),
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        match site.find_route(&request) {
            Ok(Some(index)) => match site.action(index) {
                Some(Action::Respond(response)) => {
                    let body = response.body().expect("a body");
                    String::from_utf8_lossy(body).into_owned()
                }
                _ => "not a response".to_owned(),
            },
            Ok(None) => match site.allowed_methods(&request) {
                Some(allow) => format!("405 {}", allow.to_str().expect("text")),
                None => "404".to_owned(),
            },
            Err(Ambiguous) => "400".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_path_wins_whatever_the_order() {
        let routes = [
            ("number", "path: { regex: \"^/u/[0-9]+$\" }"),
            ("user", "path: { regex: \"^/u/\" }"),
            ("api", "path: /api"),
            ("deep", "path: /api/v1/"),
            ("exact", "path: { exact: /api/v1 }"),
            ("spaces", "path: { exact: \"/a%20b\" }"),
            ("escaped", "path: \"/%61%62%63\""),
            ("longer", "path: /abc/d"),
        ];
        for (target, won) in [
            ("/api/v1", "exact"),
            ("/api/v1?x", "exact"),
            ("/api/%761", "exact"),
            ("/api/v1/", "deep"),
            ("/api/v1/x", "deep"),
            ("/api/v2", "api"),
            ("/a%20b", "spaces"),
            ("/abc/d/e", "longer"),
            ("/abc/x", "escaped"),
            ("/u/4711", "number"),
            ("/u/%34", "number"),
            ("/u/4711/x", "user"),
            ("/x/u/1", "404"),
            // Read in two ways.
            ("/x/../api/v1", "400"),
            ("/api//v1", "400"),
            ("/u/1;x", "400"),
            ("/u/x/../1", "400"),
            ("/u/a//b", "user"),
            ("/api/a//b", "api"),
        ] {
            assert_eq!(
                winner(&routes, &format!("GET {target}"), b""),
                won,
                "{target}"
            );
        }
    }

    #[test]
    fn of_equal_paths_the_one_with_more_conditions_wins() {
        let routes = [
            ("any", "path: /a"),
            ("get", "path: /a, methods: [GET]"),
            ("beta", "path: /a, headers: { X-Beta: \"1\" }"),
            (
                "both",
                "path: /a, methods: [GET], headers: { X-Beta: \"*\" }",
            ),
            ("page", "path: /a, query: { page: \"a b\" }"),
            ("post", "path: /b, methods: [POST, PUT]"),
            (
                "delete",
                "path: /b, methods: [DELETE, PUT], query: { sure: \"*\" }",
            ),
            ("secret", "path: /c, methods: [GET], headers: { X-Key: k }"),
        ];
        let field = b"GET / HTTP/1.1\r\nHost: a\r\nx-beta: 0\r\nX-BETA:  1 \r\n\r\n";
        let other = b"GET / HTTP/1.1\r\nHost: a\r\nX-Beta: 2\r\n\r\n";
        for (line, fields, won) in [
            ("GET /a", &b""[..], "get"),
            ("POST /a", b"", "any"),
            ("GET /a", field, "both"),
            ("POST /a", field, "beta"),
            ("POST /a", other, "any"),
            ("GET /a", other, "both"),
            ("POST /a?page=a+b", b"", "page"),
            ("POST /a?x&%70age=a%20b&y=", b"", "page"),
            ("POST /a?page=a", b"", "any"),
            ("GET /a?page=a%20b", b"", "get"),
            ("GET /b", b"", "405 POST, PUT"),
            ("GET /b?sure", b"", "405 DELETE, POST, PUT"),
            ("PUT /b?sure", b"", "delete"),
            ("PUT /b?surely", b"", "post"),
            ("POST /c", b"", "404"),
            ("GET /d", b"", "404"),
        ] {
            assert_eq!(winner(&routes, line, fields), won, "{line}");
        }
    }

    #[test]
    fn a_route_that_is_not_for_the_method_is_passed_over() {
        let routes = [
            ("exact", "path: { exact: /v1 }, methods: [GET]"),
            ("prefix", "path: /v1, methods: [GET, PUT]"),
            ("rest", "path: { regex: \"^/\" }, methods: [DELETE]"),
        ];
        for (method, won) in [
            ("GET", "exact"),
            ("PUT", "prefix"),
            ("DELETE", "rest"),
            ("POST", "405 DELETE, GET, PUT"),
            ("HEAD", "405 DELETE, GET, PUT"),
        ] {
            assert_eq!(
                winner(&routes, &format!("{method} /v1"), b""),
                won,
                "{method}"
            );
        }
    }

    #[test]
    fn unchanged_upstreams_keep_their_state() {
        let metrics = Metrics::new().expect("metrics");
        let config = |port| {
            let mut config = Config::sample();
            config.upstreams.insert("app".into(), upstream(port));
            config
        };
        let pool = |table: &SiteTable| Arc::clone(&table.pools["app"]);
        let first = SiteTable::build(&config(1), &metrics, None);
        let same = SiteTable::build(&config(1), &metrics, Some(&first));
        let other = SiteTable::build(&config(2), &metrics, Some(&same));
        assert!(Arc::ptr_eq(&pool(&first), &pool(&same)));
        assert!(!Arc::ptr_eq(&pool(&same), &pool(&other)));
    }

    proptest! {
        #[test]
        fn hash_look_ups_agree_with_patterns(
            patterns in proptest::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..6),
            host in "[ab](\\.[ab]){0,3}",
        ) {
            let sites: Vec<_> = patterns
                .iter()
                .map(|pattern| site(&[pattern], SiteTls::Off, &["/"]))
                .collect();
            let table = table(&sites);
            let covering = |exact: bool| sites.iter().find(|site| {
                matches!(site.hosts[0], Pattern::Exact(_)) == exact && site.hosts[0].covers(&host)
            });
            let expected = covering(true).or_else(|| covering(false));
            let expected = expected.map(|site| site.hosts[0].to_string());
            prop_assert_eq!(name(&table, &host), expected.as_deref());
        }
    }
}
