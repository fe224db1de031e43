//! The requests of one HTTP/2 connection that are in flight.
//!
//! When the gateway stops, a connection is told with GOAWAY, and the h2 crate then waits for the
//! client's word that it has seen it. A client that never says it must not hold the gateway.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use tokio::time::Instant;

use crate::config::model::Limits;
use crate::shutdown::ShutdownWatch;

/// How long the last octets of an answer may be on their way to the client.
const FLUSH: Duration = Duration::from_secs(5);

/// How often a connection that is to end is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The application, as one connection uses it: under the limits that are in force when it begins.
pub(super) struct Streams<A> {
    app: Arc<A>,
    options: HttpServerOptions,
    max_streams: u32,
    open: AtomicUsize,
    last_end: Mutex<Option<Instant>>,
}

impl<A: HttpServerApp> Streams<A> {
    pub(super) fn new(app: &Arc<A>, limits: &Limits) -> Arc<Self> {
        let mut options = app.server_options().cloned().unwrap_or_default();
        options.h2_idle_timeout = Some(limits.idle);
        Arc::new(Self {
            app: Arc::clone(app),
            options,
            max_streams: limits.h2_streams,
            open: AtomicUsize::new(0),
            last_end: Mutex::new(None),
        })
    }

    /// Waits until nothing is in flight and the last answer has had the time to arrive.
    pub(super) async fn at_rest(&self) {
        while self.open.load(Ordering::Relaxed) > 0
            || self.last_end().is_some_and(|end| end.elapsed() < FLUSH)
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn last_end(&self) -> Option<Instant> {
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in flight.
struct InFlight<'a, A>(&'a Streams<A>);

impl<'a, A> InFlight<'a, A> {
    fn new(streams: &'a Streams<A>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        Self(streams)
    }
}

impl<A> Drop for InFlight<'_, A> {
    fn drop(&mut self) {
        let now = Some(Instant::now());
        *self
            .0
            .last_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl<A> HttpServerApp for Streams<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _in_flight = InFlight::new(self);
        self.app.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = self.app.h2_options().unwrap_or_default();
        options.max_concurrent_streams(self.max_streams);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
