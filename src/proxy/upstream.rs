//! Pools of upstream servers, and what is known of each.
//!
//! Choosing a server takes an atomic addition and reads, see [`selection`].

mod draining;
mod ejection;
mod group;
mod selection;
mod succession;
pub(crate) mod tunnel;
mod view;
mod warm_up;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};

pub use self::view::EndpointView;

use self::group::Group;
use crate::config::model::{Balance, HashKey, HealthCheck, Protocol, Upstream, UpstreamTls};
use crate::dns::stub::Found;
use crate::metrics::{Metrics, UpstreamMetrics};
use crate::proxy::admission::{Admission, Queue};
use crate::proxy::availability::Trial;
use crate::proxy::connection_limit::ConnectionLimit;
use crate::proxy::dial::{Dialer, Duplex};
use crate::proxy::drain::DrainList;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::flow::Flow;
use crate::proxy::hash;
use crate::proxy::known_addresses::FoundAddress;
use crate::proxy::link::Link;
use crate::proxy::proxy_header;
use crate::proxy::request::Request;
use crate::proxy::retry_budget::RetryBudget;
use crate::proxy::server::Server;
use crate::proxy::server_tls::TlsSettings;
use crate::proxy::sticky::{Session, Sticky, StickyKey};
use crate::throttle::Throttle;

/// How long a server is avoided after a connection to it failed.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// How long both sides of an upgraded connection (WebSocket) may be silent before it is closed.
pub(crate) const UPGRADED_IDLE: Duration = Duration::from_secs(3600);

/// The servers of an upstream and their state.
pub struct Pool {
    upstream: Arc<Upstream>,
    /// `None` if the servers speak plain HTTP.
    tls: Option<Arc<TlsSettings>>,
    servers: Box<[Server]>,
    /// Those that are no backups, then the backups.
    groups: Vec<Group>,
    /// Requests that wait for room, if there is a limit.
    queue: Option<Arc<Queue>>,
    /// Held while an address is ejected, so that not too many are.
    ejecting: Mutex<()>,
    /// What keeps clients at their servers, if they stay there.
    sticky: Option<Sticky>,
    /// What people have drained.
    drain_list: Arc<DrainList>,
    started: Instant,
    pub(crate) retry_budget: RetryBudget,
    pub(crate) metrics: Arc<UpstreamMetrics>,
    pub(crate) failures: Throttle,
}

/// A server for a request, and what the request holds while it uses it.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) choice: Choice,
    pub(crate) admission: Admission,
}

impl Pool {
    /// The pool of `upstream`, with nothing known of its servers yet.
    pub(crate) fn new(upstream: &Arc<Upstream>, metrics: &Metrics) -> Self {
        let tls = TlsSettings::new(upstream);
        let counts = metrics.upstreams.upstream(&upstream.name);
        let group = |is_backup| Group::new(&upstream.servers, &upstream.balance, is_backup);
        let has_limit = upstream
            .servers
            .iter()
            .any(|server| server.max_connections != 0);
        Self {
            servers: upstream
                .servers
                .iter()
                .map(|server| Server::new(server, upstream, tls.as_ref()))
                .collect(),
            groups: [group(false), group(true)].into_iter().flatten().collect(),
            queue: has_limit.then(Arc::default),
            ejecting: Mutex::default(),
            sticky: None,
            drain_list: DrainList::new(&upstream.name, metrics),
            started: Instant::now(),
            retry_budget: RetryBudget::new(Arc::clone(&counts)),
            metrics: counts,
            failures: Throttle::default(),
            tls,
            upstream: Arc::clone(upstream),
        }
    }

    /// This pool with the key of its cookies, if it has any.
    pub(crate) fn with_sticky_key(self, key: Option<&StickyKey>) -> Self {
        let sticky = self.upstream.sticky.as_ref().zip(key);
        let sticky = sticky.map(|(sticky, key)| Sticky::new(sticky, self.name(), key.clone()));
        Self { sticky, ..self }
    }

    /// This pool in the place of `previous`: what is known there of names and addresses is known
    /// here, their requests count here, what is drained there is drained here, and servers that are
    /// not there begin with a small share.
    pub(crate) fn succeed(self, previous: &Self) -> Self {
        succession::succeed(self, previous)
    }

    /// Whether [`Pool::new`] would make the same pool of `upstream`.
    pub(crate) fn is_for(&self, upstream: &Arc<Upstream>) -> bool {
        self.upstream == *upstream && TlsSettings::are_for(self.tls.as_deref(), upstream)
    }

