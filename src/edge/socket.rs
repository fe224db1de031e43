//! A client's TCP connection as Pingora sees it, with a deadline for blocked writes.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::limits::ConnectionGuard;
use super::timer::Timer;

/// The header of a record of TLS (RFC 8446, section 5.1).
const RECORD_HEADER: usize = 5;

/// How much is read where only a header is asked for.
const AHEAD: usize = 2 * 1024;

/// A client's connection.
///
/// Unlike Pingora's own stream it holds no buffer for long: what reads from it, TLS or the HTTP/1
/// head reader, has one already. During the handshake OpenSSL asks for each record's header and
/// then for its content, whatever its settings for reading ahead; there what is at hand is read at
/// once.
pub(super) struct Socket {
    stream: TcpStream,
    /// What has been read and not been asked for yet.
    ahead: BytesMut,
    peer: SocketAddr,
    digest: Arc<SocketDigest>,
    accepted: TimingDigest,
    /// How long a write may make no progress.
    write_stall: Duration,
    blocked: Timer,
    _guard: ConnectionGuard,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        write_stall: Duration,
        guard: ConnectionGuard,
    ) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // Known already, so that nobody asks the kernel again.
        let _ = digest.peer_addr.set(Some(peer.into()));
        Self {
            stream,
            ahead: BytesMut::new(),
            peer,
            digest: Arc::new(digest),
            accepted: TimingDigest::default(),
            write_stall,
            blocked: Timer::default(),
            _guard: guard,
        }
    }

    /// The client's address.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Passes a write's result on, and fails it once writes have been blocked for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked.clear();
            return written;
        }
        if self.blocked.poll_after(cx, self.write_stall).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client takes no data",
            )));
        }
        Poll::Pending
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if buf.remaining() > RECORD_HEADER {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            let mut space = [MaybeUninit::uninit(); AHEAD];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            self.ahead.extend_from_slice(read.filled());
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..count).unwrap_or_default());
        self.ahead.advance(count);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("fd", &self.stream.as_raw_fd())
            .field("peer", &self.digest.peer_addr)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        // The client may be gone already, and nothing depends on it.
        let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        self.stream.as_raw_fd()
    }
}

impl Ssl for Socket {}

impl Peek for Socket {}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(self.accepted.clone())]
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::edge::limits::Connections;

    #[tokio::test]
    async fn what_is_read_ahead_is_handed_on_in_order_and_not_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let (stream, peer) = listener.accept().await.expect("a connection");
        let gauge = IntGauge::new("open", "open").expect("a valid name");
        let guard = Arc::new(Connections::default()).admit(peer.ip(), gauge);
        let guard = guard.expect("room");
        let mut socket = Socket::new(stream, peer, Duration::from_secs(5), guard);

        client.write_all(b"head.content.more").await.expect("sent");
        let mut header = [0; RECORD_HEADER];
        socket.read_exact(&mut header).await.expect("a header");
        assert_eq!(&header, b"head.");
        let mut content = [0; 8];
        socket.read_exact(&mut content).await.expect("the content");
        assert_eq!(&content, b"content.");
        let mut large = [0; 64];
        let count = socket.read(&mut large).await.expect("the rest");
        assert_eq!(&large[..count], b"more");
        assert_eq!(socket.ahead.capacity(), 0);

        drop(client);
        assert_eq!(socket.read(&mut header).await.expect("the end"), 0);
    }
}
