//! What operators learn of connections that fail: each is counted, and one in a second
//! has a line, since whoever sends garbage would fill the log.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use pingora_core::protocols::SocketDigest;

use super::http1::Refusal;
use crate::metrics::Metrics;
use crate::throttle::Throttle;
use crate::tls::HandshakeTrace;

/// Counts and logs what clients do wrong.
pub(super) struct Report {
    metrics: Metrics,
    handshakes: Throttle,
    unknown_names: Throttle,
    requests: Throttle,
    floods: Throttle,
    full: Throttle,
}

/// How a handshake ended that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    Failed,
    /// The gateway stops.
    Stopped,
    TimedOut,
}

impl HandshakeFailure {
    /// The value of the metrics' `result` label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::TimedOut => "timeout",
        }
    }
}

impl Report {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            handshakes: Throttle::default(),
            unknown_names: Throttle::default(),
            requests: Throttle::default(),
            floods: Throttle::default(),
            full: Throttle::every(Duration::from_secs(60)),
        }
    }

    /// A handshake did not succeed.
    pub(super) fn log_handshake(
        &self,
        how: HandshakeFailure,
        peer: SocketAddr,
        trace: &HandshakeTrace,
        error: Option<&dyn fmt::Display>,
    ) {
        let result = how.as_str();
        self.metrics
            .handshakes
            .with_label_values(&[result, "none", "none", "false"])
            .inc();
        if let Some(held_back) = self.handshakes.admit() {
            tracing::debug!(
                %peer,
                server_name = trace.server_name(),
                unknown_name = trace.is_unknown,
                result,
                error = error.map(tracing::field::display),
                held_back,
                "TLS handshake failed"
            );
        }
    }

    /// A client got the default certificate for want of one for its name. Counted by `tls`.
    pub(super) fn log_unknown_name(&self, peer: SocketAddr, trace: &HandshakeTrace) {
        if let Some(held_back) = self.unknown_names.admit() {
            tracing::debug!(
                %peer,
                server_name = trace.server_name(),
                held_back,
                "no certificate for this name, presented the default one"
            );
        }
    }

    /// A request was refused before it was passed on.
    pub(super) fn log_refused_request(&self, peer: Option<&SocketDigest>, refusal: &Refusal) {
        let reason = refusal.reason;
        self.metrics.refused.with_label_values(&[reason]).inc();
        if let Some(held_back) = self.requests.admit() {
            let peer = peer.and_then(SocketDigest::peer_addr);
            tracing::debug!(
                peer = peer.map(tracing::field::display),
                status = refusal.status.as_u16(),
                reason,
                held_back,
                "refused a request"
            );
        }
    }

    /// A client opened a connection more than it may have.
    pub(super) fn count_client_full(&self) {
        self.count_limit("max_connections_per_ip");
    }

    /// A connection meets as many others as there may be, `max`.
    pub(super) fn log_full(&self, max: usize) {
        self.count_limit("max_connections");
        if let Some(held_back) = self.full.admit() {
            tracing::warn!(
                max,
                held_back,
                "the connection limit is reached: idle connections are closed for new ones, which \
                 wait if there are none; raise server.limits.max_connections or the limit on open \
                 files if this is no attack"
            );
        }
    }

    /// An HTTP/2 connection has to end, having made more work in vain than it was of use.
    pub(super) fn log_flood(&self, peer: Option<&SocketDigest>) {
        self.count_limit("http2_flood");
        if let Some(held_back) = self.floods.admit() {
            let peer = peer.and_then(SocketDigest::peer_addr);
            tracing::info!(
                peer = peer.map(tracing::field::display),
                held_back,
                "closed an HTTP/2 connection because of its resets or empty frames"
            );
        }
    }

    fn count_limit(&self, limit: &str) {
        self.metrics.limited.with_label_values(&[limit]).inc();
    }
}
