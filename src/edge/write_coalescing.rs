//! Coalesces writes, so that a response takes one TLS record and one system call instead of one for
//! each of its parts.
//!
//! Data waits until a whole record is buffered, until it is flushed, or until the connection is
//! read from: a task that waits for the client has nothing to add. HTTP/2 flushes after each frame,
//! though more frames of the same or another stream are often ready. There a flush waits until the
//! tasks that are ready now have run, for which the connection's task is woken once more, or until
//! the requests that have arrived are served ([`Batch`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest content of a TLS record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// The least that is reserved for buffered data: most responses fit.
const SMALL: usize = 2 * 1024;

/// When buffered writes are sent at a flush.
#[derive(Clone, Debug)]
pub(super) enum Flush {
    /// Immediately.
    Now,
    /// Once the tasks that are ready have run.
    Soon(Batch),
}

/// Whether the requests that have arrived are being served. Meanwhile nothing is read: a read
/// follows in any case, and sends what is buffered.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch(Arc<AtomicBool>);

impl Batch {
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Ends it; returns whether it had begun.
    pub(super) fn end(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that coalesces writes.
pub(super) struct CoalescingStream {
    inner: Stream,
    flush: Flush,
    waiting: BytesMut,
    /// Octets of it that are sent.
    sent: usize,
    /// Whether the task has been woken to send what is buffered.
    woken: bool,
}

impl CoalescingStream {
    pub(super) fn new(inner: Stream, flush: Flush) -> Box<Self> {
        Box::new(Self {
            inner,
            flush,
            waiting: BytesMut::new(),
            sent: 0,
            woken: false,
        })
    }

    /// Buffers as much of `part` as fits into the current record.
    fn buffer_part(&mut self, part: &[u8]) -> usize {
        let count = part.len().min(RECORD.saturating_sub(self.waiting.len()));
        if self.waiting.capacity() == 0 {
            self.waiting.reserve(count.max(SMALL));
        }
        self.waiting
            .extend_from_slice(part.get(..count).unwrap_or_default());
        count
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= RECORD
    }

    /// Sends what is buffered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.waiting.get(self.sent..) {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.waiting.clear();
        self.sent = 0;
        self.woken = false;
        Poll::Ready(Ok(()))
    }

    /// Sends what is buffered, and releases the buffer.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.waiting = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for CoalescingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Flush::Soon(batch) = &self.flush
            && batch.is_on()
        {
            // The end of the batch is followed by a read.
            return Poll::Pending;
        }
        if !self.waiting.is_empty()
            && let Poll::Ready(sent) = self.poll_send(cx)
        {
            sent?;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for CoalescingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_full() {
            // More follows, for which the buffer is kept.
            ready!(self.poll_drain(cx))?;
        }
        if self.waiting.is_empty() && buf.len() >= RECORD {
            // Whole records are not copied.
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        Poll::Ready(Ok(self.buffer_part(buf)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_full() {
            // More follows, for which the buffer is kept.
            ready!(self.poll_drain(cx))?;
        }
        if self.waiting.capacity() == 0 {
            let octets: usize = bufs.iter().map(|part| part.len()).sum();
            self.waiting.reserve(octets.clamp(SMALL, RECORD));
        }
        let mut taken = 0;
        for part in bufs {
            let count = self.buffer_part(part);
            taken += count;
            if count < part.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Flush::Soon(batch) = &self.flush
            && !self.waiting.is_empty()
            && !self.is_full()
        {
            if !self.woken && !batch.is_on() {
                self.woken = true;
                cx.waker().wake_by_ref();
            }
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for CoalescingStream {
    async fn shutdown(&mut self) {
        // A client that reads no more does not delay the end.
        _ = std::future::poll_fn(|cx| self.poll_send(cx)).await;
        self.inner.shutdown().await;
    }
}

impl std::fmt::Debug for CoalescingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gathered")
            .field("inner", &self.inner)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl UniqueID for CoalescingStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for CoalescingStream {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl Peek for CoalescingStream {}

impl GetTimingDigest for CoalescingStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for CoalescingStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for CoalescingStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair(flush: Flush) -> (Box<CoalescingStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        (CoalescingStream::new(Box::new(near), flush), far)
    }

    /// What has come to the other end by now.
    fn arrived(far: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut space = vec![0; 1 << 20];
        let mut read = ReadBuf::new(&mut space);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        _ = Pin::new(far).poll_read(&mut cx, &mut read);
        read.filled().to_vec()
    }

    #[tokio::test]
    async fn parts_wait_for_the_flush() {
        let (mut near, mut far) = pair(Flush::Now);
        near.write_all(b"head").await.expect("taken");
        near.write_all(b"body").await.expect("taken");
        assert_eq!(arrived(&mut far), b"");
        near.flush().await.expect("sent");
        assert_eq!(arrived(&mut far), b"headbody");
        assert_eq!(near.waiting.capacity(), 0, "an idle one holds no memory");
    }

    #[tokio::test]
    async fn a_record_waits_for_nothing() {
        let (mut near, mut far) = pair(Flush::Now);
        near.write_all(b"head").await.expect("taken");
        near.write_all(&[b'x'; 2 * RECORD]).await.expect("taken");
        let come = arrived(&mut far).len();
        assert!(come >= RECORD, "{come}");
        near.flush().await.expect("sent");
        assert_eq!(come + arrived(&mut far).len(), 4 + 2 * RECORD);
    }

    #[tokio::test]
    async fn who_reads_has_nothing_to_add() {
        let (mut near, mut far) = pair(Flush::Now);
        near.write_all(b"head").await.expect("taken");
        far.write_all(b"more").await.expect("taken");
        near.read_exact(&mut [0; 4]).await.expect("read");
        assert_eq!(arrived(&mut far), b"head");
    }

    #[tokio::test]
    async fn a_flush_that_waits_wakes_the_task() {
        let (mut near, mut far) = pair(Flush::Soon(Batch::default()));
        let reading = tokio::spawn(async move {
            near.write_all(b"one").await.expect("taken");
            near.flush().await.expect("noted");
            near.write_all(b"two").await.expect("taken");
            near.flush().await.expect("noted");
            near.read(&mut [0; 4]).await.expect("read")
        });
        let mut got = [0; 6];
        far.read_exact(&mut got).await.expect("it comes");
        assert_eq!(&got, b"onetwo");
        drop(far);
        assert_eq!(reading.await.expect("no panic"), 0);
    }

    #[tokio::test]
    async fn what_is_gathered_in_a_turn_is_sent_after_it() {
        let batch = Batch::default();
        let (mut near, mut far) = pair(Flush::Soon(batch.clone()));
        batch.begin();
        near.write_all(b"one").await.expect("taken");
        near.flush().await.expect("noted");
        assert!(!near.woken);
        far.write_all(b"more").await.expect("taken");
        let mut got = [0; 4];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut read = ReadBuf::new(&mut got);
        assert!(
            Pin::new(&mut *near)
                .poll_read(&mut cx, &mut read)
                .is_pending()
        );
        assert_eq!(arrived(&mut far), b"");
        assert!(batch.end() && !batch.end());
        near.read_exact(&mut got).await.expect("read");
        assert_eq!(arrived(&mut far), b"one");
    }

    #[tokio::test]
    async fn the_end_sends_what_waits() {
        let (mut near, mut far) = pair(Flush::Soon(Batch::default()));
        near.write_all(b"last").await.expect("taken");
        Shutdown::shutdown(&mut *near).await;
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("the end");
        assert_eq!(got, b"last");
    }
}
