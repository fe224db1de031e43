//! The counters of an upstream, and why a request gets no server of it.

use std::sync::Arc;

use pingora_core::{Error, ErrorType};
use prometheus::IntCounter;

use crate::metrics::{Metrics, UpstreamTimes};

/// Attempts at an upstream, counted by their result, and how long servers take.
pub(crate) struct Attempts {
    pub(crate) connected: IntCounter,
    pub(crate) connect_failed: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) reused: IntCounter,
    pub(crate) unresolved: IntCounter,
    pub(crate) drained: IntCounter,
    pub(crate) full: IntCounter,
    pub(crate) times: Arc<UpstreamTimes>,
    /// Addresses that were ejected.
    pub(super) ejected: IntCounter,
}

/// Why there is no server for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoServer {
    /// No server's name has been looked up successfully.
    Unresolved,
    /// Every address is drained.
    Drained,
    /// Every address has as many requests as it may have.
    Full,
}

impl Attempts {
    pub(super) fn new(upstream: &str, metrics: &Metrics) -> Self {
        let of = |result| {
            metrics
                .upstream_attempts
                .with_label_values(&[upstream, result])
        };
        Self {
            connected: of("connected"),
            connect_failed: of("connect_failed"),
            failed: of("failed"),
            reused: of("reused"),
            unresolved: of("unresolved"),
            drained: of("drained"),
            full: of("full"),
            times: metrics.upstream_times.upstream(upstream),
            ejected: metrics.upstream_ejections.with_label_values(&[upstream]),
        }
    }

    /// Counts a request that gets no server, and returns the error that it fails with.
    pub(super) fn record_no_server(&self, why: NoServer) -> Box<Error> {
        let (counter, status, why) = match why {
            NoServer::Unresolved => (
                &self.unresolved,
                502,
                "no server of the upstream has an address yet",
            ),
            NoServer::Drained => (
                &self.drained,
                503,
                "all servers of the upstream are drained",
            ),
            NoServer::Full => (
                &self.full,
                503,
                "all servers of the upstream have as many requests as max_connections allows",
            ),
        };
        counter.inc();
        Error::explain(ErrorType::HTTPStatus(status), why).into_up()
    }
}
