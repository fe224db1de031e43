//! gRPC as its users have it: a server and a channel by tonic.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_openssl::SslStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tonic::transport::{Channel, Endpoint, Server, server::TcpIncoming};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Service, service_fn};

/// Messages that are octets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Octets;

impl Codec for Octets {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Octets {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Octets {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; from.remaining()];
        from.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// A server by tonic. `/test.Calls/` has these methods:
///
/// - `Echo` returns each message as it arrives;
/// - `Join` returns all messages in one, once the client has ended;
/// - `Split` returns each octet of the first message as a message;
/// - `Refuse` fails before the first message, `Break` after it;
/// - `Wait` never returns.
pub struct GrpcServer {
    address: SocketAddr,
    waiting: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl GrpcServer {
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let calls = Calls::default();
        let waiting = Arc::clone(&calls.waiting);
        let serving = Server::builder()
            .add_service(calls)
            .serve_with_incoming(TcpIncoming::from(listener));
        runtime.spawn(serving);
        Self {
            address,
            waiting,
            _runtime: runtime,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many calls of `Wait` are open.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Default)]
struct Calls {
    waiting: Arc<AtomicUsize>,
}

impl NamedService for Calls {
    const NAME: &'static str = "test.Calls";
}

type Messages = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().to_owned();
        let waiting = Arc::clone(&self.waiting);
        Box::pin(async move {
            let respond = service_fn(move |request: Request<Streaming<Vec<u8>>>| {
                let responded = respond(&method, request.into_inner(), &waiting);
                let responded: Ready<_> = ready(responded.map(Response::new));
                responded
            });
            Ok(Grpc::new(Octets).streaming(respond, request).await)
        })
    }
}

fn respond(
    method: &str,
    sent: Streaming<Vec<u8>>,
    waiting: &Arc<AtomicUsize>,
) -> Result<Messages, Status> {
    Ok(match method.rsplit('/').next().unwrap_or_default() {
        "Echo" => Box::pin(sent),
        "Join" => Box::pin(stream::once(async move {
            let all: Vec<_> = sent.collect().await;
            let all: Result<Vec<_>, Status> = all.into_iter().collect();
            all.map(|parts| parts.concat())
        })),
        "Split" => Box::pin(sent.take(1).flat_map(|message| {
            let octets = message.unwrap_or_default();
            stream::iter(octets.into_iter().map(|octet| Ok(vec![octet])))
        })),
        "Refuse" => return Err(Status::permission_denied("not yours")),
        "Break" => Box::pin(stream::iter([
            Ok(b"begun".to_vec()),
            Err(Status::new(Code::DataLoss, "half of it")),
        ])),
        "Wait" => {
            waiting.fetch_add(1, Ordering::SeqCst);
            let open = Open(Arc::clone(waiting));
            Box::pin(stream::once(async move {
                let _open = open;
                pin!(std::future::pending::<()>()).await;
                Ok(Vec::new())
            }))
        }
        _ => return Err(Status::unimplemented("no such method")),
    })
}

/// Counts a call that is open.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A channel to a gateway over TLS, which it does not verify, for calls to `host`.
pub async fn grpc_channel(address: SocketAddr, host: &str) -> Channel {
    let name = host.to_owned();
    let connect = move |_| {
        let name = name.clone();
        async move {
            let mut builder = SslConnector::builder(SslMethod::tls_client())?;
            builder.set_verify(SslVerifyMode::NONE);
            builder.set_alpn_protos(b"\x02h2")?;
            let mut setup = builder.build().configure()?;
            setup.set_verify_hostname(false);
            let tcp = TcpStream::connect(address).await?;
            let mut tls = SslStream::new(setup.into_ssl(&name)?, tcp)?;
            Pin::new(&mut tls)
                .connect()
                .await
                .map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    };
    Endpoint::try_from(format!("https://{host}"))
        .expect("a URL")
        .connect_with_connector(service_fn(connect))
        .await
        .expect("a connection")
}
