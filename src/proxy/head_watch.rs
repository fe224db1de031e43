//! When the head of a response arrives, and when its request was complete.

use std::time::Instant;

use http::StatusCode;

/// Looks at an exchange after each step, for the head of its response. `F` gets the status once, and
/// when the server had the complete request, if it has waited for that.
pub(crate) struct HeadWatch<F> {
    sent: Option<Instant>,
    /// `None` once there is a response.
    record: Option<F>,
}

impl<F: FnOnce(StatusCode, Option<Instant>)> HeadWatch<F> {
    pub(crate) fn new(record: F) -> Self {
        Self {
            sent: None,
            record: Some(record),
        }
    }

    /// Looks at what a step has brought: whether nothing is left to send, and the status of the
    /// response, if its head is there.
    pub(crate) fn look(&mut self, is_sent: bool, status: Option<StatusCode>) {
        if self.record.is_none() {
            return;
        }
        if let Some(status) = status {
            if let Some(record) = self.record.take() {
                record(status, self.sent);
            }
        } else if is_sent && self.sent.is_none() {
            self.sent = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_recorded_once_and_with_the_time_of_its_request() {
        let mut records = Vec::new();
        let mut watch = HeadWatch::new(|status, sent: Option<Instant>| {
            records.push((status, sent.is_some()));
        });
        watch.look(false, None);
        watch.look(true, None);
        let first = watch.sent;
        watch.look(true, None);
        assert!(
            first.is_some() && watch.sent == first,
            "the first time counts"
        );
        for _ in 0..3 {
            watch.look(true, Some(StatusCode::OK));
        }
        assert_eq!(records, [(StatusCode::OK, true)]);
    }

    #[test]
    fn a_server_may_respond_before_it_has_the_request() {
        let mut records = Vec::new();
        let mut watch = HeadWatch::new(|status, sent: Option<Instant>| {
            records.push((status, sent.is_some()));
        });
        watch.look(false, None);
        watch.look(false, Some(StatusCode::PAYLOAD_TOO_LARGE));
        watch.look(true, Some(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(records, [(StatusCode::PAYLOAD_TOO_LARGE, false)]);
    }
}
