//! A connection to a server over which the gateway speaks HTTP/1 itself.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio::time::{Instant, sleep};
use tokio_util::io::poll_read_buf;

use super::alarm::Alarm;
use super::connection_limit::{ConnectionLimit, IdlePermit};
use super::dial::{Duplex, is_quiet};
use crate::config::model::KeepAlive;
use crate::lock::MutexExt as _;

/// How often idle connections are checked.
const SWEEP: Duration = Duration::from_secs(2);

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Box<dyn Duplex>,
    /// What has been read and not been used.
    pub(super) buffer: BytesMut,
    /// Octets of the last response's body: the next one is often of a similar size.
    pub(super) last_length: usize,
    /// Whether it had a request before the current one.
    is_reused: bool,
    /// Whether the server has cut it, as a write has shown. That error is reported once, and what is
    /// read next looks like an orderly end.
    is_cut: bool,
    /// Rings when the server has been waited for too long.
    pub(super) alarm: Alarm,
}

impl Connection {
    /// A connection that was just opened.
    pub(super) fn new(socket: Box<dyn Duplex>) -> Self {
        // What is sent small is meant to be sent now. If that fails, it comes later.
        _ = socket.set_nodelay();
        Self {
            socket,
            buffer: BytesMut::new(),
            last_length: 0,
            is_reused: false,
            is_cut: false,
            alarm: Alarm::default(),
        }
    }

    /// Whether it was kept from an earlier request.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Reads at most `most` octets into the buffer. `Ok(0)` if the server has ended its side.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        // A part that is kept keeps its whole block of memory. So small parts share one.
        if self.buffer.capacity() - self.buffer.len() < most / 4 {
            self.buffer.reserve(most);
        }
        let mut space = (&mut self.buffer).limit(most);
        match ready!(poll_read_buf(Pin::new(&mut self.socket), cx, &mut space)) {
            Ok(0) if self.is_cut => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            read => Poll::Ready(read),
        }
    }

    /// Writes the beginning of `parts`, of which none is empty.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        let written = match parts {
            [first, _, ..] if !socket.is_write_vectored() => socket.as_mut().poll_write(cx, first),
            [one] => socket.as_mut().poll_write(cx, one),
            parts => socket.as_mut().poll_write_vectored(cx, parts),
        };
        match ready!(written) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Err(error) => {
                // A reset after an orderly end of the server fails writes with this.
                self.is_cut |= error.kind() != io::ErrorKind::BrokenPipe;
                Poll::Ready(Err(error))
            }
            written => Poll::Ready(written),
        }
    }

    /// Ready once everything that was written is on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Ends the gateway's side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// How many octets the server has not acknowledged; 0 if that is not known.
    pub(super) fn unacknowledged(&self) -> usize {
        self.socket.unacknowledged()
    }

    /// Makes the connection end with a reset.
    pub(super) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }
}

/// Connections to one address that wait for their next request.
#[derive(Debug)]
pub(super) struct IdleConnections {
    /// Itself, for the task that sweeps.
    me: Weak<Self>,
    pub(super) rule: KeepAlive,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last one is used first.
    idle: Vec<Idle>,
    is_swept: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    until: Instant,
    _permit: IdlePermit,
}

impl Idle {
    /// Whether the next request may use the connection.
    fn is_usable(&mut self, now: Instant) -> bool {
        now < self.until && is_quiet(&mut *self.connection.socket)
    }
}