    /// The upstream's name.
    pub fn name(&self) -> &Arc<str> {
        &self.upstream.name
    }

    /// How servers are chosen, as the configuration has it.
    pub fn balance(&self) -> &Balance {
        &self.upstream.balance
    }

    /// Every server's addresses.
    pub fn endpoints(&self) -> Vec<EndpointView> {
        view::endpoints(self)
    }

    /// The servers with their names in the configuration.
    fn named_servers(&self) -> impl Iterator<Item = (String, &Server)> {
        let names = self.upstream.servers.iter().map(ToString::to_string);
        names.zip(&self.servers)
    }

    /// Drains a server by its name in the configuration, or one of its addresses, or resumes it.
    /// Returns whether there is one.
    pub fn set_drained(&self, server: &str, is_drained: bool) -> bool {
        draining::set_drained(self, server, is_drained)
    }

    /// Has what is drained get no requests, and all else get them. To be called once the pool is in
    /// use, since servers may have been drained or resumed while it was prepared.
    pub(crate) fn mark_drained(&self) {
        self.drain_list.mark_again(self.named_servers());
    }

    /// Begins to give an address that has come up its share, if that is to rise slowly.
    pub(super) fn begin_warm_up(&self, endpoint: &Endpoint) {
        if self.upstream.slow_start.is_some() {
            endpoint.warm_up.begin(self.now());
        }
    }

    /// The key of a request for the choice of its server, if its server depends on one.
    pub(crate) fn balance_key(&self, request: &Request<'_>, client: Option<IpAddr>) -> Option<u64> {
        let Balance::Hash(key) = &self.upstream.balance else {
            return None;
        };
        match key {
            HashKey::ClientIp => client.map(hash::of_address),
            HashKey::Header(name) => {
                let value = request.fields.get(name);
                (!value.is_empty()).then(|| hash::of(value))
            }
            HashKey::Cookie(name) => request.cookie(name).map(hash::of),
        }
    }

    /// What keeps a request at a server, if clients stay at theirs.
    pub(crate) fn session(&self, request: &Request<'_>) -> Option<Box<Session>> {
        let sticky = self.sticky.as_ref()?;
        Some(Box::new(sticky.session(request, &self.servers)))
    }

    /// Decides whether the response of the chosen server gets a cookie.
    pub(crate) fn settle(&self, session: &mut Session, choice: &Choice, is_tls: bool) {
        let Some(sticky) = &self.sticky else {
            return;
        };
        // It has too many requests for now.
        let keeps_home = session
            .home()
            .is_some_and(|home| home.endpoint.availability.is_in_use(self.now()));
        sticky.settle(session, &choice.endpoint, keeps_home, is_tls);
    }

    /// A connection to a server for one request, or a link for a `fresh` one. `flow` bounds what is
    /// read, if it is given.
    pub(crate) fn lease(
        choice: &Choice,
        fresh: bool,
        connection_limit: &Arc<ConnectionLimit>,
        flow: Option<Arc<Flow>>,
    ) -> Lease {
        let link = match fresh {
            true => Link::new(),
            false => choice.endpoint.idle_or_new_link(),
        };
        link.begin_request(flow);
        Lease {
            link,
            endpoint: Arc::clone(&choice.endpoint),
            connection_limit: Arc::clone(connection_limit),
        }
    }

    /// What a connection begins with, if anything: it is for a request, or the gateway's own.
    pub(super) fn proxy_header(&self, request: Option<&Request<'_>>) -> Option<Vec<u8>> {
        let version = self.upstream.send_proxy_protocol?;
        let addresses = request.and_then(Request::addresses);
        Some(proxy_header::encode(version, addresses))
    }

    /// What Pingora finds the connection of a lease by.
    ///
    /// # Errors
    ///
    /// If the server is gone.
    pub(super) fn peer(&self, choice: &Choice, lease: &Lease) -> Result<Box<HttpPeer>> {
        let server = self.server(choice)?;
        Ok(server.peer(&choice.endpoint, &lease.link))
    }

