//! Pools of upstream servers: whose turn it is, and who is out for a while.
//!
//! Choosing a server takes an atomic addition and reads; connecting, pooling and speaking HTTP
//! are Pingora's.

use std::hash::{Hash, Hasher};
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHasher;
use arc_swap::ArcSwap;
use openssl::x509::X509;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Scheme};
use prometheus::IntCounter;

use crate::config::model::{Upstream, UpstreamAddress, UpstreamServer, UpstreamTls};
use crate::host::HostName;
use crate::metrics::Metrics;
use crate::proxy::balance;
use crate::proxy::failure::Throttle;

/// How long a server is passed over after a connection to it failed.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// How long an idle connection to a server is kept for the next request.
const IDLE: Duration = Duration::from_secs(60);

/// How long a server may take nothing of what is sent to it.
const WRITE: Duration = Duration::from_secs(60);

/// How long both sides of an upgraded connection (WebSocket) may be silent before it is closed.
/// Until the server has agreed to the upgrade this is how long its answer may take, too.
pub(crate) const UPGRADED_IDLE: Duration = Duration::from_secs(3600);

/// The servers of an upstream and what is known of them.
pub struct Pool {
    upstream: Arc<Upstream>,
    /// The roots read from the upstream's CA file, kept to see when the file has changed.
    roots: Option<Vec<u8>>,
    servers: Box<[Server]>,
    /// Indices of servers in the order of their turns.
    round: Box<[u16]>,
    turn: AtomicUsize,
    started: Instant,
    pub(crate) attempts: Attempts,
    pub(crate) failures: Throttle,
}

/// Tries at an upstream, counted by how they went.
pub(crate) struct Attempts {
    pub(crate) connected: IntCounter,
    pub(crate) connect_failed: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) reused: IntCounter,
    pub(crate) unresolved: IntCounter,
}

/// A server as it is configured, with the addresses that it is found at.
pub(crate) struct Server {
    /// What a request's peer is cloned from; all but its address.
    template: HttpPeer,
    pub(crate) name: Option<(HostName, u16)>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
    /// When its name was last looked up, in milliseconds of the pool's time, 0 for never.
    looked_up: AtomicU64,
}

/// One address of a server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    /// As it stands in logs.
    pub(crate) text: Box<str>,
    /// Until when it is passed over, in milliseconds of the pool's time.
    out_until: AtomicU64,
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

    /// Whether this pool is what [`Pool::new`] would make of `upstream`.
    pub(crate) fn serves(&self, upstream: &Arc<Upstream>) -> bool {
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
            let endpoints = server.endpoints.load();
            endpoints
                .iter()
                .map(|e| (e.text.clone(), e.is_in(now)))
                .collect::<Vec<_>>()
        };
        self.servers.iter().flat_map(of).collect()
    }

    /// Whose turn it is: the next server with an address that is in use, else, all being passed
    /// over, the next one with any address. `None` where no server's name has been resolved.
    pub(crate) fn next(&self) -> Option<Choice> {
        let now = self.now();
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last_resort = None;
        for offset in 0..self.round.len() {
            let at = start.wrapping_add(offset).checked_rem(self.round.len())?;
            let server = usize::from(*self.round.get(at)?);
            match self.servers.get(server)?.next(now) {
                Some(endpoint) if endpoint.is_in(now) => return Some(Choice { server, endpoint }),
                Some(endpoint) if last_resort.is_none() => {
                    last_resort = Some(Choice { server, endpoint });
                }
                _ => {}
            }
        }
        last_resort
    }

    /// What Pingora connects to.
    pub(crate) fn peer(&self, choice: &Choice) -> Option<Box<HttpPeer>> {
        let mut peer = Box::new(self.servers.get(choice.server)?.template.clone());
        peer._address = choice.endpoint.address.clone();
        Some(peer)
    }

    /// Passes an address over for a while. Says whether another try may find a server that is
    /// in use: another address of the same server, or another server.
    pub(crate) fn pass_over(&self, choice: &Choice) -> Alternatives {
        let now = self.now();
        choice
            .endpoint
            .out_until
            .store(now.saturating_add(millis(PASSED_OVER)), Ordering::Relaxed);
        Alternatives {
            same_server: self
                .servers
                .get(choice.server)
                .is_some_and(|server| server.is_in(now)),
            any_server: self.servers.iter().any(|server| server.is_in(now)),
        }
    }

    /// Takes an address that could be connected to into use.
    pub(crate) fn take_in(&self, choice: &Choice) {
        // Looking first keeps the cache line shared while all is well.
        if choice.endpoint.out_until.load(Ordering::Relaxed) != 0 {
            choice.endpoint.out_until.store(0, Ordering::Relaxed);
        }
    }

    /// The servers whose names are to be looked up when the last look-up is `age` old; those
    /// never found are always due.
    pub(crate) fn due(&self, age: Duration) -> impl Iterator<Item = &Server> {
        let now = self.now();
        self.servers.iter().filter(move |server| {
            let since = now.saturating_sub(server.looked_up.load(Ordering::Relaxed));
            server.name.is_some() && (server.endpoints.load().is_empty() || since >= millis(age))
        })
    }

    /// Notes what a look-up of a server's name gave. Nothing found keeps what was known.
    pub(crate) fn found(&self, server: &Server, addresses: Vec<std::net::SocketAddr>) {
        server.looked_up.store(self.now().max(1), Ordering::Relaxed);
        if addresses.is_empty() {
            return;
        }
        let known = server.endpoints.load();
        let endpoint_of = |address: std::net::SocketAddr| {
            known
                .iter()
                .find(|e| e.address.as_inet() == Some(&address))
                .map_or_else(
                    || {
                        Arc::new(Endpoint::new(
                            SocketAddr::Inet(address),
                            address.to_string(),
                        ))
                    },
                    Arc::clone,
                )
        };
        server
            .endpoints
            .store(Arc::new(addresses.into_iter().map(endpoint_of).collect()));
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

/// What is left after an address has been passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alternatives {
    pub(crate) same_server: bool,
    pub(crate) any_server: bool,
}

