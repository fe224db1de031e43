//! A scripted origin, a gateway on a TCP port without the edge before it, and a client.

mod origin;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use indexmap::IndexMap;
use pingora_core::apps::{HttpServerOptions, ServerApp};
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::{GetSocketDigest, SocketDigest};
use snigate::access_log::AccessLog;
use snigate::challenge::Challenges;
use snigate::config::model::{InMemory, Origin as Place, *};
use snigate::metrics::Metrics;
use snigate::proxy::{Gateway, SiteTable, http_proxy, resolve_new};
use snigate::tls::GlobalCertificate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use origin::{Origin, Then, ok, reply};

pub(crate) fn upstream(servers: &[SocketAddr]) -> Arc<Upstream> {
    let servers = servers
        .iter()
        .map(|address| UpstreamServer::new(UpstreamAddress::Ip(*address)))
        .collect();
    Arc::new(Upstream::new("app", servers))
}

pub(crate) fn pass_to(upstream: Arc<Upstream>) -> Action {
    Action::Proxy(Proxy {
        upstream,
        connect_timeout: Duration::from_secs(1),
        read_timeout: Duration::from_millis(500),
        send_timeout: Duration::from_secs(60),
        total_timeout: None,
        max_body: None,
        retries: Retries::new(1),
    })
}

pub(crate) fn respond(body: &'static str) -> Action {
    Action::Respond {
        status: StatusCode::OK,
        body: Bytes::from_static(body.as_bytes()),
        content_type: HeaderValue::from_static("text/plain"),
    }
}

pub(crate) fn site(hosts: &[&str], tls: SiteTls, routes: Vec<(&str, Action)>) -> Arc<Site> {
    Arc::new(Site {
        hosts: hosts
            .iter()
            .map(|host| host.parse().expect("a pattern"))
            .collect(),
        listen: Vec::new(),
        https_port: None,
        tls,
        tls_policy: None,
        tunnel: None,
        routes: routes
            .into_iter()
            .map(|(path, action)| Route {
                path: path.into(),
                conditions: None,
                action,
                rewriting: None,
                compression: None,
                maintenance: None,
                access: None,
                needs_certificate: false,
                rate: RouteRate::OfSite,
            })
            .collect(),
        hsts: None,
        error_pages: None,
        maintenance: None,
        access: None,
        limits: SiteLimits::default(),
        origin: Place::default(),
    })
}

pub(crate) fn config(sites: Vec<Arc<Site>>) -> Config {
    let upstreams: IndexMap<_, _> = sites
        .iter()
        .flat_map(|site| site.routes.iter())
        .filter_map(|route| match &route.action {
            Action::Proxy(proxy) => Some((
                Arc::clone(&proxy.upstream.name),
                Arc::clone(&proxy.upstream),
            )),
            _ => None,
        })
        .collect();
    Config {
        events: Vec::new(),
        vetoes: Vec::new(),
        server: Server {
            balancers: Balancers::default(),
            trusted_proxies: NetworkSet::default(),
            https: vec![ListenAddress::Ip(([127, 0, 0, 1], 8443).into())],
            http: Vec::new(),
            admin: Admin::Off,
            admin_token: None,
            threads: 1,
            user: None,
            grace_period: Duration::from_secs(1),
            resolvers: Vec::new(),
            limits: Limits {
                handshake: Duration::from_secs(10),
                header_read: Duration::from_secs(10),
                idle: Duration::from_secs(1),
                max_header_bytes: 65536,
                max_connections: 0,
                max_connections_per_ip: 0,
                max_handshakes_per_ip: 0,
                h2_streams: 100,
                upstream_connections: 0,
                max_body: 0,
            },
            https_optional: false,
            error_pages: None,
        },
        tls: Tls {
            versions: TlsVersion::ALL,
            ciphers: None,
            protocols: None,
            groups: Vec::new(),
            default_certificate: None,
            unknown_sni: UnknownSni::Default,
            session_tickets: SessionTickets::Off,
            policy: None,
            key_log: None,
        },
        storage: Storage::File {
            path: "/nonexistent".into(),
        },
        issuers: IndexMap::new(),
        dns: IndexMap::new(),
        certificates: [].into(),
        certificates_in_memory: InMemory::All,
        certificate_cache: 1 << 20,
        renewal: Renewal {
            window: 0.33,
            check_every: Duration::from_secs(600),
            ari: true,
            required_at_start: false,
        },
        revocation: Revocation::default(),
        validity: Validity::default(),
        on_demand: None,
        upstreams,
        key_servers: Vec::new(),
        sites,
        tracing: None,
        places: Default::default(),
        log: Log {
            access: LogTarget::Off,
            ..Log::default()
        },
    }
}

