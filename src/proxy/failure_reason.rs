//! Why requests fail after they were accepted, in words for the metrics.

use std::sync::Arc;

use http::StatusCode;
use pingora_core::{Error, ErrorType};
use prometheus::IntCounter;

use super::failure::Failure;
use crate::metrics::Metrics;

/// Why a request has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureReason {
    /// The client went away before it had the response.
    ClientGone,
    /// The request's body came too late.
    BodyTimeout,
    BodyTooLarge,
    /// The request's body is not valid.
    InvalidBody,
    ConnectFailed,
    ConnectTimeout,
    /// No TLS connection with the server that can be trusted.
    Untrusted,
    /// The server has closed its connection before the response was complete.
    Reset,
    /// The server did not respond in time.
    Timeout,
    InvalidResponse,
    /// The addresses of the servers are unknown.
    Unresolved,
    /// There is no room at the servers, or all are drained, or the gateway has no port or file
    /// descriptor left for a connection.
    Unavailable,
    /// A defect of the gateway, or a lack of memory.
    Gateway,
}

/// The words, in the order of the reasons.
const WORDS: [&str; 13] = [
    "client_gone",
    "body_timeout",
    "body_too_large",
    "invalid_body",
    "connect_failed",
    "connect_timeout",
    "untrusted",
    "reset",
    "timeout",
    "invalid_response",
    "unresolved",
    "unavailable",
    "gateway",
];

impl FailureReason {
    /// The reason for `failure`, which `error` has caused.
    pub(crate) fn of(failure: Failure, error: &Error) -> Self {
        match failure {
            Failure::Gone => Self::ClientGone,
            Failure::Client(StatusCode::REQUEST_TIMEOUT, _) => Self::BodyTimeout,
            Failure::Client(StatusCode::PAYLOAD_TOO_LARGE, _) => Self::BodyTooLarge,
            Failure::Client(..) => Self::InvalidBody,
            Failure::Gateway(..) => Self::Gateway,
            Failure::Upstream(StatusCode::SERVICE_UNAVAILABLE, _) => Self::Unavailable,
            Failure::Upstream(..) => Self::of_server(error.etype()),
        }
    }

    /// The reason as a word.
    pub(crate) fn word(self) -> &'static str {
        WORDS.get(self as usize).copied().unwrap_or_default()
    }

    /// The reason for an error of a server.
    pub(crate) fn of_server(error: &ErrorType) -> Self {
        use ErrorType as E;
        match error {
            E::HTTPStatus(502) => Self::Unresolved,
            E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::SocketError => {
                Self::ConnectFailed
            }
            E::ConnectTimedout | E::TLSHandshakeTimedout => Self::ConnectTimeout,
            E::InvalidCert | E::TLSHandshakeFailure => Self::Untrusted,
            E::HTTPStatus(_) | E::ReadTimedout | E::WriteTimedout => Self::Timeout,
            E::ConnectionClosed | E::ReadError | E::WriteError => Self::Reset,
            _ => Self::InvalidResponse,
        }
    }
}

/// Counts requests that have failed.
#[derive(Clone)]
pub(super) struct FailureCounters(Arc<[IntCounter]>);

impl FailureCounters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |word| metrics.failed.with_label_values(&[word]);
        Self(WORDS.into_iter().map(counter).collect())
    }

    pub(super) fn count(&self, reason: FailureReason) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(error: &Error) -> &'static str {
        let failure = Failure::of(error, true);
        FailureReason::of(failure, error).word()
    }

    #[test]
    fn each_failure_of_a_server_has_its_word() {
        use ErrorType as E;
        for (etype, expected) in [
            (E::ConnectRefused, "connect_failed"),
            (E::ConnectTimedout, "connect_timeout"),
            (E::TLSHandshakeTimedout, "connect_timeout"),
            (E::InvalidCert, "untrusted"),
            (E::ReadTimedout, "timeout"),
            (E::ConnectionClosed, "reset"),
            (E::InvalidHTTPHeader, "invalid_response"),
            (E::HTTPStatus(502), "unresolved"),
            (E::HTTPStatus(503), "unavailable"),
            (E::HTTPStatus(504), "timeout"),
        ] {
            let error = Error::new_up(etype.clone());
            assert_eq!(word(&error), expected, "{etype:?}");
        }
    }

    #[test]
    fn each_failure_of_a_client_has_its_word() {
        use ErrorType as E;
        for (etype, expected) in [
            (E::ConnectionClosed, "client_gone"),
            (E::ReadTimedout, "body_timeout"),
            (E::HTTPStatus(413), "body_too_large"),
            (E::InvalidHTTPHeader, "invalid_body"),
        ] {
            let error = Error::new_down(etype.clone());
            assert_eq!(word(&error), expected, "{etype:?}");
        }
        assert_eq!(word(&Error::new_in(E::InternalError)), "gateway");
        assert_eq!(WORDS.len(), FailureReason::Gateway as usize + 1);
    }
}
