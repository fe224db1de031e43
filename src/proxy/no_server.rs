//! Why a request gets no server of its upstream.

use pingora_core::{Error, ErrorType};

use crate::metrics::UpstreamMetrics;

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

impl NoServer {
    /// Counts a request that gets no server, and returns the error that it fails with.
    pub(super) fn record(self, metrics: &UpstreamMetrics) -> Box<Error> {
        let (count, status, why) = match self {
            Self::Unresolved => (
                &metrics.unresolved,
                502,
                "no server of the upstream has an address yet",
            ),
            Self::Drained => (
                &metrics.drained,
                503,
                "all servers of the upstream are drained",
            ),
            Self::Full => (
                &metrics.full,
                503,
                "all servers of the upstream have as many requests as max_connections allows",
            ),
        };
        count.inc();
        Error::explain(ErrorType::HTTPStatus(status), why).into_up()
    }
}
