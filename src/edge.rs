//! The edge: accepts connections, terminates TLS, and hands requests to a Pingora application.
//!
//! Pingora's own listeners are not used. They fix the handshake's deadline at 60 s, have no
//! deadline for a whole head and no limit on connections, keep 64 KiB of buffer for each, and
//! cannot be changed while they run. Here each connection is a task that passes the limits, the
//! handshake and then `http1` or `http2`. The application behind them is
//! [`ProxyApp`](crate::proxy::ProxyApp), or anything else that implements [`DirectResponder`].
//!
//! The edge never routes a request and knows no certificate.

mod accept;
mod announced;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake_queue;
mod handshake_rate;
mod handshake_reason;
mod http1;
mod http2;
mod inherited;
mod limits;
mod listener;
mod listener_plan;
mod listeners;
mod pace;
mod proxy_protocol;
mod refusal;
mod refused_lines;
mod report;
mod slot;
mod socket;
mod stream;
mod timer;
mod tunnel;
mod unused_sockets;
mod write_coalescing;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use openssl::ssl::SslAcceptor;
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::tls::server::handshake_with_callback;
use pingora_core::protocols::{ALPN, GetProxyDigest as _, GetSocketDigest as _, Ssl as _};
use pingora_core::{ErrorType, OrErr as _};
use tokio::io::AsyncWriteExt as _;

use crate::access_log::AccessLog;
use crate::config::model::{Balancers, Limits};
use crate::metrics::{Metrics, Queue};
use crate::proxy::DirectResponder;
use crate::shutdown::{ShutdownWatch, requested};
use crate::tls::{GlobalCertificate, Handshake};

use self::handshake_queue::HandshakeQueue;
use self::handshake_rate::HandshakeRate;
use self::handshake_reason::{FailedHandshake, HandshakeFailure};
pub use self::inherited::take_inherited_sockets;
use self::limits::Connections;
pub use self::listener::{BindError, Listener, ListenerKind};
pub use self::listener_plan::ListenerPlan;
pub use self::listeners::Listeners;
use self::report::Report;
use self::slot::Slot;
use self::socket::Socket;
use self::write_coalescing::{CoalescingStream, Flush};

/// What can change while the edge runs.
pub struct Settings {
    /// Shared by the connections that were made under them.
    pub limits: Arc<Limits>,
    pub balancers: Balancers,
    /// Whether connections of some site are passed through, so that each ClientHello is read first.
    pub has_pass_through: bool,
    pub acceptor: SslAcceptor,
}

/// Everything that the connections of a gateway share.
pub struct Edge<A> {
    app: Arc<A>,
    certificates: GlobalCertificate,
    settings: ArcSwap<Settings>,
    connections: Arc<Connections>,
    metrics: Metrics,
    report: Arc<Report>,
    queue: HandshakeQueue,
    handshake_rate: HandshakeRate,
    /// The most connections that the process has file descriptors for.
    descriptors: usize,
}

