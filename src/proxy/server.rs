//! One server of an upstream: its addresses, and the settings of connections to it.

use std::any::Any;
use std::net::IpAddr;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use openssl::x509::{X509, X509Ref};
use pingora_core::protocols::ALPN;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::tls::TlsRef;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Scheme};
use pingora_core::{Error, ErrorType, Result};

use crate::config::model::{Protocol, Upstream, UpstreamAddress, UpstreamServer, UpstreamTls};
use crate::host::HostName;
use crate::printable::Printable as _;
use crate::proxy::dial::{Dialer, Duplex, ForeignCertificate};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::hash;
use crate::proxy::link::Link;

/// How long an idle connection to a server is kept for the next request.
const IDLE: Duration = Duration::from_secs(60);

/// A server as it is configured, with its known addresses.
pub(crate) struct Server {
    /// The template of a request's peer, without its link. Links speak TLS by themselves.
    template: HttpPeer,
    /// The settings of TLS, without the address.
    tls: Option<HttpPeer>,
    protocol: Protocol,
    pub(crate) name: Option<(HostName, u16)>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
    /// When its name was last looked up, in milliseconds of the pool's time, 0 for never.
    looked_up: AtomicU64,
    /// Whether the last look-up found nothing.
    lost: AtomicBool,
    /// Whether a reload has added it to others.
    pub(super) is_added: AtomicBool,
    /// Whether it is used only while no other server is available.
    pub(super) is_backup: bool,
    pub(super) weight: u32,
    /// The most requests at each address, 0 for no limit.
    pub(super) max_connections: usize,
}

impl Server {
    /// A server of which only the configuration is known.
    pub(crate) fn new(
        server: &UpstreamServer,
        protocol: Protocol,
        tls: &UpstreamTls,
        roots: Option<&[u8]>,
    ) -> Self {
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
        let mut tls = tls_template(server, tls, roots);
        if let Some(tls) = &mut tls {
            tls.options.alpn = match protocol {
                Protocol::Http1 => ALPN::H1,
                Protocol::Http2 => ALPN::H2,
                Protocol::Negotiated => ALPN::H2H1,
            };
        }
        Self {
            template: template(),
            tls,
            protocol,
            name,
            endpoints: ArcSwap::from_pointee(endpoints),
            turn: AtomicUsize::new(0),
            looked_up: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            is_added: AtomicBool::new(false),
            is_backup: server.backup,
            weight: server.weight,
            max_connections: server.max_connections,
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

    /// The same, to speak HTTP/1.1 over it whatever else the server speaks.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted, or if it speaks HTTP/2 alone.
    pub(super) async fn open_http1_connection(
        &self,
        endpoint: &Endpoint,
        dialer: &Dialer,
        patience: Duration,
    ) -> Result<Box<dyn Duplex>> {
        if self.protocol == Protocol::Http2 {
            let why = "the upstream has 'protocol: h2', and this needs HTTP/1.1";
            return Error::e_explain(ErrorType::InternalError, why);
        }
        let mut tls = self.tls.clone();
        if let Some(tls) = &mut tls {
            tls.options.alpn = ALPN::H1;
        }
        dialer
            .open_connection(&endpoint.address, tls.as_ref(), patience)
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

    /// What `admit` gives for an address that is not in `tried`: asked for each in turn until it
    /// gives something.
    pub(super) fn find_in_turn<T>(
        &self,
        tried: &[Arc<Endpoint>],
        mut admit: impl FnMut(&Arc<Endpoint>) -> Option<T>,
    ) -> Option<T> {
        let endpoints = self.endpoints.load();
        let start = match endpoints.len() {
            0 | 1 => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        (0..endpoints.len()).find_map(|offset| {
            let at = start.wrapping_add(offset).checked_rem(endpoints.len())?;
            let endpoint = endpoints.get(at)?;
            let is_tried = tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint));
            (!is_tried).then(|| admit(endpoint)).flatten()
        })
    }

    /// The same in the order that `key` gives the addresses, whatever their order is: each key has
    /// its first one, and if addresses come or go, few keys get another.
    pub(super) fn find_by_key<T>(
        &self,
        key: u64,
        tried: &[Arc<Endpoint>],
        admit: impl FnMut(&Arc<Endpoint>) -> Option<T>,
    ) -> Option<T> {
        let endpoints = self.endpoints.load();
        if endpoints.len() < 2 {
            return self.find_in_turn(tried, admit);
        }
        let is_tried =
            |endpoint: &Endpoint| tried.iter().any(|tried| std::ptr::eq(&**tried, endpoint));
        let mut untried: Vec<&Arc<Endpoint>> =
            endpoints.iter().filter(|one| !is_tried(one)).collect();
        untried.sort_by_cached_key(|endpoint| hash::of_parts(key, endpoint.text.as_bytes()));
        untried.into_iter().find_map(admit)
    }

    /// The host of requests to an address, unless another one is configured.
    pub(super) fn authority(&self, endpoint: &Endpoint) -> String {
        match (&self.name, &endpoint.address) {
            (Some((host, port)), _) => format!("{host}:{port}"),
            (None, SocketAddr::Inet(address)) => address.to_string(),
            (None, SocketAddr::Unix(_)) => "localhost".to_owned(),
        }
    }
}

/// A peer without its link.
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