impl Server {
    fn new(server: &UpstreamServer, tls: &UpstreamTls, roots: Option<&[u8]>) -> Self {
        let (endpoints, name) = match &server.address {
            UpstreamAddress::Ip(address) => (
                vec![(SocketAddr::Inet(*address), address.to_string())],
                None,
            ),
            UpstreamAddress::Name { host, port } => (Vec::new(), Some((host.clone(), *port))),
            UpstreamAddress::Unix(path) => (unix(path).into_iter().collect(), None),
        };
        let endpoints = endpoints
            .into_iter()
            .map(|(address, text)| Arc::new(Endpoint::new(address, text)))
            .collect();
        Self {
            template: template(server, tls, roots),
            name,
            endpoints: ArcSwap::from_pointee(endpoints),
            turn: AtomicUsize::new(0),
            looked_up: AtomicU64::new(0),
        }
    }

    /// The next address in turn that is in use, else the next one. `None` where none is known.
    fn next(&self, now: u64) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let start = match endpoints.len() {
            0 | 1 => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let at =
            |offset: usize| endpoints.get(start.wrapping_add(offset).checked_rem(endpoints.len())?);
        (0..endpoints.len())
            .filter_map(at)
            .find(|endpoint| endpoint.is_in(now))
            .or_else(|| at(0))
            .cloned()
    }

    fn is_in(&self, now: u64) -> bool {
        self.endpoints
            .load()
            .iter()
            .any(|endpoint| endpoint.is_in(now))
    }
}

impl Endpoint {
    fn new(address: SocketAddr, text: String) -> Self {
        Self {
            address,
            text: text.into(),
            out_until: AtomicU64::new(0),
        }
    }

    fn is_in(&self, now: u64) -> bool {
        self.out_until.load(Ordering::Relaxed) <= now
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

/// A peer with everything but its address. HTTP/1.1 is spoken to every upstream: an upgrade
/// cannot pass through HTTP/2.
fn template(server: &UpstreamServer, tls: &UpstreamTls, roots: Option<&[u8]>) -> HttpPeer {
    let mut options = PeerOptions::new();
    options.idle_timeout = Some(IDLE);
    options.write_timeout = Some(WRITE);
    let mut peer = HttpPeer {
        _address: SocketAddr::Inet(std::net::SocketAddr::from(([0, 0, 0, 0], 0))),
        scheme: Scheme::HTTP,
        sni: String::new(),
        proxy: None,
        client_cert_key: None,
        group_key: 0,
        options,
    };
    if let UpstreamTls::On {
        server_name,
        verify,
        ..
    } = tls
    {
        peer.scheme = Scheme::HTTPS;
        peer.options.verify_cert = *verify;
        peer.options.verify_hostname = *verify;
        // Pingora verifies nothing where it has no name. An address as the name is verified, and
        // fails: a certificate for an address needs a `server_name`.
        peer.sni = match (server_name, &server.address) {
            (Some(name), _) => name.to_string(),
            (None, UpstreamAddress::Name { host, .. }) => host.to_string(),
            (None, UpstreamAddress::Ip(address)) if *verify => address.ip().to_string(),
            (None, UpstreamAddress::Unix(_)) if *verify => "localhost".to_owned(),
            (None, _) => String::new(),
        };
        if let Some(roots) = roots {
            let roots_of_file = X509::stack_from_pem(roots).unwrap_or_default();
            peer.options.ca = Some(Arc::new(roots_of_file.into_boxed_slice()));
            // Pingora shares connections by address and name, whatever the roots.
            let mut hasher = AHasher::default();
            roots.hash(&mut hasher);
            peer.group_key = hasher.finish();
        }
    }
    peer
}

/// The roots of an upstream's own, `None` where it trusts the system's. A file that cannot be
/// read counts as empty: then no certificate is trusted.
fn read_roots(upstream: &Upstream) -> Option<Vec<u8>> {
    let UpstreamTls::On {
        ca_file: Some(file),
        ..
    } = &upstream.tls
    else {
        return None;
    };
    Some(std::fs::read(file).unwrap_or_else(|error| {
        tracing::error!(
            upstream = &*upstream.name,
            file = %file.display(),
            %error,
            "the upstream's CA file cannot be read: its servers will not be trusted",
        );
        Vec::new()
    }))
}

fn unix(path: &Path) -> Option<(SocketAddr, String)> {
    let address = UnixAddress::from_pathname(path).ok()?;
    Some((
        SocketAddr::Unix(address),
        format!("unix:{}", path.display()),
    ))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
