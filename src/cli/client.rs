//! A small HTTP client for the admin interface, over TCP or a socket.

mod events;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub(super) use self::events::Events;
use super::failure::Failure;
use crate::printable::Printable as _;
use crate::secret::Secret;

const CONNECT: Duration = Duration::from_secs(5);
/// A reload with many thousands of certificates takes time.
const ANSWER: Duration = Duration::from_secs(300);
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where an admin interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// How an interface that listens on `address` is reached from this machine.
    pub(super) fn listening_on(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            ip => ip.to_string(),
        };
        Self::Tcp {
            host,
            port: address.port(),
        }
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                bail!("a path is missing after unix:");
            }
            return Ok(Self::Unix(path.into()));
        }
        let bare = text
            .strip_prefix("http://")
            .unwrap_or(text)
            .trim_end_matches('/');
        let (host, port) = bare
            .rsplit_once(':')
            .ok_or_else(|| anyhow!("it is HOST:PORT or unix:PATH"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            bail!("a host is missing before :{port}");
        }
        Ok(Self::Tcp {
            host: host.to_owned(),
            port: port
                .parse()
                .with_context(|| format!("{port:?} is not a port"))?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.printable()),
        }
    }
}

/// A client of one admin interface.
#[derive(Debug)]
pub(super) struct Client {
    address: Address,
    token: Option<Secret>,
    patience: Duration,
}

/// A response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Bytes,
}

/// An unsuccessful response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) detail: String,
    pub(super) errors: Vec<Value>,
    pub(super) waiting: BTreeMap<String, Vec<String>>,
}

impl Answer {
    /// The requested value, or a failure that says why it was not returned.
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if !self.status.is_success() {
            return Err(anyhow!(self.refusal().detail).into());
        }
        Ok(serde_json::from_slice(&self.body)
            .context("the gateway sent a response that is not understood")?)
    }

    /// The reason for a refusal.
    pub(super) fn refusal(&self) -> Refusal {
        let mut refusal: Refusal = serde_json::from_slice(&self.body).unwrap_or_default();
        if refusal.detail.is_empty() {
            refusal.detail = format!("the gateway responded with {}", self.status);
        }
        refusal
    }
}

impl Client {
    pub(super) fn new(address: Address, token: Option<Secret>) -> Self {
        Self {
            address,
            token,
            patience: ANSWER,
        }
    }

    /// Waits this long for each response.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        runtime()?.block_on(self.send_request(Method::GET, path, None))
    }

    pub(super) fn post(&self, path: &str) -> Result<Answer, Failure> {
        runtime()?.block_on(self.send_request(Method::POST, path, None))
    }

    /// Sends a request; the caller judges the response, unless it asks for a token.
    pub(super) async fn send_request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let answer = async { received(self.send(method, path, body).await?).await };
        self.check_token(self.in_time(answer).await?)
    }

    /// Opens a stream of events.
    pub(super) async fn events(&self, path: &str) -> Result<Events, Failure> {
        let response = self.in_time(self.send(Method::GET, path, None)).await?;
        if response.status().is_success() {
            return Ok(Events::new(response.into_body()));
        }
        let answer = self.check_token(self.in_time(received(response)).await?)?;
        Err(anyhow!(answer.refusal().detail).into())
    }

    /// The response, unless it asks for a token.
    fn check_token(&self, answer: Answer) -> Result<Answer, Failure> {
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let detail = answer.refusal().detail;
        Err(Failure::hinted(
            anyhow!("the gateway at {} refuses: {detail}", self.address),
            "give the token with --token or SNIGATE_TOKEN",
        ))
    }

    async fn in_time<T>(
        &self,
        answering: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout(self.patience, answering).await.unwrap_or_else(|_| {
            Err(anyhow!("no response from the gateway at {}", self.address).into())
        })
    }

    /// Sends a request and waits for the head of the response.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        match &self.address {
            Address::Tcp { host, port } => {
                let stream = connected(TcpStream::connect((host.as_str(), *port))).await;
                self.exchange(self.reached(stream)?, method, path, body)
                    .await
            }
            Address::Unix(socket) => {
                let stream = connected(UnixStream::connect(socket)).await;
                self.exchange(self.reached(stream)?, method, path, body)
                    .await
            }
        }
    }

    fn reached<S>(&self, stream: io::Result<S>) -> Result<S, Failure> {
        stream.map_err(|error| {
            let gone = matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            );
            Failure::hinted(
                anyhow!(error).context(format!("cannot reach a gateway at {}", self.address)),
                if gone {
                    "is it running? use --admin for another address"
                } else {
                    "use --admin for another address"
                },
            )
        })
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let answer = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let host = match &self.address {
                Address::Unix(_) => "localhost".to_owned(),
                address => address.to_string(),
            };
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, host)
                .header(header::CONNECTION, "close");
            if let Some(token) = &self.token {
                request =
                    request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
            }
            if body.is_some() {
                request = request.header(header::CONTENT_TYPE, "application/json");
            }
            let body = body.map(Value::to_string).unwrap_or_default();
            let request = request.body(Full::new(Bytes::from(body)))?;
            Ok::<_, anyhow::Error>(sender.send_request(request).await?)
        };
        let answer = answer.await;
        Ok(answer
            .with_context(|| format!("no valid response from the gateway at {}", self.address))?)
    }
}

/// The runtime for a client's calls.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    Ok(runtime.context("cannot start")?)
}

/// Reads a whole response.
async fn received(response: Response<Incoming>) -> Result<Answer, Failure> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| anyhow!(error).context("the gateway's response was cut short"))?
        .to_bytes();
    Ok(Answer { status, body })
}

async fn connected<S>(connecting: impl Future<Output = io::Result<S>>) -> io::Result<S> {
    timeout(CONNECT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, normal) in [
            ("127.0.0.1:9180", "127.0.0.1:9180"),
            ("http://localhost:9180/", "localhost:9180"),
            ("[::1]:9180", "[::1]:9180"),
            (
                "unix:/run/snigate/admin.sock",
                "unix:/run/snigate/admin.sock",
            ),
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), normal);
        }
        for wrong in [
            "",
            "localhost",
            "localhost:http",
            ":9180",
            "unix:",
            "localhost:99999",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wildcard_listener_is_reached_by_loopback() {
        let listening =
            |address: &str| Address::listening_on(address.parse().expect("an address")).to_string();
        assert_eq!(listening("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(listening("[::]:1"), "[::1]:1");
        assert_eq!(listening("192.0.2.1:1"), "192.0.2.1:1");
    }
}
