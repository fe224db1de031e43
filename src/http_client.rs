//! HTTP to the servers of others, CAs and DNS providers: hyper over OpenSSL, with the configured
//! roots, proxy and time-outs.
//!
//! It speaks only HTTPS unless told otherwise, limits the duration and the size of a response, and
//! does not interpret it.

mod forward_proxy;

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::uri::{Scheme, Uri};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_openssl::client::legacy::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use openssl::error::ErrorStack;
use openssl::sha::sha256;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use thiserror::Error;

use self::forward_proxy::ForwardProxy;
use crate::printable::Printable as _;

/// Our user agent.
pub const AGENT: &str = concat!("snigate/", env!("CARGO_PKG_VERSION"));

/// A certificate chain takes a few KiB.
const MAX_ANSWER: usize = 1 << 20;

/// An idle connection is closed here before the CA closes it: a request on a closing connection
/// fails.
const IDLE: Duration = Duration::from_secs(20);

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To connect to one address.
    pub connect: Duration,
    /// From the beginning to the end of the response.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            request: Duration::from_secs(40),
        }
    }
}

/// The body of a request.
pub type Body = Full<Bytes>;

/// How servers are reached, and which are trusted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The roots to trust (PEM); `None` for the system's.
    pub ca_file: Option<&'a Path>,
    /// A proxy, `http://HOST:PORT`.
    pub proxy: Option<&'a Uri>,
    /// Whether plain HTTP is used if a URL says so.
    pub allow_plain: bool,
    /// Whether only plain HTTP will be used, so that no roots are needed.
    pub only_plain: bool,
    pub patience: Patience,
    /// The most octets of a response's body, 1 MiB by default.
    pub max_answer: Option<usize>,
}

/// A client with its connections.
pub struct HttpClient {
    path: Way,
    allow_plain: bool,
    patience: Patience,
    max_answer: usize,
    /// `None` if only plain HTTP is used.
    roots: Option<[u8; 32]>,
}

/// How servers are reached.
enum Way {
    Direct(Client<HttpsConnector<HttpConnector>, Body>),
    /// Through a tunnel, or without one if the URL is one of plain HTTP.
    Proxy(
        Client<HttpsConnector<Tunnel<HttpConnector>>, Body>,
        Box<ForwardProxy>,
    ),
}

impl HttpClient {
    /// Creates a client. Reads the roots from their file.
    ///
    /// # Errors
    /// If the roots cannot be read.
    pub fn new(options: Options<'_>) -> Result<Self, HttpError> {
        let Options {
            ca_file,
            proxy,
            allow_plain,
            only_plain,
            patience,
            max_answer,
        } = options;
        let mut tls = tls()?;
        let roots = match only_plain {
            true => None,
            false => Some(trust(&mut tls, ca_file)?),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(patience.connect));
        tcp.set_keepalive(Some(IDLE));
        tcp.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE);
        let path = match proxy {
            None => Way::Direct(builder.build(HttpsConnector::with_connector(tcp, tls)?)),
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.clone(), tcp);
                if let Some(credentials) = credentials(proxy) {
                    tunnel = tunnel.with_auth(credentials);
                }
                let tunnel = builder.build(HttpsConnector::with_connector(tunnel, tls)?);
                Way::Proxy(tunnel, Box::new(ForwardProxy::new(proxy)))
            }
        };
        Ok(Self {
            path,
            allow_plain,
            patience,
            max_answer: max_answer.unwrap_or(MAX_ANSWER),
            roots,
        })
    }

    /// The digest of the file of the roots that it trusts; `None` if it only uses plain HTTP.
    pub fn roots(&self) -> Option<&[u8; 32]> {
        self.roots.as_ref()
    }

    /// Sends a request and reads the whole response, whatever its status.
    ///
    /// # Errors
    /// If there is no complete response.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Bytes>, HttpError> {
        let is_known = |scheme: &Scheme| {
            *scheme == Scheme::HTTPS || (self.allow_plain && *scheme == Scheme::HTTP)
        };
        if !request.uri().scheme().is_some_and(is_known) {
            return Err(HttpError::Scheme(request.uri().clone()));
        }
        request
            .headers_mut()
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(AGENT));
        let exchange = async {
            let is_plain = request.uri().scheme() == Some(&Scheme::HTTP);
            let sent = match &self.path {
                Way::Direct(client) => client.request(request).await.map_err(|one| broken(&one)),
                Way::Proxy(_, forward) if is_plain => {
                    forward.send(request).await.map_err(|error| broken(&error))
                }
                Way::Proxy(tunnel, _) => tunnel
                    .request(request)
                    .await
                    .map_err(|error| broken(&error)),
            };
            let (head, body) = sent?.into_parts();
            let body = Limited::new(body, self.max_answer).collect().await;
            match body {
                Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(HttpError::TooLong(self.max_answer))
                }
                Err(error) => Err(broken(&*error)),
            }
        };
        tokio::time::timeout(self.patience.request, exchange)
            .await
            .unwrap_or(Err(HttpError::Timeout(self.patience.request)))
    }
}

