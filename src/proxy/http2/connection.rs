//! One connection of HTTP/2, which requests share.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use pingora_core::{Error, ErrorType, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Http2Connections;
use super::liveness::Liveness;
use crate::lock::MutexExt as _;
use crate::proxy::connection_limit::{Held, IdlePermit, StreamShare, UsedPermit};
use crate::proxy::dial::Duplex;

/// The most streams of a connection, whatever its server allows.
pub(super) const MOST_STREAMS: usize = 128;

/// Octets of a response that a server may send ahead of the client, on one stream and on all. One
/// client that does not read holds up no other, and a hundred of its streams hold less than 8 MiB.
const STREAM_WINDOW: u32 = 40 * 1024;
const CONNECTION_WINDOW: u32 = MOST_STREAMS as u32 * STREAM_WINDOW;

/// Octets of a request that are buffered ahead of the server.
const SEND_BUFFER: usize = 64 * 1024;

/// The most octets of the head of a response.
const MAX_HEAD: u32 = 64 * 1024;

/// How long a connection without requests is kept.
const IDLE: Duration = Duration::from_secs(60);

/// How long the end of a connection may take.
const CLOSING: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    /// Whether it takes no more requests.
    is_retired: AtomicBool,
    /// How many requests use it.
    used: AtomicUsize,
    idle: Mutex<Idle>,
    siblings: Weak<Http2Connections>,
    liveness: Arc<Liveness>,
    /// Tells the task of the connection that nobody uses it any more, by being dropped.
    _alive: oneshot::Sender<()>,
}

/// How a connection is counted, and since when it has had no requests.
#[derive(Debug)]
struct Idle {
    since: Instant,
    /// While there are requests.
    used: Option<UsedPermit>,
    /// While there are none.
    idle: Option<IdlePermit>,
}

impl Connection {
    /// Begins HTTP/2 over a connection that was just opened, and waits for what the server allows.
    ///
    /// # Errors
    /// If the server does not speak HTTP/2.
    pub(super) async fn open(
        socket: Box<dyn Duplex>,
        siblings: Weak<Http2Connections>,
    ) -> Result<Arc<Self>> {
        // What is sent small is meant to be sent now. If that fails, it comes later.
        _ = socket.set_nodelay();
        let begun = builder().handshake(socket).await;
        let (sender, mut connection) = begun.map_err(no_http2)?;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                let ended = ended.map_err(no_http2);
                return Poll::Ready(ended.and_then(|()| {
                    let why = "the server closes the connection instead of beginning HTTP/2";
                    Error::e_explain(ErrorType::ConnectError, why)
                }));
            }
            // See `builder`.
            match connection.max_concurrent_send_streams() {
                0 => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        })
        .await?;
        let (alive, gone) = oneshot::channel();
        let liveness = Arc::new(Liveness::new(connection.ping_pong()));
        let opened = Arc::new(Self {
            sender,
            is_retired: AtomicBool::new(false),
            used: AtomicUsize::new(0),
            idle: Mutex::new(Idle {
                since: Instant::now(),
                used: None,
                idle: None,
            }),
            siblings,
            liveness,
            _alive: alive,
        });
        tokio::spawn(drive(connection, Arc::downgrade(&opened), gone));
        Ok(opened)
    }

    /// How many streams it may have.
    pub(super) fn most_streams(&self) -> usize {
        self.sender.current_max_send_streams().min(MOST_STREAMS)
    }

    /// How many requests use it.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether another request may use it, as far as is known.
    pub(super) fn has_room(&self) -> bool {
        !self.is_retired() && self.used() < self.most_streams()
    }

    /// Whether it takes no more requests.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// A place on it for a request whose client's connection has `held` so far. `is_reused` says
    /// whether it has had requests before. `None` if it takes no more requests, in which case it is
    /// retired.
    pub(super) fn try_take(
        self: &Arc<Self>,
        held: Option<&Arc<Held>>,
        is_reused: bool,
    ) -> Option<Place> {
        let mut sender = self.sender.clone();
        let mut cx = Context::from_waker(Waker::noop());
        if !matches!(sender.poll_ready(&mut cx), Poll::Ready(Ok(()))) {
            self.is_retired.store(true, Ordering::Relaxed);
            return None;
        }
        self.used.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            connection: Arc::clone(self),
            sender,
            is_reused,
            _share: held.map(StreamShare::new),
            is_doubtful: false,
        })
    }

    /// Whether it may be closed.
    pub(super) fn is_useless(&self) -> bool {
        let is_old = || self.idle.lock_unpoisoned().since.elapsed() >= IDLE;
        self.is_retired() || self.used() == 0 && is_old()
    }

    fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
        if let Some(siblings) = self.siblings.upgrade() {
            siblings.note_room(usize::MAX);
        }
    }

    /// Retires it soon unless its server is still there. A request has ended before its response.
    fn examine(self: &Arc<Self>) {
        if self.is_retired() {
            return;
        }
        // Without a runtime the program ends.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(doubt) = self.liveness.doubt() else {
            return;
        };
        // It may be closed meanwhile.
        let (liveness, connection) = (Arc::clone(&self.liveness), Arc::downgrade(self));
        runtime.spawn(async move {
            if !liveness.examine(doubt).await
                && let Some(connection) = connection.upgrade()
            {
                connection.retire();
            }
        });
    }

    fn release(&self) {
        let mut idle = self.idle.lock_unpoisoned();
        if self.used.fetch_sub(1, Ordering::Relaxed) == 1 {
            idle.since = Instant::now();
            if let Some(used) = idle.used.take() {
                idle.idle = used.into_idle();
                // Enough connections may be idle already.
                let is_kept = idle.idle.is_some();
                self.is_retired.fetch_or(!is_kept, Ordering::Relaxed);
            }
        }
        drop(idle);
        if let Some(siblings) = self.siblings.upgrade() {
            siblings.note_room(1);
        }
    }
}