    /// Opens a connection to a server within `patience`: for HTTP/1.1 if `needs_http1`, else for
    /// what the server speaks. `header` is that of [`Self::proxy_header`].
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted, or does not speak HTTP/1.1 though it has to.
    pub(super) async fn dial(
        &self,
        choice: &Choice,
        header: Option<&[u8]>,
        dialer: &Dialer,
        patience: Duration,
        needs_http1: bool,
    ) -> Result<Box<dyn Duplex>> {
        let (server, endpoint) = (self.server(choice)?, &choice.endpoint);
        let opening = server.open_connection(endpoint, header, dialer, patience, needs_http1);
        self.metrics.time_connecting(opening).await
    }

    /// What the servers speak.
    pub(super) fn protocol(&self) -> Protocol {
        self.upstream.protocol
    }

    /// Whether connections to the servers use TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.upstream.tls != UpstreamTls::Off
    }

    /// Whether the server has other addresses than the chosen one.
    pub(super) fn has_other_addresses(&self, choice: &Choice) -> bool {
        self.server(choice)
            .is_ok_and(|server| server.endpoints().len() > 1)
    }

    fn server(&self, choice: &Choice) -> Result<&Server> {
        let server = self.servers.get(choice.server);
        server.ok_or_else(|| Error::explain(ErrorType::InternalError, "the server is gone"))
    }

    /// How addresses are checked, if they are.
    pub(super) fn health_check(&self) -> Option<&HealthCheck> {
        self.upstream.health.as_ref()
    }

    pub(super) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Avoids an address for a while, unless failures are counted.
    pub(crate) fn avoid_server(&self, choice: &Choice) {
        if self.upstream.eject.is_none() {
            let until = self.now().saturating_add(millis(PASSED_OVER));
            choice.endpoint.availability.avoid_until(until);
        }
    }

    /// Records that a connection to an address was opened.
    pub(crate) fn record_connected(&self, choice: &Choice) {
        if self.upstream.eject.is_none() {
            choice.endpoint.availability.restore();
        }
    }

    /// Whether a response with this status counts against its server.
    pub(crate) fn is_failure(&self, status: StatusCode) -> bool {
        let rule = self.upstream.eject.as_ref();
        rule.is_some_and(|rule| rule.status.contains(status))
    }

    /// Records how an address has treated a request, which was its trial if `trial` is given.
    pub(crate) fn record_result(&self, choice: &Choice, trial: Option<Trial>, has_failed: bool) {
        if let Some(rule) = &self.upstream.eject {
            ejection::record_result(self, rule, &choice.endpoint, trial, has_failed);
        }
    }

    /// Records that no connection could be opened to an address that was tried besides the chosen
    /// one.
    pub(crate) fn record_lost(&self, mut loser: Picked) {
        let trial = loser.admission.take_trial();
        self.record_result(&loser.choice, trial, true);
        self.avoid_server(&loser.choice);
    }

    /// Counts a retry, if no more than so many percent of the requests are retries. Returns whether
    /// it may be sent.
    pub(crate) fn try_retry(&self, percent: u32) -> bool {
        self.retry_budget.try_retry(self.now(), percent)
    }

    /// How long it is until a server's name is to be looked up; `None` if it never is.
    pub(crate) fn time_until_look_up(&self, server: &Server) -> Option<Duration> {
        let left = server.time_until_look_up(self.now())?;
        Some(Duration::from_millis(left))
    }

    /// How long a server's name has been due to be looked up.
    pub(crate) fn look_up_delay(&self, server: &Server) -> Duration {
        Duration::from_millis(server.look_up_delay(self.now()))
    }

    /// Sets when a server's name is to be looked up.
    pub(crate) fn set_next_look_up(&self, server: &Server, pause: Duration) {
        server.set_next_look_up(self.now().saturating_add(millis(pause)));
    }

    /// Replaces a server's addresses by those that were found, see [`Server::set_addresses`].
    pub(crate) fn set_addresses(&self, server: &Server, found: &Found<FoundAddress>) -> bool {
        let before = server.endpoints();
        let is_change = server.set_addresses(&found.values, found.is_complete);
        warm_up::begin_found(self, server, &before);
        self.drain_list.mark_again(self.named_servers());
        is_change
    }

    /// Milliseconds since the pool was made, from 1.
    fn now(&self) -> u64 {
        millis(self.started.elapsed()).saturating_add(1)
    }
}

/// A server and the address of it that a request goes to.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    server: usize,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// A request's connection. When it is dropped, the connection waits for the next request, unless it
/// has ended.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) link: Arc<Link>,
    endpoint: Arc<Endpoint>,
    connection_limit: Arc<ConnectionLimit>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint
            .keep_idle(Arc::clone(&self.link), &self.connection_limit);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