impl<A> Edge<A>
where
    A: DirectResponder + Send + Sync + 'static,
{
    /// An edge in front of `app`. `descriptors` is the most connections that the process has file
    /// descriptors for; it bounds [`Limits::max_connections`]. `threads` is the number of threads
    /// that the edge runs on.
    pub fn new(
        app: Arc<A>,
        certificates: GlobalCertificate,
        settings: Settings,
        metrics: Metrics,
        descriptors: usize,
        threads: usize,
    ) -> Arc<Self> {
        let edge = Arc::new(Self {
            app,
            certificates,
            connections: Arc::default(),
            report: Arc::new(Report::new(metrics.clone())),
            metrics,
            descriptors,
            queue: HandshakeQueue::with_threads(threads),
            handshake_rate: HandshakeRate::default(),
            settings: ArcSwap::from_pointee(settings),
        });
        edge.apply_limits();
        let shown = Arc::downgrade(&edge);
        let open = move || Some(shown.upgrade()?.queue.open_handshakes());
        edge.metrics.depths.show(Queue::Handshakes, open);
        edge
    }

    /// Writes a line into this log for each connection that ends before there is a request.
    pub fn log_refused_to(&self, access: Arc<ArcSwap<AccessLog>>) {
        self.report.lines.write_to(access);
    }

    /// Replaces the settings of future connections; open ones keep theirs.
    pub fn update(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
        self.apply_limits();
    }

    fn apply_limits(&self) {
        let limits = Arc::clone(&self.settings.load().limits);
        let max = match limits.max_connections {
            0 => self.descriptors,
            max => max.min(self.descriptors),
        };
        self.connections
            .set_limits(max, limits.max_connections_per_ip);
        self.handshake_rate.set_limit(limits.max_handshakes_per_ip);
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.connections.open()
    }

    /// Accepts connections until `shutdown` turns true. Then it closes the listener and returns.
    /// Open connections continue, see [`Self::drained`].
    pub async fn run(self: Arc<Self>, listener: Listener, shutdown: ShutdownWatch) {
        let app = Arc::clone(&self.app);
        accept::run(self, listener, shutdown).await;
        // The application tells clients with a request in flight that it is the last one.
        app.http_cleanup().await;
    }

    /// Waits until the last connection has ended, at most `within`. Returns whether all have ended.
    pub async fn drained(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.connections.wait_until_none_open())
            .await
            .is_ok()
    }

    /// Serves a plain connection.
    async fn serve_plain(
        self: Arc<Self>,
        socket: Socket,
        slot: Arc<Slot>,
        shutdown: ShutdownWatch,
    ) {
        let limits = Arc::clone(&self.settings.load().limits);
        let stream = CoalescingStream::new(Box::new(socket), Flush::Now);
        http1::serve(&self.app, stream, &limits, &self.report, &slot, shutdown).await;
    }

    /// Terminates TLS within `limit` and serves what is inside.
    fn serve_tls(
        self: Arc<Self>,
        socket: Socket,
        slot: Arc<Slot>,
        limit: Duration,
        shutdown: ShutdownWatch,
    ) -> impl Future<Output = ()> + Send {
        let settings = self.settings.load_full();
        let limits = Arc::clone(&settings.limits);
        // A task reserves memory for all that it may ever hold, hence the boxes: most connections
        // have long finished their handshake and are idle.
        let settings = (settings, limit);
        let (edge, its_slot) = (Arc::clone(&self), Arc::clone(&slot));
        let handshake = edge.perform_handshake(settings, socket, its_slot, shutdown.clone());
        let handshake = Box::pin(handshake);
        async move {
            let Some(tls) = handshake.await else {
                return;
            };
            slot.restart_idle_time();
            if tunnel::is_for_octets(&tls) {
                Box::pin(tunnel::serve_terminated(&*self.app, tls, &slot)).await;
            } else if tls.selected_alpn_proto() == Some(ALPN::H2) {
                let (app, report) = (&self.app, &self.report);
                Box::pin(http2::serve(app, tls, &limits, report, &slot, shutdown)).await;
            } else {
                let stream = CoalescingStream::new(tls, Flush::Now);
                http1::serve(&self.app, stream, &limits, &self.report, &slot, shutdown).await;
            }
        }
    }

    /// Performs the TLS handshake. `None` if no requests follow: it failed, which is reported, or
    /// was a CA's validation.
    async fn perform_handshake(
        self: Arc<Self>,
        (settings, limit): (Arc<Settings>, Duration),
        socket: Socket,
        slot: Arc<Slot>,
        mut shutdown: ShutdownWatch,
    ) -> Option<Box<SslStream<Socket>>> {
        let peer = socket.peer();
        let (digest, place) = (socket.get_socket_digest(), socket.get_proxy_digest());
        let handshake = Handshake::accepted(peer.ip(), digest, place);
        let mut socket = socket.for_handshake(handshake.clone());
        let mut has_begun = false;
        let accept = async {
            // Before OpenSSL's objects exist, which are many times as large as a ClientHello.
            let received = socket.receive_client_hello(&mut has_begun).await;
            received.or_err(ErrorType::TLSHandshakeFailure, "receiving the ClientHello")?;
            let accept = handshake_with_callback(&settings.acceptor, socket, &self.certificates);
            self.queue.run_handshake(&slot, handshake.run(accept)).await
        };
        let accepted = tokio::select! {
            accepted = accept => accepted.map_err(|error| (HandshakeFailure::Failed, Some(error))),
            () = handshake.wait_until_overdue(limit) => Err((HandshakeFailure::TimedOut, None)),
            () = wait_until_let_go(&slot, &handshake) => Err((HandshakeFailure::LetGo, None)),
            () = wait_last_call(&mut shutdown) => Err((HandshakeFailure::Stopped, None)),
        };
        let mut tls = match accepted {
            Ok(tls) => Box::new(tls),
            Err((how, error)) => {
                let failed = FailedHandshake {
                    how,
                    peer,
                    handshake: &handshake,
                    error: error.as_deref(),
                    has_begun,
                };
                self.report.log_handshake(&failed);
                return None;
            }
        };
        tls.get_mut().end_handshake();
        if handshake.is_unknown_name() {
            self.report.log_unknown_name(peer, &handshake);
        }
        if handshake.is_validation() {
            // The CA has seen the certificate; nothing follows.
            _ = tokio::time::timeout(limit, tls.shutdown()).await;
            return None;
        }
        Some(tls)
    }
}

/// Waits until the connection is asked to make room for another, while it waits for its client.
async fn wait_until_let_go(slot: &Slot, handshake: &Handshake) {
    std::future::poll_fn(|cx| {
        while slot.poll_close_requested(cx).is_ready() {
            if !handshake.is_waiting_for_certificate() {
                return Poll::Ready(());
            }
            slot.restart_idle_time();
        }
        Poll::Pending
    })
    .await;
}

/// How long a client that has not sent its first request may take once the gateway stops.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Waits until the gateway stops and requests on their way have had time to arrive.
async fn wait_last_call(shutdown: &mut ShutdownWatch) {
    requested(shutdown).await;
    tokio::time::sleep(LAST_CALL).await;
}