/// Why there is no response.
#[derive(Debug, Error)]
pub enum HttpError {
    #[error("{0} is not requested: only https URLs are allowed")]
    Scheme(Uri),
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error("its response is longer than {} KiB", .0 / 1024)]
    TooLong(usize),
    #[error("{0}")]
    Broken(String),
    #[error("cannot read the roots in {}: {source}", path.printable())]
    Roots { path: PathBuf, source: io::Error },
    #[error("there are no roots to trust in {}", .0.printable())]
    NoRoots(PathBuf),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] ErrorStack),
}

impl HttpError {
    /// Returns true if it lasts until the configuration or the machine is changed.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Scheme(_) | Self::Roots { .. } | Self::NoRoots(_) | Self::Tls(_)
        )
    }
}

/// The texts of an error and its causes.
fn broken(error: &(dyn StdError + 'static)) -> HttpError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    HttpError::Broken(text)
}

/// TLS to servers that these roots, or the system's, have certified; for protocols other than HTTP.
///
/// # Errors
/// If the roots cannot be read.
pub(crate) fn tls_connector(ca_file: Option<&Path>) -> Result<SslConnector, HttpError> {
    let mut tls = tls()?;
    trust(&mut tls, ca_file)?;
    Ok(tls.build())
}

/// TLS 1.2 or newer, verified as in browsers. The built-in OpenSSL has no roots of its own.
fn tls() -> Result<SslConnectorBuilder, HttpError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    Ok(builder)
}

/// Makes a client trust these roots, or the system's. Returns the digest of their file.
fn trust(builder: &mut SslConnectorBuilder, ca_file: Option<&Path>) -> Result<[u8; 32], HttpError> {
    let system;
    let path = match ca_file {
        Some(path) => path,
        None => {
            system = openssl_probe::probe().cert_file.unwrap_or_else(|| {
                // The usual place, for the message that it is missing.
                PathBuf::from("/etc/ssl/certs/ca-certificates.crt")
            });
            &system
        }
    };
    let pem = fs::read(path).map_err(|source| HttpError::Roots {
        path: path.to_owned(),
        source,
    })?;
    let roots = X509::stack_from_pem(&pem)
        .ok()
        .filter(|roots| !roots.is_empty())
        .ok_or_else(|| HttpError::NoRoots(path.to_owned()))?;
    let mut store = X509StoreBuilder::new()?;
    for root in roots {
        store.add_cert(root)?;
    }
    builder.set_cert_store(store.build());
    Ok(sha256(&pem))
}

