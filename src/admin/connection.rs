//! A connection to the admin interface, as its requests know it: how long it may last, and what
//! happens at its end.
//!
//! A stop waits until its own response is on the wire: a gateway with nothing to drain ends faster
//! than a response is written. A stream of events outlives the limit for other connections, but not
//! the gateway, nor a client that does not read.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Control;
use crate::shutdown::ShutdownWatch;

/// What the requests of a connection share.
#[derive(Clone)]
pub(super) struct Connection {
    stop: Arc<OnceLock<Arc<dyn Control>>>,
    streams: Arc<AtomicUsize>,
    shutdown: ShutdownWatch,
}

impl Connection {
    /// A connection of a listener that ends with `shutdown`.
    pub(super) fn new(shutdown: ShutdownWatch) -> Self {
        Self {
            stop: Arc::default(),
            streams: Arc::default(),
            shutdown,
        }
    }

    /// Stops the gateway once the connection has ended.
    pub(super) fn stop_at_end(&self, control: Arc<dyn Control>) {
        // A second request changes nothing.
        let _ = self.stop.set(control);
    }

    /// Called when the connection has ended.
    pub(super) fn ended(&self) {
        if let Some(control) = self.stop.get() {
            control.stop();
        }
    }

    /// Lets the connection last for as long as the returned value exists.
    pub(super) fn streaming(&self) -> Streaming {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Streaming(Arc::clone(&self.streams))
    }

    /// Returns true if an endless response is in progress.
    pub(super) fn is_streaming(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }

    /// The signal that ends such a response.
    pub(super) fn shutdown(&self) -> ShutdownWatch {
        self.shutdown.clone()
    }
}

/// Held by an endless response.
pub(super) struct Streaming(Arc<AtomicUsize>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A router that gives each request its [`Connection`].
pub(super) struct Connected {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) connection: Connection,
}

impl Service<http::Request<Incoming>> for Connected {
    type Response = <TowerToHyperService<Router> as Service<http::Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<http::Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<http::Request<Incoming>>>::Future;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.connection.clone());
        self.router.call(request)
    }
}

/// A stream whose writes fail if the other side does not read for too long.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> Patient<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
        }
    }

    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        waiting
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
