//! Connections to servers, as far as the gateway opens, reads and ends them itself.
//!
//! Pingora pools connections by their destination, and identifies each by its socket's descriptor.
//! A connection whose reads pass through here has no descriptor, so Pingora keeps it but never
//! considers it reusable. So each has a [`Link`], which is a pool of its own: a request takes one
//! of the server's links, and if Pingora drops its connection and asks for a new one, it gets the
//! same again.
//!
//! A connection is opened before Pingora asks for it, so that the request can be cancelled
//! meanwhile.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_limit::IdlePermit;
use super::dial::{self, Duplex};
use super::flow::Flow;
use crate::lock::MutexExt as _;

/// A connection to a server, or to one that is yet to be opened.
#[derive(Debug)]
pub(crate) struct Link {
    /// Itself, for the connection that it holds.
    me: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Open connections: one, or two for the moment in which one replaces another.
    open: usize,
    /// Whether the gateway ended the connection.
    is_ended: bool,
    /// Whether the connection has been used since the current request began.
    is_used: bool,
    /// The connection, if it was just opened, or dropped unused.
    waiting: Option<Waiting>,
    /// Whether the connection had a request before the current one.
    is_reused: bool,
    /// The flow of the response that is being read, if it is bounded.
    flow: Option<Arc<Flow>>,
    /// Held while the connection waits for its next request.
    idle: Option<IdlePermit>,
    /// The task that reads.
    reader: Option<Waker>,
}

/// A connection over which nothing has been sent for the current request.
#[derive(Debug)]
struct Waiting {
    socket: Box<dyn Duplex>,
    is_reused: bool,
}