/// Implements the parts of Pingora's `IO` that a wrapper passes to its `inner` unchanged: all
/// except reading and shutting down.
macro_rules! delegate_io {
    ($wrapper:ty) => {
        crate::edge::delegate_traits!($wrapper);

        impl tokio::io::AsyncWrite for $wrapper {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.inner).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.inner.is_write_vectored()
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.inner).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.inner).poll_shutdown(cx)
            }
        }
    };
}

/// Like [`delegate_io`], without writing.
macro_rules! delegate_traits {
    ($wrapper:ty) => {
        impl pingora_core::protocols::UniqueID for $wrapper {
            fn id(&self) -> pingora_core::protocols::UniqueIDType {
                self.inner.id()
            }
        }

        impl pingora_core::protocols::Ssl for $wrapper {
            fn get_ssl(&self) -> Option<&pingora_core::protocols::tls::TlsRef> {
                self.inner.get_ssl()
            }

            fn get_ssl_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora_core::protocols::tls::SslDigest>> {
                self.inner.get_ssl_digest()
            }

            fn selected_alpn_proto(&self) -> Option<pingora_core::protocols::ALPN> {
                self.inner.selected_alpn_proto()
            }
        }

        impl pingora_core::protocols::Peek for $wrapper {}

        impl pingora_core::protocols::GetTimingDigest for $wrapper {
            fn get_timing_digest(&self) -> Vec<Option<pingora_core::protocols::TimingDigest>> {
                self.inner.get_timing_digest()
            }
        }

        impl pingora_core::protocols::GetProxyDigest for $wrapper {
            fn get_proxy_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora_core::protocols::raw_connect::ProxyDigest>> {
                self.inner.get_proxy_digest()
            }
        }

        impl pingora_core::protocols::GetSocketDigest for $wrapper {
            fn get_socket_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora_core::protocols::SocketDigest>> {
                self.inner.get_socket_digest()
            }
        }
    };
}

use {delegate_io, delegate_traits};

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use pingora_core::apps::{HttpServerApp, ReusedHttpStream};
    use pingora_core::protocols::http::ServerSession;
    use tokio::sync::watch;

    use super::*;
    use crate::challenge::Challenges;
    use crate::config::model::{ListenAddress, Tls};
    use crate::proxy::{
        Carried, Client, Decision, Opening, Prepared, Request, Routed, Site, TunnelClient,
    };
    use crate::tls::TlsInfo;

    struct Silent;

    #[async_trait]
    impl HttpServerApp for Silent {
        async fn process_new_http(
            self: &Arc<Self>,
            _: ServerSession,
            _: &ShutdownWatch,
        ) -> Option<ReusedHttpStream> {
            None
        }
    }

    impl DirectResponder for Silent {
        fn route(&self, _: &Request<'_>) -> Routed {
            panic!("nothing is asked")
        }

        async fn route_validation(&self, _: &Request<'_>) -> Routed {
            panic!("nothing is asked")
        }

        async fn authorize(
            &self,
            _: Decision,
            _: &Request<'_>,
            _: impl Future<Output = ()> + Send,
        ) -> Routed {
            panic!("nothing is asked")
        }

        async fn forward<C: Client>(&self, _: Decision, _: &Request<'_>, _: &mut C) -> Carried {
            panic!("nothing is asked")
        }

        fn passed_through(&self, _: &[u8], _: Option<&ListenAddress>) -> Option<Arc<Site>> {
            panic!("nothing is asked")
        }

        fn awaits_validation(&self, _: &[u8]) -> bool {
            panic!("nothing is asked")
        }

        fn terminated_for(&self, _: &TlsInfo, _: Option<&ListenAddress>) -> Option<Arc<Site>> {
            panic!("nothing is asked")
        }

        async fn tunnel<C: TunnelClient>(&self, _: &Arc<Site>, _: Opening<'_>, _: &mut C) {
            panic!("nothing is asked")
        }

        fn prepare_refusal(&self, _: http::StatusCode, _: &str, _: &Request<'_>) -> Prepared {
            panic!("nothing is asked")
        }

        fn record_sent(&self, _: Prepared, _: &Request<'_>, _: usize) {}
    }

    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let metrics = Metrics::new().expect("metrics");
        let certificates =
            GlobalCertificate::new(metrics.clone(), Challenges::default()).expect("OpenSSL");
        let limits = Limits {
            handshake: LAST_CALL,
            header_read: LAST_CALL,
            idle: LAST_CALL,
            max_header_bytes: 4096,
            ..Limits::sample()
        };
        let tls = Tls {
            groups: vec!["X25519".to_owned()],
            ..Tls::sample()
        };
        let acceptor = certificates.acceptor(&tls, None).expect("OpenSSL");
        let settings = Settings {
            limits: Arc::new(limits),
            balancers: Balancers::default(),
            has_pass_through: false,
            acceptor,
        };
        let edge = Edge::new(Arc::new(Silent), certificates, settings, metrics, 10, 1);
        let (_stop, shutdown) = watch::channel(false);
        let (near, _far) = socket::tests::pair().await;
        let slot = Arc::default();
        let size = size_of_val(&Arc::clone(&edge).serve_tls(near, slot, LAST_CALL, shutdown));
        assert!(size <= 1536, "{size}");
    }
}
