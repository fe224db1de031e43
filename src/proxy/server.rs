//! One server of an upstream: its addresses, and the settings of connections to it.

use std::borrow::Cow;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Scheme};
use pingora_core::{Error, ErrorType, Result};

use crate::config::model::{
    KeepAlive, Protocol, Upstream, UpstreamAddress, UpstreamServer, service_domain,
};
use crate::printable::Printable as _;
use crate::proxy::availability::Kept;
use crate::proxy::dial::{Dialer, Duplex};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::hash;
use crate::proxy::known_addresses::{FoundAddress, KnownAddresses};
use crate::proxy::link::Link;
use crate::proxy::server_tls::{HTTP1, HTTP2, HTTP2_OR_1, ServerTls, TlsSettings};

/// A server as it is configured, with its known addresses.
pub(crate) struct Server {
    /// The template of a request's peer, without its link. Links speak TLS by themselves.
    template: HttpPeer,
    /// `None` if it speaks plain HTTP.
    tls: Option<ServerTls>,
    protocol: Protocol,
    /// As it is configured.
    pub(crate) address: UpstreamAddress,
    known: ArcSwap<KnownAddresses>,
    turn: AtomicUsize,
    /// When its name is to be looked up, in milliseconds of the pool's time.
    next_look_up: AtomicU64,
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
        upstream: &Upstream,
        settings: Option<&Arc<TlsSettings>>,
    ) -> Self {
        let keepalive = keepalive(upstream);
        let endpoint = match &server.address {
            UpstreamAddress::Ip(address) => Some((SocketAddr::Inet(*address), address.to_string())),
            UpstreamAddress::Unix(path) => unix(path),
            UpstreamAddress::Name { .. } | UpstreamAddress::Service(_) => None,
        };
        let endpoint =
            endpoint.map(|(address, text)| Arc::new(Endpoint::new(address, text, keepalive)));
        let known = KnownAddresses::new(endpoint.into_iter().collect(), keepalive);
        let mut tls =
            settings.map(|settings| ServerTls::new(settings, &upstream.tls, &server.address));
        if let Some(tls) = &mut tls {
            tls.alpn = Cow::Borrowed(match upstream.protocol {
                Protocol::Http1 => HTTP1,
                Protocol::Http2 => HTTP2,
                Protocol::Negotiated => HTTP2_OR_1,
            });
        }
        Self {
            template: template(keepalive.idle),
            tls,
            protocol: upstream.protocol,
            address: server.address.clone(),
            known: ArcSwap::from_pointee(known),
            turn: AtomicUsize::new(0),
            next_look_up: AtomicU64::new(0),
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

    /// Opens a connection to one of this server's addresses within `patience`. `header` is sent
    /// first.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted.
    pub(super) async fn open_connection(
        &self,
        endpoint: &Endpoint,
        header: Option<&[u8]>,
        dialer: &Dialer,
        patience: Duration,
        needs_http1: bool,
    ) -> Result<Box<dyn Duplex>> {
        if needs_http1 {
            return self
                .open_http1_connection(endpoint, header, dialer, patience)
                .await;
        }
        let tls = self.tls.as_ref();
        dialer
            .open_connection(&endpoint.address, header, tls, patience)
            .await
    }

    /// The same, to speak HTTP/1.1 over it whatever else the server speaks.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted, or if it speaks HTTP/2 alone.
    async fn open_http1_connection(
        &self,
        endpoint: &Endpoint,
        header: Option<&[u8]>,
        dialer: &Dialer,
        patience: Duration,
    ) -> Result<Box<dyn Duplex>> {
        if self.protocol == Protocol::Http2 {
            let why = "the upstream has 'protocol: h2', and this needs HTTP/1.1";
            return Error::e_explain(ErrorType::InternalError, why);
        }
        let mut tls = self.tls.clone();
        if let Some(tls) = &mut tls {
            tls.alpn = Cow::Borrowed(HTTP1);
        }
        dialer
            .open_connection(&endpoint.address, header, tls.as_ref(), patience)
            .await
    }

    /// The same for octets of any protocol: the one that the client speaks, if that was negotiated.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted.
    pub(super) async fn open_tunnel(
        &self,
        endpoint: &Endpoint,
        header: Option<&[u8]>,
        dialer: &Dialer,
        patience: Duration,
        protocol: Option<&[u8]>,
    ) -> Result<Box<dyn Duplex>> {
        let mut tls = self.tls.clone();
        if let Some(tls) = &mut tls {
            let name = protocol.unwrap_or_default();
            // A name that was negotiated has 255 octets at most.
            let length = u8::try_from(name.len()).ok().filter(|length| *length > 0);
            tls.alpn = Cow::Owned(match length {
                Some(length) => [&[length][..], name].concat(),
                None => Vec::new(),
            });
        }
        let opened = dialer
            .open_connection(&endpoint.address, header, tls.as_ref(), patience)
            .await?;
        // A server that knows no ALPN speaks what it always does, which is not this (RFC 9113,
        // section 3.2).
        if tls.is_some() && protocol == Some(b"h2") && !opened.has_chosen_http2() {
            let why = "the client speaks HTTP/2, which the server has not chosen by ALPN";
            return Error::e_explain(ErrorType::HandshakeError, why);
        }
        Ok(opened)
    }

    /// The known addresses.
    pub(crate) fn endpoints(&self) -> Arc<KnownAddresses> {
        self.known.load_full()
    }

    /// Whether its addresses come from look-ups.
    pub(crate) fn is_looked_up(&self) -> bool {
        matches!(
            self.address,
            UpstreamAddress::Name { .. } | UpstreamAddress::Service(_)
        )
    }

    /// How long it is until its name is to be looked up, in milliseconds; `None` if it never is.
    pub(crate) fn time_until_look_up(&self, now: u64) -> Option<u64> {
        let next = self.next_look_up.load(Ordering::Relaxed);
        self.is_looked_up().then(|| next.saturating_sub(now))
    }

    /// How long its name has been due to be looked up, in milliseconds.
    pub(crate) fn look_up_delay(&self, now: u64) -> u64 {
        now.saturating_sub(self.next_look_up.load(Ordering::Relaxed))
    }

    pub(crate) fn set_next_look_up(&self, at: u64) {
        self.next_look_up.store(at, Ordering::Relaxed);
    }

    /// Replaces its addresses by those that were found; see [`KnownAddresses::update`]. Returns
    /// whether the look-up before this one had failed.
    pub(crate) fn set_addresses(&self, found: &[FoundAddress], is_complete: bool) -> bool {
        let known = self.known.load().update(found, is_complete);
        self.known.store(Arc::new(known));
        self.lost.swap(false, Ordering::Relaxed)
    }

    /// Begins with the addresses that are known of `previous`, the same server in an earlier pool,
    /// and with what is known of them, as far as `kept` says.
    pub(super) fn inherit(&self, previous: &Self, kept: Kept) {
        let earlier = previous.known.load();
        if self.is_looked_up() {
            let found: Vec<_> = earlier.as_found().collect();
            self.set_addresses(&found, true);
        }
        let known = self.known.load().succeed(&earlier, kept);
        self.known.store(Arc::new(known));
    }

    /// Records that its name could not be looked up, which keeps the known addresses. Returns
    /// whether that is new.
    pub(crate) fn note_lost(&self) -> bool {
        !self.lost.swap(true, Ordering::Relaxed)
    }

    /// What `admit` gives for an address that is not in `tried`: asked for each in turn until it
    /// gives something.
    pub(super) fn find_in_turn<T>(
        &self,
        tried: &[Arc<Endpoint>],
        mut admit: impl FnMut(&Arc<Endpoint>) -> Option<T>,
    ) -> Option<T> {
        let known = self.known.load();
        let turn = match known.len() {
            0 | 1 => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        known.in_turn(turn).find_map(|endpoint| {
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
        let known = self.known.load();
        if known.len() < 2 {
            return self.find_in_turn(tried, admit);
        }
        let is_tried =
            |endpoint: &Endpoint| tried.iter().any(|tried| std::ptr::eq(&**tried, endpoint));
        let mut untried: Vec<&Arc<Endpoint>> = known.iter().filter(|one| !is_tried(one)).collect();
        untried.sort_by_cached_key(|endpoint| {
            let hash = hash::of_parts(key, endpoint.text.as_bytes());
            (endpoint.rank().priority, hash)
        });
        untried.into_iter().find_map(admit)
    }

    /// The host of requests to an address, unless another one is configured.
    pub(super) fn authority(&self, endpoint: &Endpoint) -> String {
        match (&self.address, &endpoint.address) {
            (UpstreamAddress::Name { host, port }, _) => format!("{host}:{port}"),
            (UpstreamAddress::Service(name), _) => service_domain(name).to_owned(),
            (_, SocketAddr::Inet(address)) => address.to_string(),
            (_, SocketAddr::Unix(_)) => "localhost".to_owned(),
        }
    }
}

/// How connections to servers are kept. One that began with a client's address may serve no other
/// client's request.
fn keepalive(upstream: &Upstream) -> KeepAlive {
    match upstream.send_proxy_protocol {
        None => upstream.keepalive,
        Some(_) => KeepAlive {
            connections: 0,
            ..upstream.keepalive
        },
    }
}

/// A peer without its link.
fn template(idle: Duration) -> HttpPeer {
    let mut options = PeerOptions::new();
    options.idle_timeout = Some(idle);
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

fn unix(path: &Path) -> Option<(SocketAddr, String)> {
    let address = UnixAddress::from_pathname(path).ok()?;
    Some((
        SocketAddr::Unix(address),
        format!("unix:{}", path.printable()),
    ))
}
