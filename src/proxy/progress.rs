//! How far a request has come, and when.

use std::time::Duration;

/// How far a request has come, for its line in the access log. Times are counted from its arrival.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How often a server was tried.
    pub(super) attempts: u32,
    /// When the last attempt began.
    pub(super) began: Duration,
    /// When a new connection to the server was there.
    pub(super) connected: Option<Duration>,
    /// When the head of the response had arrived.
    pub(super) first_byte: Option<Duration>,
    /// How long the request has waited for a server with room.
    pub(super) waited: Option<Duration>,
    /// Octets of the request's body.
    pub(super) received: u64,
}

impl Progress {
    /// Records that another attempt begins.
    pub(super) fn begin_attempt(&mut self, now: Duration) {
        self.began = now;
        self.attempts = self.attempts.saturating_add(1);
        (self.connected, self.first_byte) = (None, None);
    }
}
