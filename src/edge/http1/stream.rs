//! A connection that shows Pingora one request at a time.
//!
//! Pingora reads a head and a body from it and nothing beyond: a pipelined request waits here until
//! the one before it has been served. The deadlines for slow bodies are kept here too.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::edge::pace::Pace;
use crate::proxy::Framing;

use super::head::Head;
use super::transport::{has_hung_up, poll_read_limited, reset_on_close};

/// How many bytes are read at once if the length of the data is unknown.
const READ: usize = 4 * 1024;

/// How many bytes of a body are read at once: what a TLS record holds.
const READ_BODY: usize = 16 * 1024;

/// How much is read ahead of the current message at most.
const MAX_AHEAD: usize = 64 * 1024;

/// How long nothing may be sent to a client that has closed its side. It may have closed that side
/// only and wait for its response, or be gone, which looks the same (RFC 9112, section 9.6).
const HALF_CLOSED: Duration = Duration::from_secs(3);

/// How long sending the last data may take at the end of a connection.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// How long a client that still sends is read from after the last response, so that it reads the
/// response before the connection is reset (RFC 9112, section 9.6): in total, and without an octet.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_IDLE: Duration = Duration::from_secs(5);

/// An HTTP/1 connection, positioned on one message.
pub(super) struct MessageStream {
    inner: Stream,
    /// What has been read from the client and not passed on.
    buffer: BytesMut,
    /// How much of the buffer belongs to the head of the current message.
    head: usize,
    framing: Framing,
    /// Whether the client speaks HTTP/1.0, where the end of the connection may be the end of the
    /// response.
    http_10: bool,
    /// Whether the client has closed its side.
    ended: bool,
    pace: Pace,
    /// Lines of the current message's trailers.
    trailers: Vec<u8>,
}

impl MessageStream {
    /// A connection whose client may send nothing of a body for `idle`.
    pub(super) fn new(inner: Stream, idle: Duration) -> Self {
        Self {
            inner,
            buffer: BytesMut::new(),
            head: 0,
            framing: Framing::DONE,
            http_10: false,
            ended: false,
            pace: Pace::new(idle),
            trailers: Vec::new(),
        }
    }

    /// What has been read and belongs to no message yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Drops the first `count` bytes that have been read.
    pub(super) fn skip_bytes(&mut self, count: usize) {
        self.buffer.advance(count.min(self.buffer.len()));
    }

    /// Removes and returns the first `count` bytes that have been read.
    pub(super) fn take_bytes(&mut self, count: usize) -> BytesMut {
        self.buffer.split_to(count.min(self.buffer.len()))
    }

    /// Takes back the bytes that were removed last.
    pub(super) fn return_bytes(&mut self, mut bytes: BytesMut) {
        bytes.unsplit(std::mem::take(&mut self.buffer));
        self.buffer = bytes;
    }

    /// Sends a complete response to a message that was removed from the buffer.
    pub(super) async fn send_response(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.inner.write_all(head).await?;
        self.inner.write_all(body).await?;
        self.inner.flush().await
    }

    /// Reads more from the client. `Ok(0)` if the client sends no more.
    ///
    /// While nothing arrives it reserves no memory for data.
    pub(super) async fn read_more(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.pace.release();
        }
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Has `rewrite` replace the head at the beginning of what has been read.
    pub(super) fn rewrite_head(&mut self, rewrite: impl FnOnce(&mut BytesMut)) {
        rewrite(&mut self.buffer);
    }

    /// Positions the stream on the message whose head has been read.
    pub(super) fn begin_message(&mut self, head: &Head) {
        self.head = head.len;
        self.begin_framing(head);
    }

    /// Positions the stream on the body of the message whose head has been taken.
    pub(super) fn begin_body(&mut self, head: &Head) {
        self.head = 0;
        self.begin_framing(head);
        if head.expects {
            self.pace.hold();
        }
    }

    /// Has the client send its body, for which it has waited.
    pub(super) fn note_continued(&mut self) {
        self.pace.resume();
    }

    fn begin_framing(&mut self, head: &Head) {
        self.framing = head.body.framing();
        self.http_10 = head.http_10;
        self.trailers = Vec::new();
        self.pace.begin();
    }

