//! Pools of upstream servers: which one is next, and which are avoided for a while.
//!
//! Choosing a server takes an atomic addition and reads. Pingora connects, pools and speaks HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use prometheus::IntCounter;

use crate::config::model::Upstream;
use crate::metrics::Metrics;
use crate::proxy::balance;
use crate::proxy::connection_limit::ConnectionLimit;
use crate::proxy::dial::{Dialer, Duplex};
use crate::proxy::flow::Flow;
use crate::proxy::link::Link;
use crate::proxy::server::{Endpoint, Server, read_roots};
use crate::throttle::Throttle;

/// How long a server is avoided after a connection to it failed.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// How long both sides of an upgraded connection (WebSocket) may be silent before it is closed.
pub(crate) const UPGRADED_IDLE: Duration = Duration::from_secs(3600);

/// The servers of an upstream and their state.
pub struct Pool {
    upstream: Arc<Upstream>,
    /// The roots read from the upstream's CA file, kept to detect a change of the file.
    roots: Option<Vec<u8>>,
    servers: Box<[Server]>,
    /// Indices of servers in the order of their turns.
    round: Box<[u16]>,
    turn: AtomicUsize,
    started: Instant,
    pub(crate) attempts: Attempts,
    pub(crate) failures: Throttle,
}

/// Attempts at an upstream, counted by their result.
pub(crate) struct Attempts {
    pub(crate) connected: IntCounter,
    pub(crate) connect_failed: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) reused: IntCounter,
    pub(crate) unresolved: IntCounter,
}

impl Pool {
    /// The pool of `upstream`, with nothing known of its servers yet.
    pub(crate) fn new(upstream: &Arc<Upstream>, metrics: &Metrics) -> Self {
        let roots = read_roots(upstream);
        let weights: Vec<u32> = upstream
            .servers
            .iter()
            .map(|server| server.weight)
            .collect();
        Self {
            servers: upstream
                .servers
                .iter()
                .map(|server| Server::new(server, &upstream.tls, roots.as_deref()))
                .collect(),
            round: balance::round(&weights),
            turn: AtomicUsize::new(0),
            started: Instant::now(),
            attempts: Attempts::new(&upstream.name, metrics),
            failures: Throttle::default(),
            roots,
            upstream: Arc::clone(upstream),
        }
    }

    /// Whether [`Pool::new`] would make the same pool of `upstream`.
    pub(crate) fn is_for(&self, upstream: &Arc<Upstream>) -> bool {
        self.upstream == *upstream && self.roots == read_roots(upstream)
    }

    /// The upstream's name.
    pub fn name(&self) -> &Arc<str> {
        &self.upstream.name
    }

    /// Every server's addresses, each with whether it is in use.
    pub fn endpoints(&self) -> Vec<(Box<str>, bool)> {
        let now = self.now();
        let of = |server: &Server| {
            let endpoints = server.endpoints();
            endpoints
                .iter()
                .map(|e| (e.text.clone(), e.is_available(now)))
                .collect::<Vec<_>>()
        };
        self.servers.iter().flat_map(of).collect()
    }