/// A request's place on a connection, given up when it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Place {
    connection: Arc<Connection>,
    sender: SendRequest<Bytes>,
    is_reused: bool,
    _share: Option<StreamShare>,
    /// Whether a request has been sent of which it is not known that its server is there.
    is_doubtful: bool,
}

impl Place {
    /// Whether the connection has had requests before.
    pub(in crate::proxy) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Has the connection counted by the permit of its request, unless it is counted already.
    pub(in crate::proxy) fn count_connection(&self, permit: Option<UsedPermit>) {
        let mut idle = self.connection.idle.lock_unpoisoned();
        idle.idle = None;
        idle.used = idle.used.take().or(permit);
    }

    /// Sends the head of a request, which ends it if `is_end`.
    ///
    /// # Errors
    /// If the connection takes no more requests: this one has not been sent.
    pub(in crate::proxy) fn send_head(
        &mut self,
        head: Request<()>,
        is_end: bool,
    ) -> std::result::Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.is_doubtful = true;
        self.sender.send_request(head, is_end)
    }

    /// Records that the server has sent something for the request.
    pub(in crate::proxy) fn note_sign(&self) {
        self.connection.liveness.note_sign();
    }

    /// Records that the server has ended its response, or failed the request.
    pub(in crate::proxy) fn note_end(&mut self) {
        self.is_doubtful = false;
    }

    /// Has no other request use the connection: something is wrong with it.
    pub(in crate::proxy) fn retire_connection(&self) {
        self.connection.retire();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_doubtful {
            self.connection.examine();
        }
        self.connection.release();
    }
}

/// Carries what is sent and received, until the connection has ended.
async fn drive(
    connection: h2::client::Connection<Box<dyn Duplex>, Bytes>,
    opened: Weak<Connection>,
    gone: oneshot::Receiver<()>,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        // Its streams know of an error.
        _ = &mut connection => {}
        _ = gone => {
            _ = timeout(CLOSING, connection).await;
        }
    }
    if let Some(opened) = opened.upgrade() {
        opened.retire();
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        // What a server does wrong costs its stream alone.
        .max_local_error_reset_streams(None)
        // None, until the server has said how many it allows.
        .initial_max_send_streams(0);
    builder
}

fn no_http2(error: h2::Error) -> Box<Error> {
    let why = "the server does not speak HTTP/2";
    Error::because(ErrorType::ConnectError, why, error)
}
