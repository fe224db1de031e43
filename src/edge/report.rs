//! What operators learn about failing connections. Each is counted, and at most one per second is
//! logged, since otherwise a client could fill the log by sending garbage.

use std::net::IpAddr;
use std::time::Duration;

use pingora_core::protocols::SocketDigest;

use super::announced::Unannounced;
use super::handshake_reason::{FailedHandshake, HandshakeFailure, ReasonCounters, detail};
use super::refusal::Refusal;
use super::refused_lines::RefusedLines;
use super::stream::Peer;
use crate::metrics::Metrics;
use crate::throttle::Throttle;
use crate::tls::{ClientRefusal, Handshake};

/// Counts and logs what clients do wrong.
pub(super) struct Report {
    pub(super) lines: RefusedLines,
    metrics: Metrics,
    reasons: ReasonCounters,
    handshakes: Throttle,
    unknown_names: Throttle,
    requests: Throttle,
    floods: Throttle,
    client_certificates: Throttle,
    revocation_lists: Throttle,
    refused_handshakes: Throttle,
    full: Throttle,
    unannounced: Throttle,
}

/// The limits on connections.
const LIMITS: [&str; 4] = [
    "max_connections",
    "max_connections_per_ip",
    "max_handshakes_per_ip",
    "http2_flood",
];

impl Report {
    pub(super) fn new(metrics: Metrics) -> Self {
        for limit in LIMITS {
            // An increase is seen only by who has seen the count before.
            metrics.limited.with_label_values(&[limit]);
        }
        for how in HandshakeFailure::ALL {
            metrics
                .handshakes
                .with_label_values(&[how.as_str(), "none", "none", "false"]);
        }
        Self {
            lines: RefusedLines::default(),
            reasons: ReasonCounters::new(&metrics),
            metrics,
            handshakes: Throttle::default(),
            unknown_names: Throttle::default(),
            requests: Throttle::default(),
            floods: Throttle::default(),
            client_certificates: Throttle::default(),
            revocation_lists: Throttle::default(),
            refused_handshakes: Throttle::default(),
            full: Throttle::every(Duration::from_secs(60)),
            unannounced: Throttle::default(),
        }
    }

    /// Counts and logs a failed handshake.
    pub(super) fn log_handshake(&self, failed: &FailedHandshake<'_>) {
        let &FailedHandshake {
            how,
            peer,
            handshake,
            error,
            ..
        } = failed;
        let result = how.as_str();
        self.metrics
            .handshakes
            .with_label_values(&[result, "none", "none", "false"])
            .inc();
        let text = error.map(ToString::to_string);
        let text = text.as_deref();
        let refusal = text.and_then(|text| handshake.client_refusal(text));
        let reason = self.reasons.count(how, handshake, text, refusal.is_some());
        self.lines.log_handshake(failed, reason, refusal.as_ref());
        if let Some(refusal) = refusal {
            self.log_client_refusal(refusal, peer, handshake);
            return;
        }
        if let Some(held_back) = self.handshakes.admit() {
            tracing::debug!(
                %peer,
                server_name = handshake.server_name(),
                unknown_name = handshake.is_unknown_name(),
                result,
                reason,
                error = error.map(detail),
                held_back,
                "TLS handshake failed"
            );
        }
    }

    /// Counts and logs a client whose certificate was refused, or that presented none.
    fn log_client_refusal(&self, refusal: ClientRefusal, peer: Peer, handshake: &Handshake) {
        let reason = refusal.reason;
        let counter = &self.metrics.client_certificates_refused;
        counter.with_label_values(&[reason]).inc();
        let server_name = handshake.server_name();
        let detail = refusal.detail;
        if refusal.is_own_fault() {
            if let Some(held_back) = self.revocation_lists.admit() {
                tracing::error!(
                    %peer,
                    server_name,
                    detail,
                    held_back,
                    "refused a client because no valid revocation list says that its certificate \
                     is good: replace the file of client_auth.crl"
                );
            }
        } else if let Some(held_back) = self.client_certificates.admit() {
            tracing::info!(
                %peer,
                server_name,
                reason,
                detail,
                held_back,
                "refused a client because of its certificate"
            );
        }
    }

    /// Logs that a client got the default certificate because there is none for its name. `tls`
    /// counts it.
    pub(super) fn log_unknown_name(&self, peer: Peer, handshake: &Handshake) {
        if let Some(held_back) = self.unknown_names.admit() {
            tracing::debug!(
                %peer,
                server_name = handshake.server_name(),
                held_back,
                "no certificate for this name, presented the default one"
            );
        }
    }

    /// Counts and logs a request that was refused before it was passed on.
    pub(super) fn log_refused_request(&self, peer: Option<&SocketDigest>, refusal: &Refusal) {
        let reason = refusal.reason;
        self.metrics.malformed.with_label_values(&[reason]).inc();
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

    /// Counts and logs a balancer's connection that did not begin with a header of the PROXY
    /// protocol.
    pub(super) fn log_unannounced(&self, peer: Peer, why: Unannounced) {
        let reason = why.as_str();
        let refused = &self.metrics.proxy_protocol_refused;
        refused.with_label_values(&[reason]).inc();
        // Balancers check whether a port accepts connections by opening one and closing it.
        let is_check = matches!(why, Unannounced::Ended { is_begun: false });
        if !is_check {
            self.lines
                .log_connection(Some(peer), "proxy_protocol", Some(reason));
        }
        if !is_check && let Some(held_back) = self.unannounced.admit() {
            tracing::warn!(
                %peer,
                reason,
                held_back,
                "refused a connection without a PROXY protocol header: have this balancer send it, \
                 or remove it from server.proxy_protocol.trusted"
            );
        }
    }

    /// Counts a connection that was refused because its client has too many.
    pub(super) fn count_client_full(&self, peer: Peer) {
        self.count_limit("max_connections_per_ip");
        self.lines
            .log_connection(Some(peer), "max_connections_per_ip", None);
    }

    /// Counts and logs a connection that was closed because its client begins too many handshakes.
    pub(super) fn log_handshake_refused(&self, client: IpAddr) {
        self.count_limit("max_handshakes_per_ip");
        let peer = Peer::Ip((client, 0).into());
        self.lines
            .log_connection(Some(peer), "max_handshakes_per_ip", None);
        if let Some(held_back) = self.refused_handshakes.admit() {
            tracing::warn!(
                %client,
                held_back,
                "closed a connection before its handshake: its client begins more than \
                 server.limits.max_handshakes_per_ip in a second"
            );
        }
    }

    /// Counts and logs that `max` connections are open, as many as allowed.
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

    /// Counts and logs an HTTP/2 connection that is closed because it caused too much useless work.
    pub(super) fn log_flood(&self, peer: Option<&SocketDigest>) {
        self.count_limit("http2_flood");
        let address = peer.and_then(|peer| peer.peer_addr()?.as_inet().copied());
        self.lines
            .log_connection(address.map(Peer::Ip), "http2_flood", None);
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