impl Link {
    /// A link without a connection yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            state: Mutex::default(),
        })
    }

    /// Pingora's key for this link's connection.
    pub(crate) fn key(&self) -> u64 {
        // An open connection holds its link, so no other link can have the same address.
        self.me.as_ptr().addr() as u64
    }

    /// Whether its connection is open.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.state();
        state.open > 0 && !state.is_ended
    }

    /// Begins a request. `flow` bounds what is read, if it is given.
    pub(crate) fn begin_request(&self, flow: Option<Arc<Flow>>) {
        let mut state = self.state();
        state.flow = flow;
        state.idle = None;
        state.is_used = false;
        state.is_reused = false;
        state.waiting = None;
    }

    /// Gives the link a connection that was just opened.
    pub(super) fn set_socket(&self, socket: Box<dyn Duplex>) {
        self.state().waiting = Some(Waiting {
            socket,
            is_reused: false,
        });
    }

    /// Whether the connection had a request before the current one.
    pub(crate) fn is_reused(&self) -> bool {
        self.state().is_reused
    }

    /// Makes the connection wait for the next request, counted by `idle`.
    pub(crate) fn set_idle(&self, idle: IdlePermit) {
        let mut state = self.state();
        state.flow = None;
        state.idle = (state.open > 0).then_some(idle);
    }

    /// Ends the connection: its reader and writer learn that it is gone.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_ended = true;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The waiting connection, if its server still has it open.
    fn take_waiting(&self) -> Option<Waiting> {
        let mut waiting = self.state().waiting.take()?;
        // A new one is used in any case: whatever it does is the server's response.
        let is_open = !waiting.is_reused || dial::is_quiet(&mut *waiting.socket);
        is_open.then_some(waiting)
    }

    fn note_opened(&self, is_reused: bool) {
        let mut state = self.state();
        state.open += 1;
        state.is_ended = false;
        state.is_reused = is_reused;
    }

    fn note_closed(&self, socket: Option<Box<dyn Duplex>>) {
        let mut state = self.state();
        if state.flow.as_ref().is_some_and(|flow| flow.is_cancelled()) {
            // Its port is free at once, and the server learns that nobody waits.
            if let Some(socket) = &socket {
                socket.reset_on_close();
            }
        }
        state.open = state.open.saturating_sub(1);
        if state.open == 0 {
            state.idle = None;
        }
        if !state.is_used && !state.is_ended {
            state.waiting = socket.map(|socket| Waiting {
                socket,
                is_reused: true,
            });
        }
    }

    fn note_used(&self) {
        self.state().is_used = true;
    }

    /// The bound of a read, if it has one.
    fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bound>>> {
        let flow = {
            let mut state = self.state();
            if state.is_ended {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            if !state
                .reader
                .as_ref()
                .is_some_and(|known| known.will_wake(cx.waker()))
            {
                state.reader = Some(cx.waker().clone());
            }
            state.flow.clone()
        };
        let Some(flow) = flow else {
            return Poll::Ready(Ok(None));
        };
        let connection_limit = ready!(flow.poll_read(cx));
        Poll::Ready(Ok(Some(Bound {
            connection_limit,
            flow,
        })))
    }

    fn begin_write(&self) -> io::Result<()> {
        let mut state = self.state();
        state.is_used = true;
        match state.is_ended {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }
}

#[async_trait]
impl Connect for Link {
    async fn connect(&self, _: &SocketAddr) -> Result<Stream> {
        let link = self.me.upgrade().ok_or_else(|| {
            Error::explain(ErrorType::InternalError, "the connection's link is gone")
        })?;
        let waiting = self.take_waiting().ok_or_else(|| {
            let why = "the server has closed the connection meanwhile";
            Error::explain(ErrorType::ConnectionClosed, why)
        })?;
        self.note_opened(waiting.is_reused);
        let socket = Socket {
            inner: Some(waiting.socket),
            link,
        };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

/// How much may be read, and the flow that counts it.
struct Bound {
    connection_limit: usize,
    flow: Arc<Flow>,
}

/// An open connection.
#[derive(Debug)]
struct Socket {
    /// Always present until it is dropped.
    inner: Option<Box<dyn Duplex>>,
    link: Arc<Link>,
}

impl Socket {
    fn inner(&mut self) -> io::Result<Pin<&mut Box<dyn Duplex>>> {
        let inner = self.inner.as_mut().map(Pin::new);
        inner.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.link.note_closed(self.inner.take());
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(Bound {
            connection_limit,
            flow,
        }) = ready!(self.link.poll_read(cx))?
        else {
            let read = ready!(self.inner()?.poll_read(cx, buf));
            self.link.note_used();
            return Poll::Ready(read);
        };
        let mut part = buf.take(connection_limit);
        let read = ready!(self.inner()?.poll_read(cx, &mut part));
        self.link.note_used();
        read?;
        let octets = part.filled().len();
        // SAFETY: `part` is the beginning of what `buf` has left, and so much of it is filled.
        unsafe { buf.assume_init(octets) };
        buf.advance(octets);
        flow.note_read(octets);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.begin_write()?;
        self.inner()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.note_used();
        self.inner()?.poll_shutdown(cx)
    }
}

impl VirtualSocket for Socket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.inner.as_ref().map_or(Ok(()), |s| s.set_nodelay()),
            // No other option is requested.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::super::connection_limit::ConnectionLimit;
    use super::*;

    /// The address that Pingora believes a link to lead to.
    fn target() -> SocketAddr {
        SocketAddr::Inet(([0, 0, 0, 0], 0).into())
    }

    /// A link, its connection, and the server's end of it.
    async fn connected() -> (Arc<Link>, Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let link = Link::new();
        link.begin_request(None);
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        link.set_socket(Box::new(near.expect("a connection")));
        let near = link.connect(&target()).await;
        (
            Arc::clone(&link),
            near.expect("a connection"),
            far.expect("a client").0,
        )
    }

    #[tokio::test]
    async fn a_server_is_read_no_faster_than_the_client_takes() {
        let (link, mut near, mut far) = connected().await;
        let flow = Arc::new(Flow::default());
        link.begin_request(Some(Arc::clone(&flow)));
        far.write_all(&[1; 200_000]).await.expect("room");
        let mut buffer = vec![0; 100_000];
        let read = near.read(&mut buffer).await.expect("the beginning");
        assert!(read <= 65_536, "{read}");
        let write = flow.write();
        let moment = Duration::from_millis(50);
        let waits = timeout(moment, near.read(&mut buffer)).await;
        assert!(waits.is_err(), "the client takes nothing");
        drop(write);
        near.read_exact(&mut buffer).await.expect("the rest");
        assert!(buffer.iter().all(|octet| *octet == 1));
    }

    #[tokio::test]
    async fn a_connection_that_was_dropped_unused_is_had_again() {
        let (link, mut near, mut far) = connected().await;
        assert!(!link.is_reused());
        near.write_all(b"one").await.expect("room");
        link.begin_request(None);
        drop(near);
        let mut near = link.connect(&target()).await.expect("the same");
        assert!(link.is_reused());
        near.write_all(b" two").await.expect("room");
        let mut got = [0; 7];
        far.read_exact(&mut got).await.expect("on one connection");
        assert_eq!(&got, b"one two");

        // One that was used is over, and so is one whose server has closed.
        drop(near);
        assert_eq!(far.read(&mut got).await.expect("the end"), 0);
        assert!(!link.is_open());
        let (link, mut near, far) = connected().await;
        near.write_all(b"one").await.expect("room");
        link.begin_request(None);
        drop(far);
        let end = timeout(Duration::from_secs(5), near.read(&mut got)).await;
        assert!(end.is_ok());
        drop(near);
        assert!(link.take_waiting().is_none());
    }

    #[tokio::test]
    async fn a_connection_of_a_request_that_was_taken_back_is_reset() {
        let (link, mut near, mut far) = connected().await;
        let flow = Arc::new(Flow::default());
        link.begin_request(Some(Arc::clone(&flow)));
        near.write_all(b"one").await.expect("room");
        let mut got = [0; 3];
        far.read_exact(&mut got).await.expect("what was sent");
        flow.cancel();
        drop(near);
        let end = far.read(&mut got).await.map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_link_that_is_ended_wakes_who_reads_and_gives_its_place_back() {
        let connection_limit = Arc::new(ConnectionLimit::default());
        let (link, mut near, _far) = connected().await;
        assert!(link.is_open());
        link.set_idle(connection_limit.try_keep_idle().expect("room"));
        assert_eq!(connection_limit.idle(), 1);
        let reading = tokio::spawn(async move { near.read(&mut [0; 1]).await });
        tokio::task::yield_now().await;
        link.close();
        let end = reading.await.expect("no panic");
        assert!(end.is_err());
        assert!(!link.is_open());
        assert_eq!(connection_limit.idle(), 0);
    }
}
