//! A server of HTTP/2 that treats each request as a test tells it.

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Response};
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslMethod, select_next_proto};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_openssl::SslStream;

use super::{Pair, wait_for};

/// Runs until dropped.
pub struct H2Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
}

/// How a server is set up.
#[derive(Clone, Default)]
pub struct H2Setup {
    /// The certificate, and what is chosen from what a client offers, as in a ClientHello; no TLS
    /// without it.
    pub tls: Option<(Pair, &'static [u8])>,
    pub max_streams: Option<u32>,
}

/// A request, and how it is responded to.
pub struct Call {
    pub head: Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
    /// Which request of the server it is, from 0.
    pub number: usize,
}

impl H2Server {
    /// One without TLS.
    pub fn start<F>(serve: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(H2Setup::default(), serve)
    }

    pub fn with<F>(setup: H2Setup, serve: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let any_port = (Ipv4Addr::LOCALHOST, 0);
        let listener = runtime
            .block_on(TcpListener::bind(any_port))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let acceptor = setup
            .tls
            .as_ref()
            .map(|(pair, chosen)| acceptor(pair, chosen));
        let (own, serve) = (Arc::clone(&shared), Arc::new(serve));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, own) = (acceptor.clone(), Arc::clone(&own));
                let (setup, serve) = (setup.clone(), Arc::clone(&serve));
                tokio::spawn(async move {
                    own.connections.fetch_add(1, Ordering::SeqCst);
                    own.open.fetch_add(1, Ordering::SeqCst);
                    match acceptor {
                        Some(acceptor) => serve_tls(tcp, &acceptor, &setup, &own, &*serve).await,
                        None => serve_http2(tcp, &setup, &own, &*serve).await,
                    }
                    own.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many requests there have been.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open.
    #[track_caller]
    pub fn wait_until_left(&self) {
        wait_for("the gateway to close its connections", || {
            (self.shared.open.load(Ordering::SeqCst) == 0).then_some(())
        });
    }

    /// Ends in the middle of whatever it does.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Call {
    /// Sends the head of a response, and nothing else if `is_end`.
    pub fn send_head(
        &mut self,
        status: u16,
        fields: &[(&'static str, &str)],
        is_end: bool,
    ) -> SendStream<Bytes> {
        let mut head = Response::builder().status(status);
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        let head = head.body(()).expect("a head");
        self.respond.send_response(head, is_end).expect("open")
    }

    /// The next part of the body; `None` after its end.
    pub async fn next_part(&mut self) -> Option<Bytes> {
        let part = self.body.data().await?.expect("no failure");
        let _ = self.body.flow_control().release_capacity(part.len());
        Some(part)
    }

    /// All of the body, and its trailers.
    pub async fn read_body(&mut self) -> (Vec<u8>, HeaderMap) {
        let mut body = Vec::new();
        while let Some(part) = self.next_part().await {
            body.extend_from_slice(&part);
        }
        let trailers = self.body.trailers().await.expect("no failure");
        (body, trailers.unwrap_or_default())
    }

    /// Waits until the client resets the stream, and returns why.
    pub async fn reset_reason(&mut self) -> Option<Reason> {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.ok()
    }
}

async fn serve_http2<F: Future<Output = ()> + Send + 'static>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    setup: &H2Setup,
    shared: &Shared,
    serve: &(impl Fn(Call) -> F + Send + Sync),
) {
    let mut builder = h2::server::Builder::new();
    if let Some(most) = setup.max_streams {
        builder.max_concurrent_streams(most);
    }
    let Ok(mut connection) = builder.handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        tokio::spawn(serve(Call {
            head,
            body,
            respond,
            number: shared.requests.fetch_add(1, Ordering::SeqCst),
        }));
    }
}

async fn serve_tls<F: Future<Output = ()> + Send + 'static>(
    tcp: TcpStream,
    acceptor: &SslAcceptor,
    setup: &H2Setup,
    shared: &Shared,
    serve: &(impl Fn(Call) -> F + Send + Sync),
) {
    let ssl = Ssl::new(acceptor.context()).expect("a session");
    let mut stream = SslStream::new(ssl, tcp).expect("a session");
    if Pin::new(&mut stream).accept().await.is_err() {
        return;
    }
    if stream.ssl().selected_alpn_protocol() == Some(b"h2") {
        serve_http2(stream, setup, shared, serve).await;
    } else {
        serve_http1(stream, shared).await;
    }
}

/// Responds to everything with `http1`.
async fn serve_http1(mut stream: SslStream<TcpStream>, shared: &Shared) {
    let mut head = Vec::new();
    while let Ok(octet) = stream.read_u8().await {
        head.push(octet);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            shared.requests.fetch_add(1, Ordering::SeqCst);
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhttp1";
            if stream.write_all(response).await.is_err() {
                return;
            }
        }
    }
}

fn acceptor(pair: &Pair, chosen: &'static [u8]) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    let directory = tempfile::tempdir().expect("a directory");
    let (certificate, key) = pair.write(directory.path(), "server");
    builder.set_certificate_chain_file(certificate).unwrap();
    builder
        .set_private_key_file(key, openssl::ssl::SslFiletype::PEM)
        .unwrap();
    builder.set_alpn_select_callback(move |_, offered| {
        select_next_proto(chosen, offered).ok_or(AlpnError::NOACK)
    });
    builder.build()
}
