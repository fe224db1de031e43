//! HTTP to a CA: hyper over OpenSSL, with the roots, the proxy and the patience that are configured.
//!
//! It speaks HTTPS alone, limits how long an answer may take and how long it may be, and decides
//! nothing about what an answer means. `session` gives it to instant-acme, `ca` asks it for
//! directories.

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
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_openssl::client::legacy::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::BodyWrapper;
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use thiserror::Error;

/// How we name ourselves.
const AGENT: &str = concat!("snigate/", env!("CARGO_PKG_VERSION"));

/// A chain of certificates takes some KiB.
const MAX_ANSWER: usize = 1 << 20;

/// A connection that was not used for so long is closed here before the CA closes it: a request
/// that meets a closing connection fails.
const IDLE: Duration = Duration::from_secs(20);

/// How long a CA may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one address to be connected to.
    pub(super) connect: Duration,
    /// From the beginning to the end of the answer.
    pub(super) request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            request: Duration::from_secs(40),
        }
    }
}

type Body = BodyWrapper<Bytes>;

/// A client of one CA with its connections.
pub(super) struct HttpClient {
    path: Way,
    patience: Patience,
}

/// How the CA is reached.
enum Way {
    Direct(Client<HttpsConnector<HttpConnector>, Body>),
    Proxy(Client<HttpsConnector<Tunnel<HttpConnector>>, Body>),
}

impl HttpClient {
    /// A client that trusts the roots in `ca_file`, or the system's. Reads files.
    ///
    /// # Errors
    /// Where the roots cannot be read.
    pub(super) fn new(
        ca_file: Option<&Path>,
        proxy: Option<&Uri>,
        patience: Patience,
    ) -> Result<Self, HttpError> {
        let tls = tls(ca_file)?;
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
                Way::Proxy(builder.build(HttpsConnector::with_connector(tunnel, tls)?))
            }
        };
        Ok(Self { path, patience })
    }

    /// Sends a request and takes the whole answer, whatever its status.
    ///
    /// # Errors
    /// Where there is no whole answer.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Bytes>, HttpError> {
        if request.uri().scheme() != Some(&Scheme::HTTPS) {
            return Err(HttpError::Scheme(request.uri().clone()));
        }
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let exchange = async {
            let sent = match &self.path {
                Way::Direct(client) => client.request(request).await,
                Way::Proxy(client) => client.request(request).await,
            };
            let (head, body) = sent.map_err(|error| broken(&error))?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            match body {
                Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLong),
                Err(error) => Err(broken(&*error)),
            }
        };
        tokio::time::timeout(self.patience.request, exchange)
            .await
            .unwrap_or(Err(HttpError::Timeout(self.patience.request)))
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    #[error("{0} is not asked, for CAs are asked over https alone")]
    Scheme(Uri),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("its answer is longer than {} KiB", MAX_ANSWER / 1024)]
    TooLong,
    #[error("{0}")]
    Broken(String),
    #[error("cannot read the roots in {}: {source}", path.display())]
    Roots { path: PathBuf, source: io::Error },
    #[error("there are no roots to trust in {}", .0.display())]
    NoRoots(PathBuf),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] ErrorStack),
}

impl HttpError {
    /// Whether it will stay so until the configuration or the machine is changed.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Scheme(_) | Self::Roots { .. } | Self::NoRoots(_) | Self::Tls(_)
        )
    }
}

/// All that an error and its causes say.
fn broken(error: &(dyn StdError + 'static)) -> HttpError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            // Writing to a text does not fail.
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    HttpError::Broken(text)
}

/// TLS 1.2 or newer, as browsers verify it. The OpenSSL that is built in knows no roots itself.
fn tls(ca_file: Option<&Path>) -> Result<SslConnectorBuilder, HttpError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    let system;
    let path = match ca_file {
        Some(path) => path,
        None => {
            system = openssl_probe::probe().cert_file.unwrap_or_else(|| {
                // The place of most systems, for the message that it is missing.
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
    Ok(builder)
}

/// Name and password in the URL of a proxy, as it wants to hear them.
fn credentials(proxy: &Uri) -> Option<HeaderValue> {
    let (user, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    let encoded = openssl::base64::encode_block(user.as_bytes());
    HeaderValue::from_str(&format!("Basic {encoded}")).ok()
}
