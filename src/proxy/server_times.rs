//! How long the server of a request takes.

use std::time::Instant;

use http::StatusCode;

use super::attempts::Attempts;
use crate::metrics::Traced;

/// The times of one attempt.
#[derive(Default)]
pub(crate) struct ServerTimes {
    /// When the request got the connection to its server.
    connected: Option<Instant>,
    /// Whether the head of a response to be passed on has come over it.
    has_response: bool,
}

impl ServerTimes {
    /// The times of an attempt that has a connection now.
    pub(crate) fn begin() -> Self {
        Self {
            connected: Some(Instant::now()),
            has_response: false,
        }
    }

    /// Counts the time to the head of a response.
    pub(crate) fn count_head(&mut self, status: StatusCode, attempts: &Attempts) {
        if let Some(connected) = self.connected {
            attempts.times.first_byte.observe(connected.elapsed(), None);
        }
        // A connection that is upgraded lasts for as long as the client likes.
        self.has_response = status != StatusCode::SWITCHING_PROTOCOLS;
    }

    /// Counts the time to the end of the response, which is `now`.
    pub(crate) fn count_end(&self, now: Instant, attempts: &Attempts, traced: Option<Traced>) {
        if let Some(connected) = self.connected.filter(|_| self.has_response) {
            attempts.times.duration.observe(now - connected, traced);
        }
    }
}