    /// The server whose turn it is: the next one with an address in use, else, if all are avoided,
    /// the next one with any address. `None` if no server's name has been resolved.
    pub(crate) fn next_server(&self) -> Option<Choice> {
        let now = self.now();
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last_resort = None;
        for offset in 0..self.round.len() {
            let at = start.wrapping_add(offset).checked_rem(self.round.len())?;
            let server = usize::from(*self.round.get(at)?);
            match self.servers.get(server)?.next_endpoint(now) {
                Some(endpoint) if endpoint.is_available(now) => {
                    return Some(Choice { server, endpoint });
                }
                Some(endpoint) if last_resort.is_none() => {
                    last_resort = Some(Choice { server, endpoint });
                }
                _ => {}
            }
        }
        last_resort
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

    /// Opens the connection of a lease, unless it is open, within `patience`. Returns what Pingora
    /// finds it by.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted.
    pub(super) async fn open_connection(
        &self,
        choice: &Choice,
        lease: &Lease,
        dialer: &Dialer,
        patience: Duration,
    ) -> Result<Box<HttpPeer>> {
        if !lease.link.is_open() {
            let socket = self.dial(choice, dialer, patience).await?;
            lease.link.set_socket(socket);
        }
        let server = self.server(choice)?;
        Ok(server.peer(&choice.endpoint, &lease.link))
    }

    /// Opens a connection to a server within `patience`.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted.
    pub(super) async fn dial(
        &self,
        choice: &Choice,
        dialer: &Dialer,
        patience: Duration,
    ) -> Result<Box<dyn Duplex>> {
        let server = self.server(choice)?;
        server
            .open_connection(&choice.endpoint, dialer, patience)
            .await
    }

    fn server(&self, choice: &Choice) -> Result<&Server> {
        let server = self.servers.get(choice.server);
        server.ok_or_else(|| Error::explain(ErrorType::InternalError, "the server is gone"))
    }

    /// Avoids an address for a while.
    pub(crate) fn avoid_server(&self, choice: &Choice) {
        let until = self.now().saturating_add(millis(PASSED_OVER));
        choice.endpoint.avoid_until(until);
    }

    /// Another address of the same server that is in use and not in `tried`.
    pub(crate) fn same_server(&self, choice: &Choice, tried: &[Arc<Endpoint>]) -> Option<Choice> {
        let endpoint = self
            .servers
            .get(choice.server)?
            .untried_endpoint(tried, |endpoint| endpoint.is_available(self.now()))?;
        Some(Choice {
            server: choice.server,
            endpoint,
        })
    }

    /// A server with an address that is not in `tried`: the next one with an address in use, else
    /// one that is avoided.
    pub(crate) fn other_server(&self, tried: &[Arc<Endpoint>]) -> Option<Choice> {
        let now = self.now();
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        [true, false].into_iter().find_map(|in_use| {
            (0..self.round.len()).find_map(|offset| {
                let at = start.wrapping_add(offset).checked_rem(self.round.len())?;
                let server = usize::from(*self.round.get(at)?);
                let wanted = |endpoint: &Endpoint| endpoint.is_available(now) == in_use;
                let endpoint = self.servers.get(server)?.untried_endpoint(tried, wanted)?;
                Some(Choice { server, endpoint })
            })
        })
    }

    /// The servers whose names should be looked up when the last look-up is `age` old; those never
    /// found are always due.
    pub(crate) fn due_servers(&self, age: Duration) -> impl Iterator<Item = &Server> {
        let now = self.now();
        self.servers
            .iter()
            .filter(move |server| server.is_due(now, millis(age)))
    }

    /// Records the result of looking up a server's name, and returns whether that is a change.
    pub(crate) fn set_addresses(&self, server: &Server, addresses: &[SocketAddr]) -> bool {
        server.set_addresses(self.now(), addresses)
    }

    /// Milliseconds since the pool was made, from 1.
    fn now(&self) -> u64 {
        millis(self.started.elapsed()).saturating_add(1)
    }
}

/// A server and the address of it that a request goes to.
#[derive(Clone)]
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

impl Attempts {
    fn new(upstream: &str, metrics: &Metrics) -> Self {
        let of = |result| {
            metrics
                .upstream_attempts
                .with_label_values(&[upstream, result])
        };
        Self {
            connected: of("connected"),
            connect_failed: of("connect_failed"),
            failed: of("failed"),
            reused: of("reused"),
            unresolved: of("unresolved"),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::model::{Balance, UpstreamAddress, UpstreamServer, UpstreamTls};

    fn pool(servers: Vec<UpstreamServer>) -> Pool {
        let upstream = Upstream {
            name: "app".into(),
            servers,
            balance: Balance::RoundRobin,
            tls: UpstreamTls::Off,
        };
        Pool::new(&Arc::new(upstream), &Metrics::new().expect("metrics"))
    }

    fn ip(port: u16, weight: u32) -> UpstreamServer {
        let address = UpstreamAddress::Ip(([127, 0, 0, 1], port).into());
        UpstreamServer { address, weight }
    }

    fn turns(pool: &Pool, count: usize) -> HashMap<String, usize> {
        let mut turns = HashMap::new();
        for _ in 0..count {
            let choice = pool.next_server().expect("a server");
            *turns.entry(choice.endpoint.text.to_string()).or_default() += 1;
        }
        turns
    }

    #[test]
    fn servers_take_turns_by_weight() {
        let turns = turns(&pool(vec![ip(1, 1), ip(2, 3)]), 400);
        assert_eq!((turns["127.0.0.1:1"], turns["127.0.0.1:2"]), (100, 300));
    }

    #[test]
    fn a_failed_server_is_passed_over_until_it_is_back() {
        let pool = pool(vec![ip(1, 1), ip(2, 1)]);
        let first = pool.next_server().expect("a server");
        pool.avoid_server(&first);
        let second = pool.next_server().expect("a server");
        assert_ne!(first.endpoint.text, second.endpoint.text);
        assert_eq!(turns(&pool, 10).len(), 1);
        // If none is left, the failed ones are tried all the same.
        pool.avoid_server(&second);
        assert_eq!(turns(&pool, 10).len(), 2);
        first.endpoint.restore();
        assert_eq!(
            turns(&pool, 10),
            HashMap::from([(first.endpoint.text.to_string(), 10)])
        );
        assert_eq!(
            pool.endpoints().iter().filter(|(_, is_in)| *is_in).count(),
            1
        );
    }

    #[test]
    fn every_server_is_tried_once_and_those_in_use_first() {
        let pool = pool(vec![ip(1, 1), ip(2, 1), ip(3, 1)]);
        let failed = pool.next_server().expect("a server");
        let out = pool.next_server().expect("a server");
        pool.avoid_server(&out);
        pool.avoid_server(&failed);
        let mut tried = vec![Arc::clone(&failed.endpoint)];
        assert!(pool.same_server(&failed, &tried).is_none());
        let second = pool.other_server(&tried).expect("a server");
        assert_ne!(second.endpoint.text, out.endpoint.text);
        tried.push(Arc::clone(&second.endpoint));
        let third = pool
            .other_server(&tried)
            .expect("a server that is passed over");
        assert_eq!(third.endpoint.text, out.endpoint.text);
        tried.push(third.endpoint);
        assert!(pool.other_server(&tried).is_none());
    }

    #[test]
    fn a_name_has_every_address_that_was_found() {
        let host = "app.internal".parse().expect("a name");
        let name = UpstreamAddress::Name { host, port: 80 };
        let pool = pool(vec![UpstreamServer {
            address: name,
            weight: 1,
        }]);
        assert!(pool.next_server().is_none());
        let due = || pool.due_servers(Duration::from_secs(10)).next();
        let server = due().expect("never looked up");
        let addresses: Vec<SocketAddr> =
            vec![([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into()];
        pool.set_addresses(server, &[]);
        assert!(due().is_some(), "what was never found stays due");
        pool.set_addresses(server, &addresses);
        assert!(due().is_none());
        assert_eq!(turns(&pool, 10).len(), 2);
        let choice = pool.next_server().expect("a server");
        pool.avoid_server(&choice);
        let tried = [Arc::clone(&choice.endpoint)];
        let other = pool
            .same_server(&choice, &tried)
            .expect("the other address");
        assert_ne!(other.endpoint.text, choice.endpoint.text);
        assert_eq!(turns(&pool, 10).len(), 1);
        // The state of an address outlives the next look-up, and an empty result changes nothing.
        pool.set_addresses(server, &addresses);
        pool.set_addresses(server, &[]);
        assert_eq!(turns(&pool, 10).len(), 1);
        pool.set_addresses(server, &addresses[..1]);
        assert_eq!(pool.endpoints().len(), 1);
    }
}
