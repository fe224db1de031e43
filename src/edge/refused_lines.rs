//! Lines in the access log for connections that end before there is a request.
//!
//! So many are written in each second, since anyone can open connections.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::handshake_reason::{FailedHandshake, HandshakeFailure, detail};
use super::stream::Peer;
use crate::access_log::{AccessLog, RefusedConnection};
use crate::clock::{Clock as _, SystemClock};
use crate::throttle::Throttle;
use crate::tls::ClientRefusal;

/// The most lines in a second, of handshakes and of limits.
const MOST: u32 = 100;

/// Writes lines for connections that end before there is a request.
pub(super) struct RefusedLines {
    access: OnceLock<Arc<ArcSwap<AccessLog>>>,
    handshakes: Throttle,
    limits: Throttle,
}

impl Default for RefusedLines {
    fn default() -> Self {
        Self {
            access: OnceLock::new(),
            handshakes: Throttle::per_second(MOST),
            limits: Throttle::per_second(MOST),
        }
    }
}

impl RefusedLines {
    /// Writes to this log from now on; the first one stays.
    pub(super) fn write_to(&self, access: Arc<ArcSwap<AccessLog>>) {
        _ = self.access.set(access);
    }

    /// Writes the line of a handshake that failed for `reason`, a word, unless the client has sent
    /// nothing or the gateway stops.
    pub(super) fn log_handshake(
        &self,
        failed: &FailedHandshake<'_>,
        reason: &str,
        refusal: Option<&ClientRefusal>,
    ) {
        let FailedHandshake { how, handshake, .. } = *failed;
        let refused = match (refusal, how) {
            _ if !failed.has_begun => return,
            (_, HandshakeFailure::Stopped) => return,
            (Some(_), _) => "client_certificate",
            (None, HandshakeFailure::TimedOut) => "handshake_timeout",
            (None, HandshakeFailure::LetGo) => "made_room",
            (None, HandshakeFailure::Failed) => "handshake_failed",
        };
        let Some((access, held_back)) = self.admit(&self.handshakes) else {
            return;
        };
        let server_name = handshake.server_name();
        let error = failed.error.map(detail);
        access.load().write(&RefusedConnection {
            time: SystemClock.now(),
            client: failed.peer.ip(),
            version: "TLS",
            duration: None,
            server_name: server_name.as_deref(),
            failed: Some(reason),
            refused,
            reason: match refusal {
                Some(refusal) => Some(refusal.detail),
                None if handshake.is_unknown_name() => {
                    Some("there is no certificate for this name")
                }
                None => error.as_deref(),
            },
            held_back,
        });
    }

    /// Writes the line of a connection that was closed because of a limit, or what it began with.
    pub(super) fn log_connection(&self, peer: Option<Peer>, refused: &str, reason: Option<&str>) {
        let Some((access, held_back)) = self.admit(&self.limits) else {
            return;
        };
        access.load().write(&RefusedConnection {
            time: SystemClock.now(),
            client: peer.and_then(Peer::ip),
            version: "TCP",
            duration: None,
            server_name: None,
            failed: None,
            refused,
            reason,
            held_back,
        });
    }

    /// The log, if one more line may be written, and how many lines were left out before it.
    fn admit(&self, throttle: &Throttle) -> Option<(&ArcSwap<AccessLog>, u64)> {
        let access = self.access.get().filter(|access| access.load().is_on())?;
        Some((access, throttle.admit()?))
    }
}