    /// Takes the lines of trailers that followed the body.
    pub(super) fn take_trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailers)
    }

    /// Whether the current message has been read to its end, so that another can follow.
    pub(super) fn is_done(&self) -> bool {
        self.head == 0 && self.framing.is_done()
    }

    /// The next data of the body; `None` after its end. In a tunnel, `None` once the client has
    /// ended its side.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        while !self.framing.is_done() {
            if !self.buffer.is_empty() {
                let data = self
                    .framing
                    .take_data(&mut self.buffer, &mut self.trailers)?;
                if !data.is_empty() {
                    return Poll::Ready(Ok(Some(data)));
                }
                continue;
            }
            let most = match self.framing {
                // What follows belongs to the next message.
                Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
                Framing::Chunked(_) | Framing::Tunnel => usize::MAX,
            };
            let is_tunnel = matches!(self.framing, Framing::Tunnel);
            match self.poll_fill_body(cx, most.min(READ_BODY)) {
                Poll::Ready(Ok(1..)) => {}
                // An error would overtake the data that was sent through the tunnel before it.
                Poll::Ready(_) if is_tunnel => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if is_tunnel => return Poll::Pending,
                Poll::Pending => {
                    return self.pace.poll_too_slow(cx).map(|slow| slow.map(|()| None));
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Ready with the reason once the client is gone, as far as that can be seen before it has sent
    /// the rest of its body, or if it sends something where nothing may be sent.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self.framing {
            Framing::Tunnel if !self.buffer.is_empty() => Poll::Ready(Gone::Early),
            Framing::Tunnel if !self.ended => match ready!(self.poll_fill(cx)) {
                Ok(1..) => Poll::Ready(Gone::Early),
                Ok(0) | Err(_) => self.poll_end(cx).map(|_| Gone::Closed),
            },
            framing if framing.is_done() || self.ended => self.poll_end(cx).map(|_| Gone::Closed),
            _ => self.poll_hung_up(cx),
        }
    }

    /// Ready once the client is gone, as far as that can be seen while nothing is read from it.
    pub(super) fn poll_hung_up(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let inner = &self.inner;
        let gone = self.pace.poll_hung_up(cx, || has_hung_up(inner));
        gone.map(|()| Gone::Closed)
    }

    /// Closes the connection in order: over TLS with a close_notify, so that the client does not
    /// consider it cut, and patiently if the client is still sending, since a reset would discard
    /// its response. It ends early once `stop` is ready.
    pub(super) async fn close(&mut self, stop: impl Future<Output = ()>) {
        _ = tokio::time::timeout(FAREWELL, self.inner.shutdown()).await;
        if self.ended || (self.is_done() && self.buffer.is_empty()) {
            return;
        }
        self.buffer = BytesMut::new();
        let linger = async {
            while let Ok(Ok(1..)) = tokio::time::timeout(LINGER_IDLE, self.discard_bytes()).await {}
        };
        tokio::select! {
            _ = tokio::time::timeout(LINGER, linger) => {}
            () = stop => {}
        }
    }

    /// Ends the connection in the middle of a response, so that nobody takes it for complete: over
    /// TLS without a close_notify, and with a reset if the end of the connection would be the end
    /// of the response.
    pub(super) async fn cut_connection(&mut self) {
        _ = tokio::time::timeout(FAREWELL, self.inner.flush()).await;
        if self.http_10 {
            reset_on_close(&self.inner);
        }
    }

    /// Writes a complete response to what cannot be parsed as a message. Afterwards the connection
    /// must be closed. Returns whether the client has accepted it.
    pub(super) async fn send_refusal(&mut self, head: &[u8], body: &[u8]) -> bool {
        // The unread data may be in the middle of a body.
        self.framing = Framing::Tunnel;
        self.head = 0;
        let sent = tokio::time::timeout(FAREWELL, self.send_response(head, body)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Records that data is on its way to the client.
    pub(super) fn note_written(&mut self) {
        if self.ended && self.is_done() {
            self.pace.timer.clear();
        }
    }

    /// Reads what the client sends and discards it. `Ok(0)` if it sends no more.
    async fn discard_bytes(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        self.ended |= read.filled().is_empty();
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Reads at most `most` bytes of the body.
    fn poll_fill_body(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.buffer.reserve(most);
        let mut space = (&mut self.buffer).limit(most);
        let count = ready!(poll_read_buf(Pin::new(&mut self.inner), cx, &mut space))?;
        self.ended |= count == 0;
        self.pace.advance(count);
        Poll::Ready(Ok(count))
    }

    /// Passes on the part of the buffer that belongs to the message.
    fn copy_unread(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let fits = self.buffer.len().min(buf.remaining());
        let fits = self.buffer.get(..fits).unwrap_or_default();
        let ours = self.framing.consume(fits)?;
        buf.put_slice(fits.get(..ours).unwrap_or_default());
        self.buffer.advance(ours);
        Ok(())
    }

    /// After the end of the message, only the end of the connection matters.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ended {
            if self.buffer.len() >= MAX_AHEAD {
                return Poll::Pending;
            }
            ready!(self.poll_fill(cx))?;
        }
        self.pace.end_looks();
        self.pace.timer.poll_after(cx, HALF_CLOSED).map(Ok)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            return Poll::Ready(self.copy_unread(buf));
        }
        let before = buf.filled().len();
        let read = match self.framing {
            // No copy: this read cannot reach beyond the message.
            Framing::Length(left) => {
                let limit = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(buf.remaining());
                poll_read_limited(Pin::new(&mut self.inner), cx, buf, limit)
            }
            // A tunnel that ends with an error ends after the data sent through it: the error would
            // overtake that data.
            Framing::Tunnel => match Pin::new(&mut self.inner).poll_read(cx, buf) {
                Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
                read => read,
            },
            Framing::Chunked(_) => match self.poll_fill(cx) {
                Poll::Ready(Ok(_)) => {
                    self.pace.advance(self.buffer.len());
                    return Poll::Ready(self.copy_unread(buf));
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            },
        };
        if read.is_pending() {
            return match self.framing {
                Framing::Tunnel => Poll::Pending,
                Framing::Chunked(_) | Framing::Length(_) => self.pace.poll_too_slow(cx),
            };
        }
        let new = buf.filled().len() - before;
        self.pace.advance(new);
        if let Framing::Length(left) = &mut self.framing {
            *left -= new as u64;
        }
        read
    }
}

