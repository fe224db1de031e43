//! A connection that Pingora has for one request.
//!
//! Pingora drops every connection that it does not keep, even after a complete response, and over
//! TLS without the closing alert. So it gets a handle: the connection itself returns to the edge,
//! which ends it as the response requires.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::MessageStream;
use crate::lock::MutexExt as _;

/// The lender's side.
pub(super) struct Loan(Arc<Mutex<Lent>>);

/// The borrower's side, which is a connection in its own right.
pub(super) struct Handle(Arc<Mutex<Lent>>);

struct Lent {
    stream: MessageStream,
    /// Whether the borrower has closed it.
    closed: bool,
}

impl Lent {
    fn write(
        &mut self,
        write: impl FnOnce(Pin<&mut MessageStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = write(Pin::new(&mut self.stream));
        if let Poll::Ready(Ok(1..)) = written {
            self.stream.note_written();
        }
        written
    }
}

/// Lends a connection.
pub(super) fn lend_stream(stream: MessageStream) -> (Loan, Handle) {
    let lent = Arc::new(Mutex::new(Lent {
        stream,
        closed: false,
    }));
    (Loan(Arc::clone(&lent)), Handle(lent))
}

impl Loan {
    /// The connection, and whether the borrower closed it in order, which it does after a complete
    /// response. `None` while the handle lives.
    pub(super) fn take_back(self) -> Option<(MessageStream, bool)> {
        let lent = Arc::try_unwrap(self.0).ok()?;
        let lent = lent.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some((lent.stream, lent.closed))
    }
}

impl Handle {
    /// Only the borrower locks it while it is lent.
    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.0.lock_unpoisoned()
    }
}

impl AsyncRead for Handle {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lent().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Handle {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lent().write(|stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lent()
            .write(|stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.lent().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lent().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lent().closed = true;
        self.poll_flush(cx)
    }
}

#[async_trait]
impl Shutdown for Handle {
    async fn shutdown(&mut self) {
        self.lent().closed = true;
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handle").field(&self.lent().stream).finish()
    }
}

impl UniqueID for Handle {
    fn id(&self) -> UniqueIDType {
        self.lent().stream.id()
    }
}

impl Ssl for Handle {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.lent().stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.lent().stream.selected_alpn_proto()
    }
}

impl Peek for Handle {}

impl GetTimingDigest for Handle {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.lent().stream.get_timing_digest()
    }
}

impl GetProxyDigest for Handle {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.lent().stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Handle {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.lent().stream.get_socket_digest()
    }
}
