//! What a client's connection can do that its stream does not offer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora_core::protocols::Stream;
use socket2::SockRef;
use tokio::io::{AsyncRead as _, ReadBuf};

/// Makes the connection end with a reset.
pub(super) fn reset_on_close(stream: &Stream) {
    // SAFETY: the socket is open for as long as its stream lives, hence during this call.
    let socket = unsafe { BorrowedFd::borrow_raw(stream.id()) };
    // If this fails, the client sees an ordinary end, as without it.
    _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// The states of a TCP connection of which the other end has closed its side or all of it
/// (`include/net/tcp_states.h`).
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

/// Whether the client has closed its side of the connection or reset it, whatever is left to be read
/// of it.
pub(super) fn has_hung_up(stream: &Stream) -> bool {
    match tcp_state(stream.id()) {
        Some(state) => matches!(state, TCP_CLOSE | TCP_CLOSE_WAIT),
        // It is a Unix socket, of which `poll` says as much.
        None => is_signalled(stream.id(), libc::POLLRDHUP),
    }
}

/// Whether the client has reset the connection of `socket`, whatever is left to be read of it. One of
/// a Unix socket has if it has closed both sides.
pub(in crate::edge) fn is_reset(socket: RawFd) -> bool {
    match tcp_state(socket) {
        Some(state) => state == TCP_CLOSE,
        None => is_signalled(socket, 0),
    }
}

/// The state of a TCP connection; `None` for other sockets.
fn tcp_state(socket: RawFd) -> Option<u8> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the call writes at most `length` octets to `info`. A descriptor that is no TCP socket
    // makes it fail.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // SAFETY: it consists of integers, for which all zeros are valid.
    let state = unsafe { info.assume_init() }.tcpi_state;
    (result == 0).then_some(state)
}

/// Whether a socket signals one of `events`, a hang-up or an error.
fn is_signalled(socket: RawFd, events: libc::c_short) -> bool {
    let mut asked = libc::pollfd {
        fd: socket,
        events,
        revents: 0,
    };
    // SAFETY: there is one entry, and the call does not wait.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready > 0 && asked.revents & (events | libc::POLLHUP | libc::POLLERR) != 0
}

/// Reads at most `limit` bytes into `buf`.
pub(super) fn poll_read_limited(
    stream: Pin<&mut Stream>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<()>> {
    let mut limited = buf.take(limit);
    let begin = limited.filled().as_ptr();
    ready!(stream.poll_read(cx, &mut limited))?;
    let new = limited.filled().len();
    if limited.filled().as_ptr() != begin {
        // Safe code could swap the buffer, and the bytes would be elsewhere.
        return Poll::Ready(Err(io::Error::other(
            "the reader put another buffer in place",
        )));
    }
    // SAFETY: `limited` is still a view of the beginning of `buf`'s unfilled part, and its first
    // `new` bytes have been written.
    unsafe { buf.assume_init(new) };
    buf.advance(new);
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use pingora_core::protocols::l4::stream::Stream as Socket;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn a_client_of_a_unix_socket_has_hung_up_too() {
        let (mut client, socket) = tokio::net::UnixStream::pair().expect("a pair");
        let stream: Stream = Box::new(Socket::from(socket));
        client.write_all(b"hello").await.expect("open");
        assert!(!has_hung_up(&stream));
        drop(client);
        assert!(has_hung_up(&stream));
    }

    #[tokio::test]
    async fn a_client_has_hung_up_whatever_is_left_to_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        for is_reset in [false, true] {
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (mut client, (socket, _)) = (client.expect("open"), accepted.expect("open"));
            let stream: Stream = Box::new(Socket::from(socket));
            client.write_all(b"hello").await.expect("open");
            assert!(!has_hung_up(&stream));
            if is_reset {
                let linger = SockRef::from(&client).set_linger(Some(Duration::ZERO));
                linger.expect("set");
            }
            drop(client);
            let seen = async {
                while !has_hung_up(&stream) {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(5), seen).await.expect("seen");
        }
    }
}
