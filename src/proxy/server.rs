//! One server of an upstream: its addresses, and the settings of connections to it.

use std::any::Any;
use std::net::IpAddr;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use openssl::x509::{X509, X509Ref};
use pingora_core::Result;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::tls::TlsRef;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Scheme};

use crate::config::model::{Upstream, UpstreamAddress, UpstreamServer, UpstreamTls};
use crate::host::HostName;
use crate::lock::MutexExt as _;
use crate::printable::Printable as _;
use crate::proxy::connection::IdleConnections;
use crate::proxy::connection_limit::ConnectionLimit;
use crate::proxy::dial::{Dialer, Duplex, ForeignCertificate};
use crate::proxy::link::Link;

/// How long an idle connection to a server is kept for the next request.
const IDLE: Duration = Duration::from_secs(60);

/// A server as it is configured, with its known addresses.
pub(crate) struct Server {
    /// The template of a request's peer, without its link. Links speak TLS by themselves.
    template: HttpPeer,
    /// The settings of TLS, without the address.
    tls: Option<HttpPeer>,
    pub(crate) name: Option<(HostName, u16)>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
    /// When its name was last looked up, in milliseconds of the pool's time, 0 for never.
    looked_up: AtomicU64,
    /// Whether the last look-up found nothing.
    lost: AtomicBool,
}

/// One address of a server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    /// As it is logged.
    pub(crate) text: Box<str>,
    /// Until when it is avoided, in milliseconds of the pool's time.
    out_until: AtomicU64,
    /// Connections that wait for their next request.
    pub(super) idle: Arc<IdleConnections>,
    /// Those of Pingora's lane; the last one is used first.
    resting: Mutex<Vec<Arc<Link>>>,
}

impl Server {
    /// A server of which only the configuration is known.
    pub(crate) fn new(server: &UpstreamServer, tls: &UpstreamTls, roots: Option<&[u8]>) -> Self {
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
            template: template(),
            tls: tls_template(server, tls, roots),
            name,
            endpoints: ArcSwap::from_pointee(endpoints),
            turn: AtomicUsize::new(0),
            looked_up: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        }
    }

    /// What Pingora finds the connection of a link to one of this server's addresses by.
    pub(crate) fn peer(&self, endpoint: &Endpoint, link: &Arc<Link>) -> Box<HttpPeer> {
        let mut peer = Box::new(self.template.clone());
        if let address @ SocketAddr::Inet(_) = &endpoint.address {
            // For Pingora's messages; it would look for others in the file system.
            peer._address = address.clone();
        }
        peer.group_key = link.key();
        peer.options.custom_l4 = Some(Arc::clone(link) as _);
        peer
    }

    /// Opens a connection to one of this server's addresses within `patience`.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted.
    pub(super) async fn open_connection(
        &self,
        endpoint: &Endpoint,
        dialer: &Dialer,
        patience: Duration,
    ) -> Result<Box<dyn Duplex>> {
        let tls = self.tls.as_ref();
        dialer
            .open_connection(&endpoint.address, tls, patience)
            .await
    }

    /// The known addresses.
    pub(crate) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Whether its name should be looked up when the last look-up is `age` milliseconds old.
    pub(crate) fn is_due(&self, now: u64, age: u64) -> bool {
        let since = now.saturating_sub(self.looked_up.load(Ordering::Relaxed));
        self.name.is_some() && (self.endpoints.load().is_empty() || since >= age)
    }

    /// Records the result of looking up its name. An empty one keeps the known addresses.
    ///
    /// Returns whether that is a change: from nothing found to something, or the reverse.
    pub(crate) fn set_addresses(&self, now: u64, addresses: &[std::net::SocketAddr]) -> bool {
        self.looked_up.store(now, Ordering::Relaxed);
        let changed =
            self.lost.swap(addresses.is_empty(), Ordering::Relaxed) != addresses.is_empty();
        if addresses.is_empty() {
            return changed;
        }
        let known = self.endpoints.load();
        let endpoint_of = |address: &std::net::SocketAddr| {
            known
                .iter()
                .find(|e| e.address.as_inet() == Some(address))
                .map_or_else(
                    || {
                        Arc::new(Endpoint::new(
                            SocketAddr::Inet(*address),
                            address.to_string(),
                        ))
                    },
                    Arc::clone,
                )
        };
        self.endpoints
            .store(Arc::new(addresses.iter().map(endpoint_of).collect()));
        changed
    }

    /// The next address in turn that is in use, else the next one. `None` if none is known.
    pub(crate) fn next_endpoint(&self, now: u64) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let start = match endpoints.len() {
            0 | 1 => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let at =
            |offset: usize| endpoints.get(start.wrapping_add(offset).checked_rem(endpoints.len())?);
        (0..endpoints.len())
            .filter_map(at)
            .find(|endpoint| endpoint.is_available(now))
            .or_else(|| at(0))
            .cloned()
    }

    /// An address that is `wanted` and not in `tried`.
    pub(crate) fn untried_endpoint(
        &self,
        tried: &[Arc<Endpoint>],
        wanted: impl Fn(&Endpoint) -> bool,
    ) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let mut left = endpoints.iter().filter(|endpoint| {
            wanted(endpoint) && !tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint))
        });
        left.next().cloned()
    }
}

