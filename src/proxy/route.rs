//! Host and path to what is done with a request.
//!
//! A [`SiteTable`] is built once for a configuration and never changes; a request looks its site
//! up by hash and its route by comparing prefixes, and takes no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use http::{HeaderValue, StatusCode};

use crate::config::model::{self, Config, SiteTls};
use crate::host::{self, HostName, Pattern};
use crate::metrics::{Metrics, SiteMetrics};
use crate::proxy::answer::Answer;
use crate::proxy::authority::{Channel, Host};
use crate::proxy::path;
use crate::proxy::upstream::Pool;

/// Every site of a configuration, by host.
#[derive(Default)]
pub struct SiteTable {
    exact: HashMap<HostName, Arc<Site>, RandomState>,
    /// By what comes after the wildcard's label.
    wildcard: HashMap<HostName, Arc<Site>, RandomState>,
    any: Option<Arc<Site>>,
    pools: HashMap<Arc<str>, Arc<Pool>, RandomState>,
    /// Where a plain request is redirected to, `None` where TLS is not served.
    pub(crate) https_port: Option<u16>,
}

/// A site, ready for requests.
pub struct Site {
    /// Its first host, for metrics and logs.
    pub(crate) name: Arc<str>,
    /// Whether it is served on TLS and nowhere else, or on plain connections and nowhere else.
    pub(crate) tls: bool,
    routes: Box<[Route]>,
    pub(crate) metrics: SiteMetrics,
}

/// A route, ready for requests.
pub(crate) struct Route {
    /// Percent-decoded.
    prefix: Box<[u8]>,
    pub(crate) action: Action,
}

/// What is done with a request.
pub(crate) enum Action {
    Answer(Answer),
    Proxy(Proxy),
}

/// Passing a request on.
pub(crate) struct Proxy {
    pub(crate) pool: Arc<Pool>,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) retries: u32,
}

/// What becomes of a request by its host and its connection.
pub(crate) enum Admission<'a> {
    /// The site that answers it.
    Serve(&'a Arc<Site>),
    /// The host is not served on this connection: 421 (RFC 9110, section 15.5.20).
    Misdirected,
    /// The site is served on TLS: go there, to this port.
    ToTls(&'a Arc<Site>, u16),
    /// No site has this host.
    Unknown,
}

impl SiteTable {
    /// Makes the table for `config`. Upstreams that are as in `previous` keep their state.
    pub fn build(config: &Config, metrics: &Metrics, previous: Option<&Self>) -> Self {
        let mut table = Self {
            https_port: config.server.https.first().map(|address| address.port()),
            ..Self::default()
        };
        for (name, upstream) in &config.upstreams {
            let kept = previous
                .and_then(|table| table.pools.get(name))
                .filter(|pool| pool.serves(upstream));
            let pool = kept.map_or_else(|| Arc::new(Pool::new(upstream, metrics)), Arc::clone);
            table.pools.insert(Arc::clone(name), pool);
        }
        for site in &config.sites {
            let site_of_table = Arc::new(table.site(site, metrics));
            for host in &site.hosts {
                let site = Arc::clone(&site_of_table);
                match host {
                    Pattern::Any => _ = table.any.get_or_insert(site),
                    Pattern::Exact(name) => _ = table.exact.entry(name.clone()).or_insert(site),
                    Pattern::Wildcard(of) => {
                        table.wildcard.entry(of.clone()).or_insert(site);
                    }
                }
            }
        }
        table
    }

    /// The site for `host`, a name in normal form: of that very name, else of the wildcard over
    /// its first label, else the catch-all.
    pub fn lookup(&self, host: &str) -> Option<&Arc<Site>> {
        self.exact
            .get(host)
            .or_else(|| host::parent(host).and_then(|parent| self.wildcard.get(parent)))
            .or(self.any.as_ref())
    }

    /// Every upstream's pool, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// What becomes of a request for `host` that came through `channel`.
    pub(crate) fn admit(&self, host: Host<'_>, channel: Channel<'_>) -> Admission<'_> {
        let site = match host {
            Host::Name(name) => self.lookup(name),
            Host::Ip(_) => self.any.as_ref(),
        };
        match (site, channel, self.https_port) {
            (None, Channel::Plain, _) => Admission::Unknown,
            (Some(site), Channel::Plain, _) if !site.tls => Admission::Serve(site),
            (Some(site), Channel::Plain, Some(port)) => Admission::ToTls(site, port),
            (Some(site), Channel::Tls(_), _) if site.tls && channel.covers(host) => {
                Admission::Serve(site)
            }
            _ => Admission::Misdirected,
        }
    }

    /// A site with its routes bound to the pools of this table.
    fn site(&self, site: &model::Site, metrics: &Metrics) -> Site {
        let name: Arc<str> = site
            .hosts
            .first()
            .map_or_else(String::new, Pattern::to_string)
            .into();
        Site {
            metrics: metrics.site(&name),
            name,
            tls: site.tls != SiteTls::Off,
            routes: site
                .routes
                .iter()
                .map(|route| Route {
                    prefix: path::decode(&route.path),
                    action: self.action(&route.action, metrics),
                })
                .collect(),
        }
    }

    fn action(&self, action: &model::Action, metrics: &Metrics) -> Action {
        match action {
            model::Action::Proxy(proxy) => Action::Proxy(Proxy {
                // The checked model names no upstream that it does not hold.
                pool: self
                    .pools
                    .get(&proxy.upstream.name)
                    .map_or_else(|| Arc::new(Pool::new(&proxy.upstream, metrics)), Arc::clone),
                connect_timeout: proxy.connect_timeout,
                read_timeout: proxy.read_timeout,
                retries: proxy.retries,
            }),
            // Only the target is sent: neither the request's path nor its query is added to it.
            model::Action::Redirect { to, status } => {
                Action::Answer(HeaderValue::try_from(to.to_string()).map_or_else(
                    |_| Answer::status(StatusCode::INTERNAL_SERVER_ERROR),
                    |to| Answer::redirect(*status, to),
                ))
            }
            model::Action::Respond {
                status,
                body,
                content_type,
            } => Action::Answer(Answer::new(*status, content_type.clone(), body.clone())),
        }
    }
}

impl Site {
    /// The index of the route for a path, percent-encoded and without its query.
    ///
    /// `Ok(None)` where no route covers it.
    ///
    /// # Errors
    /// Where servers may read the path in ways that lead to different routes.
    pub(crate) fn find(&self, path: &[u8]) -> Result<Option<usize>, Ambiguous> {
        path::resolve(path, |path| {
            self.routes
                .iter()
                .position(|route| path::covers(&route.prefix, path))
        })
        .ok_or(Ambiguous)
    }

    /// The route at an index that [`Site::find`] gave.
    pub(crate) fn route(&self, index: usize) -> Option<&Route> {
        self.routes.get(index)
    }
}

/// A path that can be read in ways that lead to different routes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;
