//! Opens connections to servers: over TCP or a Unix socket, with TLS if the server speaks it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use pingora_core::protocols::l4::ext;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, Result};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::server_tls::ServerTls;
use super::system_roots::SystemRoots;
use super::tls_stream::TlsStream;

/// Opens connections. Clones share the system's roots.
#[derive(Clone, Default)]
pub(super) struct Dialer {
    roots: SystemRoots,
}

impl Dialer {
    /// Opens a connection to `address` within `patience`, with TLS as `tls` describes it, if given.
    /// `header` is sent first, before any TLS.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or trusted.
    pub(super) async fn open_connection(
        &self,
        address: &SocketAddr,
        header: Option<&[u8]>,
        tls: Option<&ServerTls>,
        patience: Duration,
    ) -> Result<Box<dyn Duplex>> {
        let opening = async {
            let mut socket = open_plain(address).await?;
            if let Some(header) = header {
                send_header(&mut *socket, header).await?;
            }
            let Some(tls) = tls else {
                return Ok(socket);
            };
            // The request follows the end of the handshake, and must not wait for its
            // acknowledgement. If that fails, it comes later.
            _ = socket.set_nodelay();
            let stream = tls.handshake(socket, &self.roots).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        };
        timeout(patience, opening).await.unwrap_or_else(|_| {
            let why = format!("no connection within {patience:?}");
            Error::e_explain(ErrorType::ConnectTimedout, why)
        })
    }
}

async fn send_header(socket: &mut dyn Duplex, header: &[u8]) -> Result<()> {
    let sent = socket.write_all(header).await;
    let why = "while the header of the PROXY protocol is sent";
    sent.map_err(|error| Error::because(ErrorType::ConnectError, why, error))
}

async fn open_plain(address: &SocketAddr) -> Result<Box<dyn Duplex>> {
    match address {
        SocketAddr::Inet(address) => Ok(Box::new(ext::connect(address, None).await?)),
        SocketAddr::Unix(address) => {
            let path = address
                .as_pathname()
                .ok_or_else(|| Error::explain(ErrorType::ConnectError, "the socket has no path"))?;
            Ok(Box::new(ext::connect_uds(path).await?))
        }
    }
}

/// A stream to a server.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug {
    /// Sends small writes immediately instead of collecting them.
    fn set_nodelay(&self) -> io::Result<()>;

    /// Makes the connection end with a reset instead of an orderly close, if its protocol has both.
    fn reset_on_close(&self);

    /// How many octets the server has not acknowledged; 0 if that is not known.
    fn unacknowledged(&self) -> usize;

    /// Whether the server has chosen HTTP/2 in its TLS handshake.
    fn has_chosen_http2(&self) -> bool {
        false
    }
}

impl Duplex for TcpStream {
    fn set_nodelay(&self) -> io::Result<()> {
        Self::set_nodelay(self, true)
    }

    fn reset_on_close(&self) {
        reset_on_close(SockRef::from(self));
    }

    fn unacknowledged(&self) -> usize {
        queued(self.as_raw_fd())
    }
}

impl Duplex for UnixStream {
    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    fn reset_on_close(&self) {}

    fn unacknowledged(&self) -> usize {
        queued(self.as_raw_fd())
    }
}

impl Duplex for TlsStream<Box<dyn Duplex>> {
    fn set_nodelay(&self) -> io::Result<()> {
        self.socket().set_nodelay()
    }

    fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    fn unacknowledged(&self) -> usize {
        self.socket().unacknowledged()
    }

    fn has_chosen_http2(&self) -> bool {
        self.alpn() == Some(b"h2")
    }
}

/// A stream in memory.
#[cfg(test)]
impl Duplex for tokio::io::DuplexStream {
    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    fn reset_on_close(&self) {}

    fn unacknowledged(&self) -> usize {
        0
    }
}

/// How many octets of a socket's send queue the peer has not acknowledged; 0 if that is not known.
pub(crate) fn queued(socket: RawFd) -> usize {
    let mut octets: libc::c_int = 0;
    // SAFETY: the request writes one integer, to where the pointer leads. A descriptor that is no
    // socket makes it fail.
    let result = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut octets) };
    if result != 0 {
        return 0;
    }
    usize::try_from(octets).unwrap_or(0)
}

fn reset_on_close(socket: SockRef<'_>) {
    // If it fails, as on a Unix socket, the close is orderly.
    _ = socket.set_linger(Some(Duration::ZERO));
}

/// Whether the server has neither sent anything nor closed.
pub(super) fn is_quiet(socket: &mut dyn Duplex) -> bool {
    let mut octet = [0];
    let read = poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut ReadBuf::new(&mut octet)));
    // Once a task has used up its budget, every read of Tokio's is pending.
    let mut read = pin!(unconstrained(read));
    let mut cx = Context::from_waker(Waker::noop());
    read.as_mut().poll(&mut cx).is_pending()
}
