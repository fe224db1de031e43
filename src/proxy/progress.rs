//! How far a request has come, and when: for the metrics of its upstream, its line in the access log
//! and its spans.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::endpoint::Endpoint;

/// The most failed attempts of a request that are kept. A name may have any number of addresses.
const MOST_FAILED: usize = 15;

/// How far a request has come. Moments are counted from its arrival.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last attempt at a server.
    pub(super) last: Attempt,
    /// Those that have failed, for their spans.
    pub(super) failed: Vec<FailedAttempt>,
    /// How long the request has waited for a server with room.
    pub(super) waited: Option<Moment>,
    /// Octets of the request's body.
    pub(super) received: u64,
}

/// One attempt at a server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempt {
    /// Its number among those of the request, from 1; 0 before the first.
    pub(super) number: u32,
    began: Option<Moment>,
    /// When the request got its connection to the server.
    connected: Option<Moment>,
    /// When the server had the complete request, or the connection if it has not waited for that.
    asked: Option<Moment>,
    /// When the head of the response had arrived.
    responded: Option<Moment>,
    /// The status of that response.
    pub(super) status: Option<StatusCode>,
    /// Whether the connection was kept from an earlier request.
    is_reused: bool,
    /// Whether it has failed, and is among those that have.
    pub(super) has_failed: bool,
}

/// An attempt that has failed, of a request that is recorded.
#[derive(Debug)]
pub(super) struct FailedAttempt {
    pub(super) attempt: Attempt,
    pub(super) ended: Duration,
    pub(super) server: Arc<Endpoint>,
    /// The id of its span.
    pub(super) span: u64,
    /// Why it has failed, as a word, if its status does not say it.
    pub(super) why: Option<&'static str>,
}

impl Progress {
    /// Records that another attempt begins.
    pub(super) fn begin_attempt(&mut self, now: Duration) {
        self.last = Attempt {
            number: self.last.number.saturating_add(1),
            began: Some(now.into()),
            ..Attempt::default()
        };
    }

    /// Keeps the last attempt, which has failed `now`.
    pub(super) fn keep_failed(
        &mut self,
        now: Duration,
        why: Option<&'static str>,
        server: &Arc<Endpoint>,
        span: u64,
    ) {
        self.last.has_failed = true;
        if self.failed.len() < MOST_FAILED {
            self.failed.push(FailedAttempt {
                attempt: self.last,
                ended: now,
                server: Arc::clone(server),
                span,
                why,
            });
        }
    }
}

impl Attempt {
    /// Records that the request has its connection.
    pub(super) fn record_connected(&mut self, now: Duration, is_reused: bool) {
        (self.connected, self.is_reused) = (Some(now.into()), is_reused);
        (self.asked, self.responded, self.status) = (None, None, None);
    }

    /// Records that the head of a response has arrived. The server had the complete request at
    /// `sent`, unless it has not waited for that: what a client takes to send a body is not the
    /// server's time.
    pub(super) fn record_response(
        &mut self,
        now: Duration,
        sent: Option<Duration>,
        status: StatusCode,
    ) {
        self.asked = sent.map(Moment::from).or(self.connected);
        (self.responded, self.status) = (Some(now.into()), Some(status));
    }

    /// When it began.
    pub(super) fn began(&self) -> Duration {
        self.began.map_or(Duration::ZERO, Duration::from)
    }

    /// When a new connection to the server was there.
    pub(super) fn opened(&self) -> Option<Duration> {
        self.connected
            .filter(|_| !self.is_reused)
            .map(Duration::from)
    }

    /// When the head of the response had arrived.
    pub(super) fn responded(&self) -> Option<Duration> {
        self.responded.map(Duration::from)
    }

    /// How long the server took from the request to the head of its response.
    pub(super) fn time_to_response(&self) -> Option<Duration> {
        Some(self.responded()?.saturating_sub(self.asked?.into()))
    }

    /// How long the server took from the request to the end of its response, which is `now`. An
    /// upgraded connection lasts for as long as the client likes, and counts as none.
    pub(super) fn time_to_end(&self, now: Duration) -> Option<Duration> {
        let asked = Duration::from(self.asked?);
        let is_response = self.status? != StatusCode::SWITCHING_PROTOCOLS;
        is_response.then(|| now.saturating_sub(asked))
    }
}

/// A moment in nanoseconds, from 1, so that none takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(NonZeroU64);

impl From<Duration> for Moment {
    fn from(passed: Duration) -> Self {
        let nanoseconds = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanoseconds))
    }
}

impl From<Moment> for Duration {
    fn from(Moment(nanoseconds): Moment) -> Self {
        Self::from_nanos(nanoseconds.get() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn each_request_has_room_for_it() {
        assert!(size_of::<Progress>() <= 80, "{}", size_of::<Progress>());
    }

    #[test]
    fn an_attempt_is_timed_from_its_connection_to_its_response() {
        let mut progress = Progress::default();
        progress.begin_attempt(Duration::ZERO);
        progress.last.record_connected(ms(2), false);
        assert_eq!(progress.last.time_to_end(ms(9)), None, "no response");
        progress.last.record_response(ms(5), None, StatusCode::OK);
        assert_eq!(progress.last.opened(), Some(ms(2)));
        assert_eq!(progress.last.responded(), Some(ms(5)));
        assert_eq!(progress.last.time_to_response(), Some(ms(3)));
        assert_eq!(progress.last.time_to_end(ms(9)), Some(ms(7)));
        // The next one has nothing of it.
        progress.begin_attempt(ms(10));
        assert_eq!((progress.last.number, progress.last.began()), (2, ms(10)));
        assert_eq!(progress.last.responded(), None);
        assert_eq!(progress.last.time_to_end(ms(11)), None);
        progress.last.record_connected(ms(12), true);
        assert_eq!(progress.last.opened(), None);
        let upgraded = StatusCode::SWITCHING_PROTOCOLS;
        progress.last.record_response(ms(13), None, upgraded);
        assert_eq!(progress.last.time_to_response(), Some(ms(1)));
        assert_eq!(progress.last.time_to_end(ms(14)), None);
    }

    #[test]
    fn what_a_client_takes_to_send_is_not_the_time_of_the_server() {
        let mut progress = Progress::default();
        progress.begin_attempt(ms(1));
        progress.last.record_connected(ms(2), false);
        progress
            .last
            .record_response(ms(900), Some(ms(890)), StatusCode::OK);
        assert_eq!(progress.last.time_to_response(), Some(ms(10)));
        assert_eq!(progress.last.time_to_end(ms(950)), Some(ms(60)));
    }
}
