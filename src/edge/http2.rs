//! HTTP/2 connections: deadlines and limits that Pingora and the h2 crate do not have.
//!
//! The guard reads the frame headers that pass in both directions (RFC 9113, section 4.1), has
//! their cost added up, and fails the connection if the preface or a field block takes too long.
//! The only bytes it changes are the announced limit of a head.

mod accounting;
mod client;
mod frames;
mod halves;
mod head;
mod outbox;
mod response;
mod session;
mod stream;
mod streams;
mod websocket;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::http::v2::server::{default_h2_options, handshake};
use pingora_core::protocols::{Digest, Shutdown, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::model::Limits;
use crate::proxy::DirectResponder;
use crate::shutdown::ShutdownWatch;

use self::accounting::Accounting;
use self::frames::Frames;
use self::outbox::Outbox;
use self::streams::Streams;
use super::report::Report;
use super::slot::Slot;
use super::timer::Timer;
use super::wait_last_call;
use super::write_coalescing::{Batch, CoalescingStream, Flush};

/// Octets by which a head may exceed the limit and still get a response. A larger one ends the
/// connection, since the h2 crate would have to read all of it before the next request.
const HEAD_EXCESS: usize = 192 * 1024;

/// How long, and how much, is read from a client after the end has been sent. A connection that is
/// closed with unread data is reset, and the reset can overtake the last frames.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 1024 * 1024;

/// Serves one connection until it ends.
pub(super) async fn serve<A>(
    app: &Arc<A>,
    connection: Stream,
    limits: &Limits,
    report: &Arc<Report>,
    slot: &Arc<Slot>,
    mut shutdown: ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let batch = Batch::default();
    let digest = Arc::new(Digest {
        ssl_digest: connection.get_ssl_digest(),
        timing_digest: connection.get_timing_digest(),
        proxy_digest: connection.get_proxy_digest(),
        socket_digest: connection.get_socket_digest(),
    });
    let accounting = Accounting::new(limits.max_header_bytes);
    let outbox = Outbox::default();
    let max_head = octets(limits.max_header_bytes);
    let guarded = FrameGuard {
        inner: CoalescingStream::new(connection, Flush::Soon(batch.clone())),
        received: Frames::of_client(),
        sent: Frames::of_server(),
        accounting: accounting.clone(),
        outbox: outbox.clone(),
        max_head: Some(max_head),
        deadline: limits.header_read,
        timer: Timer::default(),
        lingering: Lingering::default(),
    };
    let mut options = app.h2_options().unwrap_or_else(default_h2_options);
    options
        .enable_connect_protocol()
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(octets(limits.max_header_bytes.saturating_add(HEAD_EXCESS)));
    let streams = Streams::new(
        app,
        shutdown.clone(),
        limits,
        report,
        slot,
        accounting,
        outbox,
    );
    let serving = async {
        let handshake = tokio::select! {
            handshake = handshake(Box::new(guarded), Some(options)) => handshake,
            () = poll_fn(|cx| slot.poll_close_requested(cx)) => return,
        };
        // Errors of clients are not logged.
        if let Ok(mut connection) = handshake {
            streams.serve(&mut connection, &digest, &batch).await;
        }
    };
    let over = async {
        wait_last_call(&mut shutdown).await;
        streams.wait_until_idle().await;
    };
    tokio::select! {
        () = serving => {}
        () = over => {}
    }
}

/// A size as the value of a setting.
fn octets(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// A connection whose frames are observed.
struct FrameGuard {
    inner: Stream,
    received: Frames,
    sent: Frames,
    accounting: Accounting,
    outbox: Outbox,
    /// The limit of a head to announce to the client, until that is done. The h2 crate has a higher
    /// one, so that it passes on heads that are slightly too large, and would announce that.
    max_head: Option<u32>,
    deadline: Duration,
    timer: Timer,
    lingering: Lingering,
}

impl FrameGuard {
    /// Records what has been written, the first `count` octets of `parts`.
    fn watch_sent<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>, mut count: usize) {
        let Self {
            sent,
            accounting,
            outbox,
            ..
        } = self;
        for part in parts {
            let here = part.len().min(count);
            count -= here;
            sent.advance(part.get(..here).unwrap_or_default(), |frame| {
                accounting.count_sent(frame);
                outbox.observe_sent(frame);
            });
        }
    }
}

impl AsyncRead for FrameGuard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.accounting.is_paused() {
            // The task of the connection polls it again, or ends it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let (received, accounting, outbox) = (&mut this.received, &this.accounting, &this.outbox);
        let settled = read.is_ready()
            && received.advance(buf.filled().get(before..).unwrap_or_default(), |frame| {
                accounting.count_received(frame);
                outbox.observe_received(frame);
            });
        if settled || !this.received.is_owed() {
            this.timer.clear();
        }
        if this.received.is_owed() && this.timer.poll_after(cx, this.deadline).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client leaves a frame or a block of fields unfinished",
            )));
        }
        read
    }
}

