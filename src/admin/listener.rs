//! The admin interface's listener and its accept loop, with limits that keep one careless client
//! from locking out the others.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::Place;
use super::connection::{Connected, Connection, Patient};
use crate::config::model::Admin;
use crate::printable::Printable as _;
use crate::shutdown::{ShutdownWatch, requested};
use crate::throttle::Throttle;
use crate::unix_socket::{self, SocketFile, UnixBindError};

const BACKLOG: i32 = 128;
const MAX_CONNECTIONS: usize = 128;
const HEADER_READ: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 16 * 1024;
/// How long the other side may delay a write.
pub(super) const WRITE: Duration = Duration::from_secs(30);
/// A connection is asked to end after this time, so that none is held forever; event streams stay.
pub(super) const LIFETIME: Duration = Duration::from_secs(300);
/// How long a connection that was asked to end may take.
const FAREWELL: Duration = Duration::from_secs(30);
/// The pause after a failed accept, most likely for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the admin interface cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("cannot listen on {address} for the admin interface: {source}")]
    Bind { address: String, source: io::Error },
    #[error("{} is in use: something answers there. Is a gateway already running?", .0.printable())]
    InUse(PathBuf),
    #[error("{} is in the way: it is not a socket", .0.printable())]
    NotASocket(PathBuf),
}

/// A bound listener. A socket file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener(Kind<std::net::TcpListener, std::os::unix::net::UnixListener>);

#[derive(Debug)]
enum Kind<T, U> {
    Tcp(T),
    Unix {
        listener: U,
        /// Dropped with the listener.
        file: SocketFile,
    },
}

impl<T, U> Kind<T, U> {
    /// The same listener, with each socket converted by `tcp` or `unix`.
    fn map<T2, U2>(
        self,
        tcp: impl FnOnce(T) -> io::Result<T2>,
        unix: impl FnOnce(U) -> io::Result<U2>,
    ) -> io::Result<Kind<T2, U2>> {
        Ok(match self {
            Self::Tcp(listener) => Kind::Tcp(tcp(listener)?),
            Self::Unix { listener, file } => Kind::Unix {
                listener: unix(listener)?,
                file,
            },
        })
    }
}

impl Listener {
    /// Binds as configured; `None` if the interface is off.
    pub fn bind(at: &Admin) -> Result<Option<Self>, BindError> {
        match at {
            Admin::Off => Ok(None),
            Admin::Tcp(address) => bind_tcp(*address)
                .map(|listener| Some(Self(Kind::Tcp(listener))))
                .map_err(|source| BindError::Bind {
                    address: address.to_string(),
                    source,
                }),
            // Only the owner may connect.
            Admin::Unix(path) => unix_socket::bind(path, 0o600, BACKLOG)
                .map(|(listener, file)| Some(Self(Kind::Unix { listener, file })))
                .map_err(|error| match error {
                    UnixBindError::InUse => BindError::InUse(path.clone()),
                    UnixBindError::NotASocket => BindError::NotASocket(path.clone()),
                    UnixBindError::Io(source) => BindError::Bind {
                        address: path.printable().to_string(),
                        source,
                    },
                }),
        }
    }

    /// Gives the file of a Unix socket to a user and its group.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_owner(&self, user: u32, group: u32) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(_) => Ok(()),
            Kind::Unix { file, .. } => file.set_owner(user, group),
        }
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn place(&self) -> io::Result<Place> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Place::Tcp),
            Kind::Unix { .. } => Ok(Place::Unix),
        }
    }
}

impl Kind<TcpListener, UnixListener> {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Box::new(stream) as _),
            Self::Unix { listener, .. } => listener
                .accept()
                .await
                .map(|(stream, _)| Box::new(stream) as _),
        }
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until `shutdown` turns true, then lets the requests in flight finish.
pub async fn serve(listener: Listener, router: Router, mut shutdown: ShutdownWatch) {
    let listener = match listener
        .0
        .map(TcpListener::from_std, UnixListener::from_std)
    {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin interface cannot use its socket");
            return;
        }
    };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let failures = Throttle::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = requested(&mut shutdown) => break,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let answer = serve_connection(stream, router.clone(), shutdown.clone());
                tokio::spawn(async move {
                    answer.await;
                    drop(permit);
                });
            }
            Err(error) => {
                if let Some(suppressed) = failures.admit() {
                    tracing::warn!(
                        suppressed, %error, "the admin interface cannot accept a connection",
                    );
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = timeout(FAREWELL, room.acquire_many(all)).await;
}

/// Waits for room first: excess clients wait in the kernel's queue.
async fn accept(
    listener: &Kind<TcpListener, UnixListener>,
    room: &Arc<Semaphore>,
) -> io::Result<(Box<dyn Stream>, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let stream = listener.accept().await?;
    Ok((stream, permit))
}

pub(super) async fn serve_connection(
    stream: Box<dyn Stream>,
    router: Router,
    mut shutdown: ShutdownWatch,
) {
    let state = Connection::new(shutdown.clone());
    let service = Connected {
        router: TowerToHyperService::new(router),
        connection: state.clone(),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Patient::new(stream, WRITE)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break Some(ended),
            () = requested(&mut shutdown) => break None,
            () = sleep(LIFETIME) => if !state.is_streaming() {
                break None;
            },
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin interface failed");
    }
    state.ended();
}