/// A gateway for these sites, on plain TCP with HTTP/1 and HTTP/2 by prior knowledge.
pub(crate) async fn gateway(sites: Vec<Arc<Site>>) -> SocketAddr {
    let config = config(sites);
    let metrics = Metrics::new().expect("metrics");
    let table = SiteTable::build(&config, &metrics, None);
    resolve_new(&table).await;
    let sites = Arc::new(ArcSwap::from_pointee(table));
    let gateway = Gateway::new(
        sites,
        &metrics,
        Arc::new(ArcSwap::from_pointee(AccessLog::off())),
        GlobalCertificate::new(metrics.clone(), Challenges::default()).expect("OpenSSL"),
    );
    let mut proxy = http_proxy(gateway, &config, 64);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    proxy.server_options = Some(options);
    let proxy = Arc::new(proxy);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (_keep, shutdown) = watch::channel(false);
        while let Ok((tcp, _)) = listener.accept().await {
            let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
            let mut stream = Stream::from(tcp);
            stream.set_socket_digest(digest);
            let (proxy, shutdown) = (Arc::clone(&proxy), shutdown.clone());
            tokio::spawn(async move { proxy.process_new(Box::new(stream), &shutdown).await });
        }
    });
    address
}

/// One gateway that passes everything for `a.example` to this origin.
pub(crate) async fn before(origin: &Origin) -> SocketAddr {
    let upstream = upstream(&[origin.address]);
    gateway(vec![site(
        &["a.example"],
        SiteTls::Off,
        vec![("/", pass_to(upstream))],
    )])
    .await
}

/// A client's connection.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) async fn to(gateway: SocketAddr) -> Self {
        Self(TcpStream::connect(gateway).await.expect("a connection"))
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Everything until the gateway closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let read = timeout(Duration::from_secs(5), self.0.read_to_end(&mut all)).await;
        _ = read.expect("the gateway closes");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// What comes until `end` has come.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        let read = timeout(Duration::from_secs(5), async {
            while memchr::memmem::find(&all, end.as_bytes()).is_none() {
                if self.0.read_buf(&mut all).await.expect("read") == 0 {
                    break;
                }
            }
        });
        read.await
            .unwrap_or_else(|_| panic!("no {end:?} in {:?}", String::from_utf8_lossy(&all)));
        String::from_utf8_lossy(&all).into_owned()
    }
}

impl Client {
    /// One answer whose head says how long it is.
    pub(crate) async fn answer(&mut self) -> String {
        let mut answer = self.until("\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).expect("a length");
        let length: usize = length
            .split("\r\n")
            .next()
            .expect("it")
            .parse()
            .expect("a number");
        let mut rest = vec![0; length - body.len()];
        self.0.read_exact(&mut rest).await.expect("the body");
        answer.push_str(&String::from_utf8_lossy(&rest));
        answer
    }
}

/// One request, and everything until the gateway closes.
pub(crate) async fn ask(gateway: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut client = Client::to(gateway).await;
    client.send(request).await;
    client.rest().await
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
}

#[track_caller]
pub(crate) fn assert_status(answer: &str, status: u16) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
}