impl AsyncWrite for FrameGuard {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let inner = Pin::new(&mut this.inner);
        let count = if let Some(max_head) = this.max_head {
            // The first write is the server's SETTINGS, in one piece.
            let mut settings = bufs.first().map_or_else(Vec::new, |first| first.to_vec());
            replace_setting(&mut settings, MAX_HEADER_LIST_SIZE, max_head);
            let count = ready!(inner.poll_write(cx, &settings))?;
            this.max_head = None;
            count
        } else {
            ready!(inner.poll_write_vectored(cx, bufs))?
        };
        this.watch_sent(bufs.iter().map(|part| &**part), count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.lingering.is_on {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.lingering.is_on = true;
        }
        this.lingering.poll(&mut this.inner, cx).map(Ok)
    }
}

/// The end of a connection, after the last octet has been sent.
#[derive(Default)]
struct Lingering {
    is_on: bool,
    /// Octets that have arrived since.
    octets: usize,
    timer: Timer,
}

impl Lingering {
    /// Ready once the client has closed too, or its time is up.
    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        while self.octets < LINGER_OCTETS {
            let mut read = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.octets += read.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        self.timer.poll_after(cx, LINGER)
    }
}

const MAX_HEADER_LIST_SIZE: u16 = 6;

/// Replaces the value of a setting in the frame that `settings` begins with (RFC 9113,
/// section 6.5.1).
fn replace_setting(settings: &mut [u8], id: u16, value: u32) {
    let entries = settings.get_mut(frames::FRAME_HEADER..).unwrap_or_default();
    let entry = entries
        .chunks_exact_mut(6)
        .find(|entry| entry.starts_with(&id.to_be_bytes()));
    if let Some(place) = entry.and_then(|entry| entry.get_mut(2..)) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

super::delegate_traits!(FrameGuard);

#[async_trait]
impl Shutdown for FrameGuard {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl std::fmt::Debug for FrameGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameGuard")
            .field("inner", &self.inner)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::frames::PREFACE;
    use super::frames::tests::frame;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_finishes_what_it_begins_is_never_cut() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut guard = FrameGuard {
            inner: Box::new(server),
            received: Frames::of_client(),
            sent: Frames::of_server(),
            accounting: Accounting::new(65_536),
            outbox: Outbox::default(),
            max_head: None,
            deadline: Duration::from_secs(10),
            timer: Timer::default(),
            lingering: Lingering::default(),
        };
        // Each write ends in the middle of a frame that the next one finishes.
        let mut stream = vec![0; PREFACE];
        (0..20).for_each(|_| stream.extend(frame(4, 0, 6)));
        client
            .write_all(&stream[..PREFACE + 5])
            .await
            .expect("room");
        let mut got = [0; 15];
        let mut at = PREFACE + 5;
        let mut begin = [0; PREFACE + 5];
        guard.read_exact(&mut begin).await.expect("the beginning");
        while at + 15 < stream.len() {
            tokio::time::sleep(Duration::from_secs(4)).await;
            client.write_all(&stream[at..at + 15]).await.expect("room");
            at += 15;
            guard
                .read_exact(&mut got)
                .await
                .expect("the client keeps time");
        }
        let error = guard.read(&mut got).await.expect_err("nothing more comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_setting_is_replaced_in_its_place() {
        let mut settings = frame(4, 0, 18);
        settings[9..].copy_from_slice(&[0, 2, 0, 0, 0, 0, 0, 6, 0, 4, 0, 0, 0, 4, 0, 4, 0, 0]);
        let before = settings.clone();
        replace_setting(&mut settings, MAX_HEADER_LIST_SIZE, 65_536);
        assert_eq!(settings[15..21], [0, 6, 0, 1, 0, 0]);
        assert_eq!(
            (&settings[..15], &settings[21..]),
            (&before[..15], &before[21..])
        );
        replace_setting(&mut settings, 9, 1);
        replace_setting(&mut [], MAX_HEADER_LIST_SIZE, 1);
    }
}