impl Endpoint {
    fn new(address: SocketAddr, text: String) -> Self {
        Self {
            address,
            text: text.into(),
            out_until: AtomicU64::new(0),
            idle: IdleConnections::new(),
            resting: Mutex::default(),
        }
    }

    /// A link for a request: that of a waiting connection, else a new one.
    pub(crate) fn idle_or_new_link(&self) -> Arc<Link> {
        let mut resting = self.resting();
        while let Some(link) = resting.pop() {
            if link.is_open() {
                return link;
            }
        }
        Link::new()
    }

    /// Makes the connection of a link wait for its next request, if it has one and there is room.
    pub(crate) fn keep_idle(&self, link: Arc<Link>, connection_limit: &Arc<ConnectionLimit>) {
        if !link.is_open() {
            return;
        }
        let Some(idle) = connection_limit.try_keep_idle() else {
            return link.close();
        };
        link.set_idle(idle);
        let mut resting = self.resting();
        if resting.len() == resting.capacity() {
            // Those that have waited longest are those that servers have closed.
            resting.retain(|link| link.is_open());
        }
        resting.push(link);
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.resting.lock_unpoisoned()
    }

    /// Avoids this address until a time in milliseconds.
    pub(crate) fn avoid_until(&self, until: u64) {
        self.out_until.store(until, Ordering::Relaxed);
    }

    /// Stops avoiding this address.
    pub(crate) fn restore(&self) {
        // Reading first keeps the cache line shared while all is well.
        if self.out_until.load(Ordering::Relaxed) != 0 {
            self.out_until.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_available(&self, now: u64) -> bool {
        self.out_until.load(Ordering::Relaxed) <= now
    }
}

/// A peer without its link. Every upstream is spoken to in HTTP/1.1, since an upgrade cannot pass
/// through HTTP/2.
fn template() -> HttpPeer {
    let mut options = PeerOptions::new();
    options.idle_timeout = Some(IDLE);
    HttpPeer {
        _address: SocketAddr::Inet(std::net::SocketAddr::from(([0, 0, 0, 0], 0))),
        scheme: Scheme::HTTP,
        sni: String::new(),
        proxy: None,
        client_cert_key: None,
        group_key: 0,
        options,
    }
}

/// A peer with all settings of TLS but the address; `None` for plain HTTP.
fn tls_template(
    server: &UpstreamServer,
    tls: &UpstreamTls,
    roots: Option<&[u8]>,
) -> Option<HttpPeer> {
    let UpstreamTls::On {
        server_name,
        verify,
        ..
    } = tls
    else {
        return None;
    };
    let mut peer = template();
    peer.scheme = Scheme::HTTPS;
    peer.options.verify_cert = *verify;
    peer.options.verify_hostname = *verify;
    if let (None, true, UpstreamAddress::Ip(address)) = (server_name, *verify, &server.address) {
        // The way Pingora uses it, OpenSSL compares only DNS names.
        peer.options.verify_hostname = false;
        let address = address.ip().to_canonical();
        let check = move |tls: &TlsRef| -> Option<Arc<dyn Any + Send + Sync>> {
            let certificate = tls.peer_certificate();
            let covers = certificate.is_some_and(|one| covers(&one, address));
            (!covers).then(|| Arc::new(ForeignCertificate) as Arc<_>)
        };
        peer.options.upstream_tls_handshake_complete_hook = Some(Arc::new(check));
    }
    // Pingora verifies nothing if it has no name.
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
    }
    Some(peer)
}

/// Whether a certificate names an address (RFC 6125, section 1.7.2; RFC 5280, section 4.2.1.6).
fn covers(certificate: &X509Ref, address: IpAddr) -> bool {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let names = certificate.subject_alt_names();
    let mut names = names.iter().flatten();
    names.any(|name| name.ipaddress() == Some(&octets))
}

/// The upstream's own roots, `None` if it trusts the system's. An unreadable file counts as empty:
/// then no certificate is trusted.
pub(crate) fn read_roots(upstream: &Upstream) -> Option<Vec<u8>> {
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
            file = %file.printable(),
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
        format!("unix:{}", path.printable()),
    ))
}