/// Why a client is waited for no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It has closed the connection.
    Closed,
    /// It has sent something before its upgrade was granted.
    Early,
}

impl AsyncRead for MessageStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.head > 0 {
            let count = this.head.min(buf.remaining()).min(this.buffer.len());
            buf.put_slice(this.buffer.get(..count).unwrap_or_default());
            this.buffer.advance(count);
            this.head -= count;
            return Poll::Ready(Ok(()));
        }
        if this.framing.is_done() {
            return this.poll_end(cx);
        }
        this.poll_body(cx, buf)
    }
}

impl std::fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageStream")
            .field("inner", &self.inner)
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

crate::edge::delegate_io!(MessageStream);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::super::head::{Body, HeadRanges};
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// A stream that has read `bytes`, and the client's end of it.
    async fn stream(bytes: &[u8]) -> (MessageStream, tokio::io::DuplexStream) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.expect("room");
        let mut stream = MessageStream::new(Box::new(server), Duration::from_secs(60));
        stream.read_more().await.expect("bytes");
        (stream, client)
    }

    fn begin(stream: &mut MessageStream, body: Body) {
        stream.begin_message(&Head {
            len: GET.len(),
            body,
            keeps_connection: true,
            expects: false,
            ranges: HeadRanges::default(),
            http_10: false,
            absolute: None,
        });
    }

    #[tokio::test]
    async fn a_pipelined_request_waits_its_turn() {
        let (mut stream, client) = stream(&[GET, GET].concat()).await;
        begin(&mut stream, Body::Length(0));
        let mut got = vec![0; 1024];
        assert_eq!(stream.read(&mut got).await.expect("the head"), GET.len());
        assert!(stream.is_done());
        let more = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut got)).await;
        assert!(more.is_err(), "the second request must not be seen");
        assert_eq!(stream.unread(), GET);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_is_noticed_after_the_message() {
        let (mut stream, client) = stream(GET).await;
        begin(&mut stream, Body::Length(0));
        let mut got = vec![0; 1024];
        assert_eq!(stream.read(&mut got).await.expect("the head"), GET.len());
        drop(client);
        let gone = Instant::now();
        assert_eq!(stream.read(&mut got).await.expect("the end"), 0);
        assert_eq!(gone.elapsed(), HALF_CLOSED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_ended_its_side_is_waited_for_while_it_is_sent_something() {
        let (mut stream, client) = stream(&[GET, GET].concat()).await;
        begin(&mut stream, Body::Length(0));
        let mut got = vec![0; 1024];
        assert_eq!(stream.read(&mut got).await.expect("the head"), GET.len());
        drop(client);
        let gone = Instant::now();
        let part = HALF_CLOSED * 2 / 3;
        for _ in 0..3 {
            let read = tokio::time::timeout(part, stream.read(&mut got));
            assert!(read.await.is_err(), "it may still read");
            stream.note_written();
        }
        assert_eq!(stream.read(&mut got).await.expect("the end"), 0);
        assert_eq!(gone.elapsed(), part * 3 + HALF_CLOSED);
        assert_eq!(stream.unread(), GET);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lingers_by_time_while_its_client_sends() {
        let (mut stream, mut client) = stream(GET).await;
        begin(&mut stream, Body::Length(1 << 40));
        let sending = tokio::spawn(async move {
            // A steady client, faster than any limit on octets would require.
            let part = [0; 64 * 1024];
            while client.write_all(&part).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = Instant::now();
        stream.close(std::future::pending()).await;
        assert_eq!(begun.elapsed(), LINGER);
        assert!(stream.unread().is_empty(), "nothing is kept");
        sending.abort();

        let (mut stream, _silent) = self::stream(GET).await;
        begin(&mut stream, Body::Length(10));
        let begun = Instant::now();
        stream.close(std::future::pending()).await;
        assert_eq!(begun.elapsed(), LINGER_IDLE);

        let (mut stream, _client) = self::stream(GET).await;
        begin(&mut stream, Body::Length(0));
        let read = stream.read(&mut [0; 1024]).await.expect("the head");
        assert_eq!(read, GET.len());
        let begun = Instant::now();
        stream.close(std::future::pending()).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "all has been read");
    }

    #[tokio::test]
    async fn bodies_are_handed_on_to_their_end() {
        for (body, bytes) in [
            (Body::Length(5), &b"hello"[..]),
            (Body::Chunked, b"5\r\nhello\r\n0\r\n\r\n"),
        ] {
            let (mut stream, mut client) = stream(&[GET, &bytes[..3]].concat()).await;
            client.write_all(&bytes[3..]).await.expect("room");
            client.write_all(GET).await.expect("room");
            begin(&mut stream, body);
            let mut got = Vec::new();
            while !stream.is_done() {
                stream.read_buf(&mut got).await.expect("the message");
            }
            assert_eq!(got, [GET, bytes].concat());
            while stream.unread().len() < GET.len() {
                stream.read_more().await.expect("the next head");
            }
            assert_eq!(stream.unread(), GET);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_crawls_is_cut_and_a_slow_reader_of_it_is_not() {
        let (mut stream, mut client) = stream(GET).await;
        begin(&mut stream, Body::Length(1 << 30));
        let mut got = vec![0; 1024];
        assert_eq!(stream.read(&mut got).await.expect("the head"), GET.len());
        let started = Instant::now();
        let crawl = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        // The time between our own reads does not count.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let error = loop {
            if let Err(error) = stream.read(&mut got).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let took = started.elapsed().as_secs();
        assert!((69..=72).contains(&took), "{took} s");
        crawl.abort();
    }

    #[tokio::test]
    async fn malformed_chunks_fail_the_read() {
        let (mut stream, _client) = stream(&[GET, b"zz\r\n"].concat()).await;
        begin(&mut stream, Body::Chunked);
        let mut got = vec![0; 1024];
        assert_eq!(stream.read(&mut got).await.expect("the head"), GET.len());
        let error = stream.read(&mut got).await.expect_err("malformed");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