/// Name and password in a proxy's URL, in the form that it expects.
fn credentials(proxy: &Uri) -> Option<HeaderValue> {
    let (user, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    let encoded = openssl::base64::encode_block(user.as_bytes());
    HeaderValue::from_str(&format!("Basic {encoded}")).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    use openssl::pkey::PKey;
    use openssl::ssl::{SslAcceptor, SslMethod};

    use super::*;

    const SHORT: Patience = Patience {
        connect: Duration::from_millis(500),
        request: Duration::from_millis(1500),
    };

    fn open(
        ca_file: &Path,
        proxy: Option<&Uri>,
        patience: Patience,
    ) -> Result<HttpClient, HttpError> {
        HttpClient::new(Options {
            ca_file: Some(ca_file),
            proxy,
            patience,
            ..Options::default()
        })
    }

    /// A server for `localhost` that responds to everything with this; its address and root.
    fn server(answer: &'static [u8]) -> (SocketAddr, tempfile::NamedTempFile) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let rcgen::CertifiedKey { cert, signing_key } = made.expect("a certificate");
        let certificate = cert.pem();
        let key = signing_key.serialize_pem();
        let key = PKey::private_key_from_pem(key.as_bytes()).expect("a key");
        let mut builder = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server()).expect("TLS");
        let parsed = X509::from_pem(certificate.as_bytes()).expect("a certificate");
        builder.set_certificate(&parsed).expect("a certificate");
        builder.set_private_key(&key).expect("its key");
        let acceptor = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = acceptor.accept(stream.expect("a connection")) else {
                    continue;
                };
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
                assert!(head.contains("user-agent: snigate/"), "{head}");
                let _ = stream.write_all(answer);
                let _ = stream.flush();
                if answer.is_empty() {
                    thread::sleep(SHORT.request * 2);
                }
                let _ = stream.shutdown();
            }
        });
        let mut root = tempfile::NamedTempFile::new().expect("a file");
        root.write_all(certificate.as_bytes()).expect("written");
        (address, root)
    }

    async fn get(client: &HttpClient, url: String) -> Result<Response<Bytes>, HttpError> {
        let request = Request::builder().uri(url).body(Body::default());
        client.send(request.expect("a request")).await
    }

    fn url(address: SocketAddr) -> String {
        format!("https://localhost:{}/directory", address.port())
    }

    #[tokio::test]
    async fn a_ca_with_the_right_root_is_asked_and_others_are_not() {
        let (address, root) =
            server(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno");
        let client = open(root.path(), None, SHORT).expect("a client");
        let reply = get(&client, url(address)).await.expect("an answer");
        assert_eq!(
            (reply.status().as_u16(), &reply.body()[..]),
            (503, &b"no"[..])
        );
        let (_, other) = server(b"");
        let client = open(other.path(), None, SHORT).expect("a client");
        let error = get(&client, url(address)).await.expect_err("not trusted");
        assert!(
            error.to_string().contains("certificate verify failed"),
            "{error}"
        );
        assert!(!error.is_permanent());
        // The name matters too.
        let client = open(root.path(), None, SHORT).expect("a client");
        let error = get(&client, url(address).replace("localhost", "127.0.0.1")).await;
        assert!(error.is_err(), "it has no certificate for an address");
        let error = get(&client, url(address).replace("https", "http")).await;
        assert!(matches!(error, Err(HttpError::Scheme(_))), "{error:?}");
    }

    #[tokio::test]
    async fn answers_that_do_not_end_are_given_up() {
        let (address, root) = server(b"");
        let client = open(root.path(), None, SHORT).expect("a client");
        let error = get(&client, url(address)).await.expect_err("silence");
        assert!(matches!(error, HttpError::Timeout(_)), "{error}");
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX_ANSWER + 1));
        let (address, root) = server(long.leak().as_bytes());
        let client = open(root.path(), None, Patience::default());
        let error = get(&client.expect("a client"), url(address)).await;
        assert!(matches!(error, Err(HttpError::TooLong(_))), "{error:?}");
    }

    #[test]
    fn roots_that_are_not_there_are_named() {
        let missing = Path::new("/nowhere/roots.pem");
        let error = open(missing, None, SHORT).err().expect("no file");
        assert!(
            error.is_permanent() && error.to_string().contains("/nowhere"),
            "{error}"
        );
        let empty = tempfile::NamedTempFile::new().expect("a file");
        let error = open(empty.path(), None, SHORT).err().expect("no roots");
        assert!(matches!(error, HttpError::NoRoots(_)), "{error}");
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel() {
        let (address, root) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = listener.local_addr().expect("bound");
        let (heard, hear) = mpsc::channel();
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(client.try_clone().expect("a copy"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).expect("a line");
            }
            heard.send(head).expect("the test listens");
            let server = TcpStream::connect(address).expect("the server");
            (&client)
                .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                .expect("written");
            let (mut from, mut to) = (server.try_clone().expect("a copy"), client);
            thread::spawn(move || io::copy(&mut from, &mut to));
            let _ = io::copy(&mut reader, &mut &server);
        });
        let uri: Uri = format!("http://user:word@{proxy}").parse().expect("a URL");
        let client = open(root.path(), Some(&uri), SHORT).expect("a client");
        let url = format!("https://localhost:{}/", address.port());
        assert_eq!(get(&client, url).await.expect("an answer").body(), "ok");
        let head = hear.recv().expect("a request").to_ascii_lowercase();
        assert!(
            head.starts_with(&format!("connect localhost:{}", address.port())),
            "{head}"
        );
        // "user:word"
        assert!(
            head.contains("proxy-authorization: basic dxnlcjp3b3jk"),
            "{head}"
        );
    }
}
