//! A connection to a server with TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_openssl::SslStream;

use super::tls_failure;

/// How much is read from a connection at once: a record of TLS, which OpenSSL reads in two parts.
const READ_BUFFER: usize = 16 * 1024 + 512;

/// A connection to a server after the handshake.
#[derive(Debug)]
pub(super) struct TlsStream<S>(SslStream<Underlay<S>>);

impl<S> TlsStream<S> {
    pub(super) fn new(stream: SslStream<Underlay<S>>) -> Self {
        Self(stream)
    }
}

impl<S: AsyncRead> TlsStream<S> {
    /// The connection beneath TLS.
    pub(super) fn socket(&self) -> &S {
        self.0.get_ref().socket.get_ref()
    }

    /// The protocol that the server has chosen.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.0.ssl().selected_alpn_protocol()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        // Over TLS 1.3 a server may refuse the client certificate after the handshake.
        read.map_err(tls_failure::explain_read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.get_ref().is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The connection beneath TLS.
///
/// A server that refuses the client certificate says so and closes, perhaps before the request is
/// written. OpenSSL reads nothing after a write that failed. So the first such write seems to
/// succeed, and what the server said is read.
#[derive(Debug)]
pub(super) struct Underlay<S> {
    socket: BufReader<S>,
    /// Whether the server accepts nothing more.
    is_closed: bool,
}

impl<S: AsyncRead> Underlay<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket: BufReader::with_capacity(READ_BUFFER, socket),
            is_closed: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Underlay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Underlay<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf));
        let is_closed = written.as_ref().is_err_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        });
        if is_closed {
            self.is_closed = true;
            return Poll::Ready(Ok(buf.len()));
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