impl IdleConnections {
    /// None yet, to be kept by this rule.
    pub(super) fn new(rule: KeepAlive) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            rule,
            state: Mutex::default(),
        })
    }

    /// Takes the connection that became idle last, if its server still has it open.
    pub(super) fn take_connection(&self) -> Option<Connection> {
        let mut state = self.state();
        let now = Instant::now();
        while let Some(mut idle) = state.idle.pop() {
            if idle.is_usable(now) {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, if there is room for it.
    pub(super) fn keep(&self, mut connection: Connection, limit: &Arc<ConnectionLimit>) {
        let mut state = self.state();
        if state.idle.len() >= self.rule.connections {
            return;
        }
        let Some(permit) = limit.try_keep_idle() else {
            return;
        };
        connection.buffer = BytesMut::new();
        connection.is_reused = true;
        state.idle.push(Idle {
            connection,
            until: Instant::now() + self.rule.idle,
            _permit: permit,
        });
        if !mem::replace(&mut state.is_swept, true) {
            tokio::spawn(sweep(Weak::clone(&self.me)));
        }
    }

    /// Closes the connections that are of no use any more. Returns whether any are left.
    fn close_useless(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        state.idle.retain_mut(|idle| idle.is_usable(now));
        state.is_swept = !state.idle.is_empty();
        state.is_swept
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock_unpoisoned()
    }
}

/// Closes connections that have waited for too long, or whose server has closed them, as long as
/// there are any.
async fn sweep(connections: Weak<IdleConnections>) {
    loop {
        sleep(SWEEP).await;
        let some = connections.upgrade().is_some_and(|of| of.close_useless());
        if !some {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const RULE: KeepAlive = KeepAlive {
        connections: 1000,
        idle: IDLE,
    };

    const IDLE: Duration = Duration::from_secs(60);

    fn none_yet() -> (Arc<IdleConnections>, Arc<ConnectionLimit>) {
        (IdleConnections::new(RULE), Arc::default())
    }

    /// Keeps a new connection. Returns its server.
    fn keep_new(connections: &IdleConnections, limit: &Arc<ConnectionLimit>) -> DuplexStream {
        let (gateway, server) = duplex(1024);
        connections.keep(Connection::new(Box::new(gateway)), limit);
        server
    }

    /// Ready once the gateway has closed the connection.
    async fn await_close(mut server: DuplexStream) {
        assert_eq!(server.read(&mut [0]).await.expect("an orderly end"), 0);
    }

    /// Whether this is the gateway's end of a connection to `server`.
    async fn is_to(connection: &mut Connection, server: &mut DuplexStream) -> bool {
        server.write_all(b"x").await.expect("open");
        let filled = std::future::poll_fn(|cx| Poll::Ready(connection.poll_fill(cx, 1)));
        matches!(filled.await, Poll::Ready(Ok(1)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_became_idle_last_is_used_first() {
        let (connections, limit) = none_yet();
        assert!(connections.take_connection().is_none());
        let mut first = keep_new(&connections, &limit);
        let mut second = keep_new(&connections, &limit);
        assert_eq!(limit.idle(), 2);
        for server in [&mut second, &mut first] {
            let mut connection = connections.take_connection().expect("idle");
            assert!(connection.is_reused());
            assert!(is_to(&mut connection, server).await);
        }
        assert!(connections.take_connection().is_none());
        assert_eq!(limit.idle(), 0, "a request has a permit of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_not_taken_for_a_kept_one() {
        let (gateway, _server) = duplex(1024);
        assert!(!Connection::new(Box::new(gateway)).is_reused());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_its_server_has_closed_is_passed_over() {
        let (connections, limit) = none_yet();
        let mut open = keep_new(&connections, &limit);
        drop(keep_new(&connections, &limit));
        let mut connection = connections.take_connection().expect("the open one");
        assert!(is_to(&mut connection, &mut open).await);
        assert_eq!(limit.idle(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_something_came_unasked_is_passed_over() {
        let (connections, limit) = none_yet();
        let mut server = keep_new(&connections, &limit);
        let late = b"HTTP/1.1 408 Request Timeout\r\n\r\n";
        server.write_all(late).await.expect("open");
        assert!(connections.take_connection().is_none());
        assert_eq!(limit.idle(), 0);
        await_close(server).await;
    }

    #[tokio::test(start_paused = true)]
    async fn none_of_many_connections_that_are_closed_is_used() {
        let (connections, limit) = none_yet();
        for _ in 0..500 {
            drop(keep_new(&connections, &limit));
        }
        assert!(connections.take_connection().is_none());
        assert_eq!(limit.idle(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_connections_are_kept_than_are_allowed() {
        let (connections, limit) = none_yet();
        limit.set_most_idle(1);
        let _kept = keep_new(&connections, &limit);
        await_close(keep_new(&connections, &limit)).await;
        assert!(connections.take_connection().is_some());
        let _next = keep_new(&connections, &limit);
        assert!(
            connections.take_connection().is_some(),
            "its permit was returned"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_limit_and_a_time_of_its_own() {
        let rule = KeepAlive {
            connections: 2,
            idle: Duration::from_secs(5),
        };
        let (connections, limit) = (IdleConnections::new(rule), Arc::default());
        let mut servers = Vec::new();
        for _ in 0..3 {
            let (gateway, server) = duplex(1024);
            connections.keep(Connection::new(Box::new(gateway)), &limit);
            servers.push(server);
        }
        assert_eq!(limit.idle(), 2);
        await_close(servers.pop().expect("the third")).await;
        let begun = Instant::now();
        for server in servers {
            await_close(server).await;
        }
        let waited = begun.elapsed();
        assert!(
            (rule.idle..=rule.idle + SWEEP).contains(&waited),
            "{waited:?}"
        );
        assert_eq!(limit.idle(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_after_a_minute() {
        let (connections, limit) = none_yet();
        let server = keep_new(&connections, &limit);
        let begun = Instant::now();
        await_close(server).await;
        let waited = begun.elapsed();
        assert!((IDLE..=IDLE + SWEEP).contains(&waited), "{waited:?}");
        assert_eq!(limit.idle(), 0);
        // And again, after the sweeper has ended.
        let server = keep_new(&connections, &limit);
        let begun = Instant::now();
        await_close(server).await;
        assert!(begun.elapsed() <= IDLE + SWEEP);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_used_begins_to_be_idle_again() {
        let (connections, limit) = none_yet();
        let server = keep_new(&connections, &limit);
        let begun = Instant::now();
        sleep(IDLE * 2 / 3).await;
        let connection = connections
            .take_connection()
            .expect("idle for less than that");
        connections.keep(connection, &limit);
        await_close(server).await;
        assert!(begun.elapsed() >= IDLE * 5 / 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_its_server_closes_is_soon_forgotten() {
        let (connections, limit) = none_yet();
        let _open = keep_new(&connections, &limit);
        let server = keep_new(&connections, &limit);
        sleep(SWEEP * 2).await;
        assert_eq!(limit.idle(), 2);
        drop(server);
        sleep(SWEEP * 2).await;
        assert_eq!(limit.idle(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_of_a_server_that_is_no_longer_configured_are_closed() {
        let (connections, limit) = none_yet();
        let server = keep_new(&connections, &limit);
        let begun = Instant::now();
        drop(connections);
        await_close(server).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(limit.idle(), 0);
    }

    #[tokio::test]
    async fn small_parts_share_a_block_of_memory() {
        const PARTS: usize = 64;
        let (near, mut far) = duplex(1024);
        let mut near = Connection::new(Box::new(near));
        let mut parts: Vec<Bytes> = Vec::new();
        for _ in 0..PARTS {
            far.write_all(b"x").await.expect("room");
            let count = std::future::poll_fn(|cx| near.poll_fill(cx, 8 * 1024)).await;
            assert_eq!(count.expect("an octet"), 1);
            parts.push(near.buffer.split_to(1).freeze());
        }
        let place = |part: &Bytes| part.as_ptr().addr();
        let neighbours = parts
            .windows(2)
            .filter(|pair| place(&pair[1]) == place(&pair[0]) + 1);
        assert_eq!(neighbours.count(), PARTS - 1);
    }

    #[tokio::test]
    async fn a_reset_that_a_write_has_met_is_no_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (socket, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let mut connection = Connection::new(Box::new(socket.expect("open")));
        let (server, _) = accepted.expect("open");
        let linger = socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO));
        linger.expect("set");
        drop(server);
        let part = IoSlice::new(b"a part of a request");
        let write = async {
            loop {
                let written = std::future::poll_fn(|cx| connection.poll_write(cx, &[part]));
                if written.await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(IDLE, write).await.expect("an error");
        let read = std::future::poll_fn(|cx| connection.poll_fill(cx, 100)).await;
        let error = read.expect_err("no end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
