//! HTTP/2 connections: deadlines that Pingora and the h2 crate do not keep.
//!
//! The guard reads the frame headers that pass (RFC 9113, section 4.1) and fails the connection
//! where the preface or a block of fields takes too long. It changes no byte.

mod streams;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::http::v2::server::{default_h2_options, handshake};
use pingora_core::protocols::{Digest, Shutdown, Stream};
use tokio::io::{AsyncRead, ReadBuf};

use crate::config::model::Limits;
use crate::proxy::Answering;
use crate::shutdown::ShutdownWatch;

use self::streams::Streams;
use super::gather::{Flush, Gathered, Turn};
use super::last_call;
use super::timer::Timer;

/// Serves one connection until it ends.
pub(super) async fn serve<A>(
    app: &Arc<A>,
    connection: Stream,
    limits: &Limits,
    mut shutdown: ShutdownWatch,
) where
    A: Answering + Send + Sync + 'static,
{
    let turn = Turn::default();
    let digest = Arc::new(Digest {
        ssl_digest: connection.get_ssl_digest(),
        timing_digest: connection.get_timing_digest(),
        proxy_digest: connection.get_proxy_digest(),
        socket_digest: connection.get_socket_digest(),
    });
    let guarded = FrameGuard {
        inner: Gathered::new(connection, Flush::Soon(turn.clone())),
        frames: Frames::default(),
        deadline: limits.header_read,
        timer: Timer::default(),
    };
    let mut options = app.h2_options().unwrap_or_else(default_h2_options);
    options.max_concurrent_streams(limits.h2_streams);
    let streams = Streams::new(app, shutdown.clone(), limits.idle);
    let serving = async {
        // Errors of clients are nobody's concern.
        if let Ok(mut connection) = handshake(Box::new(guarded), Some(options)).await {
            streams.serve(&mut connection, &digest, &turn).await;
        }
    };
    let over = async {
        last_call(&mut shutdown).await;
        streams.at_rest().await;
    };
    tokio::select! {
        () = serving => {}
        () = over => {}
    }
}

/// The length of the client's connection preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;

const FRAME_HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where in the sequence of frames a connection is.
#[derive(Debug)]
struct Frames {
    /// Bytes of the preface, or of the current frame's payload, that are still to come.
    skip: usize,
    header: [u8; FRAME_HEADER],
    header_len: usize,
    /// Whether the payload that is being skipped belongs to DATA, which may take its time.
    in_data: bool,
    /// Whether a block of fields has begun and not ended.
    in_fields: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            header: [0; FRAME_HEADER],
            header_len: 0,
            in_data: false,
            in_fields: false,
        }
    }
}

impl Frames {
    /// Takes the bytes that came; whether the client owed nothing at some point within them.
    fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut settled = false;
        while !bytes.is_empty() {
            settled |= !self.is_owed();
            if self.skip > 0 {
                let here = self.skip.min(bytes.len());
                self.skip -= here;
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            let here = (FRAME_HEADER - self.header_len).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(here).unwrap_or((bytes, &[]));
            if let Some(to) = self.header.get_mut(self.header_len..self.header_len + here) {
                to.copy_from_slice(now);
            }
            self.header_len += here;
            bytes = rest;
            if self.header_len == FRAME_HEADER {
                self.begin_frame();
            }
        }
        settled || !self.is_owed()
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.header_len = 0;
        self.in_data = kind == DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_fields = flags & END_HEADERS == 0;
        }
    }

    /// Whether the client has begun something that it has to finish in good time.
    fn is_owed(&self) -> bool {
        self.header_len > 0 || self.in_fields || (self.skip > 0 && !self.in_data)
    }
}

/// A connection whose frames are watched.
struct FrameGuard {
    inner: Stream,
    frames: Frames,
    deadline: Duration,
    timer: Timer,
}

impl AsyncRead for FrameGuard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let settled = read.is_ready()
            && this
                .frames
                .advance(buf.filled().get(before..).unwrap_or_default());
        if settled || !this.frames.is_owed() {
            this.timer.clear();
        }
        if this.frames.is_owed() && this.timer.poll_after(cx, this.deadline).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client leaves a frame or a block of fields unfinished",
            )));
        }
        read
    }
}

super::delegate_io!(FrameGuard);

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
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let len = u32::try_from(len).expect("small").to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEADER + usize::from(len[3]), 0);
        frame
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_finishes_what_it_begins_is_never_cut() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut guard = FrameGuard {
            inner: Box::new(server),
            frames: Frames::default(),
            deadline: Duration::from_secs(10),
            timer: Timer::default(),
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
    fn what_is_begun_is_owed_until_it_is_whole() {
        let mut frames = Frames::default();
        assert!(frames.is_owed(), "the preface");
        frames.advance(&[0; PREFACE]);
        assert!(!frames.is_owed());

        let settings = frame(4, 0, 6);
        for byte in &settings[..settings.len() - 1] {
            frames.advance(&[*byte]);
            assert!(frames.is_owed());
        }
        frames.advance(&settings[settings.len() - 1..]);
        assert!(!frames.is_owed());

        frames.advance(&frame(HEADERS, 0, 3));
        assert!(frames.is_owed(), "a block of fields without its end");
        frames.advance(&frame(CONTINUATION, 0, 3));
        assert!(frames.is_owed());
        frames.advance(&frame(CONTINUATION, END_HEADERS, 0));
        assert!(!frames.is_owed());

        frames.advance(&frame(DATA, 0, 100)[..20]);
        assert!(!frames.is_owed(), "a body may take its time");
    }
}
