//! A proper HTTP/2 client, for what curl cannot show: resets, windows, streams side by side.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_openssl::SslStream;

use super::{PATIENCE, announcing, within};

/// A connection; its runtime continues in the background.
pub struct H2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    closed: Arc<AtomicBool>,
    server_name: String,
}

/// What came of a request.
#[derive(Debug)]
pub struct H2Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// How the stream failed after its head.
    pub cut: Option<h2::Error>,
}

impl H2Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl H2 {
    /// Connects with this SNI, verifying nothing.
    #[track_caller]
    pub fn connect(address: SocketAddr, server_name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let closed = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&closed);
        let sender = runtime.block_on(async {
            let (sender, connection) = h2::client::Builder::new()
                .enable_push(false)
                .handshake(tls(address, server_name).await)
                .await
                .expect("HTTP/2");
            tokio::spawn(async move {
                let _ = connection.await;
                end.store(true, Ordering::Release);
            });
            sender
        });
        Self {
            runtime,
            sender,
            closed,
            server_name: server_name.to_owned(),
        }
    }

    /// How many streams the server lets be open at once, once it has said so.
    pub fn max_streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Whether the server has said that it takes extended CONNECT.
    pub fn allows_extended_connect(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// A request to the host of this connection.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.server_name))
    }

    /// Begins a request; with `more` its body is to come.
    #[track_caller]
    pub fn begin(
        &mut self,
        request: Request<()>,
        more: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let sender = self.sender.clone();
        self.block_on(async move {
            let mut ready = sender.ready().await.expect("room for a stream");
            ready.send_request(request, !more).expect("a request")
        })
    }

    /// The whole answer to a request.
    #[track_caller]
    pub fn send(
        &mut self,
        request: http::request::Builder,
        body: Option<Bytes>,
    ) -> Result<H2Reply, h2::Error> {
        let request = request.body(()).expect("a request");
        let (answer, stream) = self.begin(request, body.is_some());
        self.block_on(async move {
            if let Some(body) = body {
                tokio::spawn(upload(stream, body));
            }
            read(answer.await?).await
        })
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> H2Reply {
        self.send(self.request("GET", path), None)
            .expect("an answer")
    }

    /// Runs `work` beside the connection, not for ever.
    #[track_caller]
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(PATIENCE, work).await };
        self.runtime.block_on(limited).expect("done in time")
    }

    /// Waits until the server has closed the connection.
    #[track_caller]
    pub fn wait_until_closed(&self, limit: Duration) {
        within(limit, "the end of an HTTP/2 connection", || {
            self.is_closed().then_some(())
        });
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

async fn tls(address: SocketAddr, server_name: &str) -> SslStream<TcpStream> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(b"\x02h2").unwrap();
    let ssl = builder.build().configure().unwrap();
    let ssl = ssl.into_ssl(server_name).unwrap();
    let mut tcp = TcpStream::connect(address).await.expect("a connection");
    let client = tcp.local_addr().expect("an address");
    tcp.write_all(&announcing::header(client, address))
        .await
        .expect("taken");
    let mut stream = SslStream::new(ssl, tcp).unwrap();
    Pin::new(&mut stream).connect().await.expect("a handshake");
    stream
}

/// Sends a body as fast as the other side's window allows.
pub async fn upload(mut stream: SendStream<Bytes>, mut body: Bytes) {
    loop {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        let part = body.split_to(room.min(body.len()));
        let end = body.is_empty();
        if stream.send_data(part, end).is_err() || end {
            return;
        }
    }
}

/// The interim responses that come before the final one.
pub async fn interim(answer: &mut ResponseFuture) -> Vec<http::Response<()>> {
    let mut all = Vec::new();
    while let Some(head) = next_interim(answer).await {
        all.push(head);
    }
    all
}

/// The next interim response; none where the final one comes first.
pub async fn next_interim(answer: &mut ResponseFuture) -> Option<http::Response<()>> {
    let head = std::future::poll_fn(|cx| answer.poll_informational(cx)).await?;
    Some(head.expect("an interim response"))
}

/// Reads an answer to its end, however it ends.
pub async fn read(answer: http::Response<RecvStream>) -> Result<H2Reply, h2::Error> {
    let (head, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    let mut cut = None;
    while let Some(part) = stream.data().await {
        match part {
            Ok(part) => {
                let _ = stream.flow_control().release_capacity(part.len());
                body.extend_from_slice(&part);
            }
            Err(error) => {
                cut = Some(error);
                break;
            }
        }
    }
    Ok(H2Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        cut,
    })
}
