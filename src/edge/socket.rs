//! A client's connection as Pingora sees it, with a deadline for blocked writes.

mod client_hello;

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
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::limits::ConnectionGuard;
use super::stream::{ClientStream, Peer};
use super::timer::Timer;
use crate::tls::Handshake;

/// The header of a record of TLS (RFC 8446, section 5.1).
const RECORD_HEADER: usize = 5;

/// The largest content of a record.
const RECORD: usize = 16 * 1024;

/// How much is read where only a header is asked for.
const AHEAD: usize = 2 * 1024;

/// A client's connection.
///
/// Unlike Pingora's own stream it holds no buffer for long: its readers, TLS and the HTTP/1 head
/// reader, have their own.
///
/// During the handshake it differs in two ways. OpenSSL asks for each record's header and then for
/// its content, even if it is set to read ahead: here all that is available is read at once. And it
/// flushes the session ticket, which nobody waits for: what a handshake writes is sent when the
/// client has to send something next, or together with what follows the handshake.
///
/// Full records are usually followed by more. The kernel holds them until it has a large packet, or
/// until the rest follows, a flush, or a wait for the client: each packet costs as much as some
/// thousand octets.
pub(super) struct Socket {
    stream: ClientStream,
    /// What has been read in advance.
    ahead: BytesMut,
    /// What a handshake has written and is not sent yet.
    later: BytesMut,
    /// The record of the handshake, while it is under way.
    handshake: Option<Handshake>,
    peer: Peer,
    digest: Arc<SocketDigest>,
    /// Says which address it was accepted at.
    place: Option<Arc<ProxyDigest>>,
    accepted: TimingDigest,
    /// How long a write may make no progress, if that is limited here.
    write_stall: Option<Duration>,
    blocked: Timer,
    /// Whether the kernel may hold what was written last.
    is_held: bool,
    _guard: ConnectionGuard,
}

impl Socket {
    pub(super) fn new(
        stream: ClientStream,
        peer: Peer,
        write_stall: Duration,
        guard: ConnectionGuard,
    ) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // Known already: saves a system call.
        match peer {
            Peer::Ip(address) => _ = digest.peer_addr.set(Some(address.into())),
            Peer::Unix => _ = digest.peer_addr.set(None),
        }
        Self {
            stream,
            ahead: BytesMut::new(),
            later: BytesMut::new(),
            handshake: None,
            peer,
            digest: Arc::new(digest),
            place: None,
            accepted: TimingDigest::default(),
            write_stall: Some(write_stall),
            blocked: Timer::default(),
            is_held: false,
            _guard: guard,
        }
    }

    /// Says which address the connection was accepted at.
    pub(super) fn accepted_at(mut self, place: Arc<ProxyDigest>) -> Self {
        self.place = Some(place);
        self
    }

    /// Has the socket begin with what has been read of the connection already.
    pub(super) fn with_received(mut self, mut received: BytesMut) -> Self {
        received.unsplit(std::mem::take(&mut self.ahead));
        self.ahead = received;
        self
    }

    /// Lets writes make no progress for as long as somebody else allows.
    pub(super) fn allow_stalls(&mut self) {
        self.write_stall = None;
    }

    /// Makes the connection end with a reset.
    pub(super) fn reset_on_close(&self) {
        // If it fails, the close is orderly.
        _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Has the client be connected to `address`, which another program accepts connections at.
    pub(super) fn with_destination(self, address: SocketAddr) -> Self {
        // It is set once, and nothing has asked for it yet.
        let _ = self.digest.local_addr.set(Some(address.into()));
        self
    }

    /// The client.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Prepares for the handshake that `handshake` records.
    pub(super) fn for_handshake(mut self, handshake: Handshake) -> Self {
        self.handshake = Some(handshake);
        self
    }

    /// Ends the handshake: from now on a flush sends everything.
    pub(super) fn end_handshake(&mut self) {
        self.handshake = None;
    }

    /// Sends what the handshake has left unsent, as far as the socket accepts it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.later.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.later);
            let count = ready!(self.watch(cx, written))?;
            self.later.advance(count);
        }
        self.later = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Writes octets that the kernel may hold until more follow, or [`Self::release_held`].
    fn poll_write_held(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let send = || SockRef::from(&self.stream).send_with_flags(buf, flags);
            match self.stream.try_write_io(send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.is_held = true;
                    return Poll::Ready(written);
                }
            }
        }
    }

    /// Has the kernel send what it may hold.
    fn release_held(&mut self) {
        if self.is_held {
            self.is_held = false;
            self.stream.push();
        }
    }

    /// Reads some octets in advance: none if the client has closed the connection.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); AHEAD];
        let mut read = ReadBuf::uninit(&mut space);
        let came = Pin::new(&mut self.stream).poll_read(cx, &mut read);
        ready!(self.waiting(cx, came))?;
        self.ahead.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// Passes a read's result on. If it is pending, what the client waits for is sent.
    fn waiting<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if read.is_pending() {
            self.release_held();
            if !self.later.is_empty()
                && let Poll::Ready(Err(error)) = self.poll_send(cx)
            {
                return Poll::Ready(Err(error));
            }
        }
        read
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
        if let Some(limit) = self.write_stall
            && self.blocked.poll_after(cx, limit).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client reads no data",
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
                let read = Pin::new(&mut self.stream).poll_read(cx, buf);
                return self.waiting(cx, read);
            }
            ready!(self.poll_read_ahead(cx))?;
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
        let this = &mut *self;
        if let Some(handshake) = &this.handshake {
            this.later.extend_from_slice(buf);
            handshake.correct_alert(&mut this.later);
            return Poll::Ready(Ok(buf.len()));
        }
        if !self.later.is_empty() {
            return self.poll_write_vectored(cx, &[io::IoSlice::new(buf)]);
        }
        let written = if buf.len() > RECORD {
            self.poll_write_held(cx, buf)
        } else {
            self.is_held = false;
            Pin::new(&mut self.stream).poll_write(cx, buf)
        };
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.later.is_empty() {
            let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
            return this.watch(cx, written);
        }
        // In one packet with the first of what comes now.
        let first = bufs.iter().find(|part| !part.is_empty());
        let parts = [&*this.later, first.map_or(&[][..], |part| part)].map(io::IoSlice::new);
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, &parts);
        let count = ready!(this.watch(cx, written))?;
        match count.checked_sub(this.later.len()) {
            Some(ours) => {
                this.later = BytesMut::new();
                if ours > 0 || first.is_none() {
                    return Poll::Ready(Ok(ours));
                }
            }
            None => this.later.advance(count),
        }
        self.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.handshake.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(cx))?;
        self.release_held();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.later.is_empty() {
            // The alert that a failed handshake ends with. If it cannot be sent at once, it is lost.
            _ = self.stream.try_write(&self.later);
        }
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
        let _ = AsyncWriteExt::shutdown(self).await;
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
        self.place.clone()
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

#[cfg(test)]
pub(super) mod tests;
