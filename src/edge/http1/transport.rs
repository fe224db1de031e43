//! What a client's connection can do that its stream does not offer.

use std::io;
use std::os::fd::BorrowedFd;
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
