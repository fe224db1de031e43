//! When a request is sent to another server.

use http::StatusCode;

/// When and how often a request is retried at another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often.
    pub attempts: u32,
    /// After what.
    pub on: RetryCauses,
    /// The share of its upstream's requests that may be retries, in percent.
    pub budget: u32,
}

/// What a request is retried after.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum RetryCause {
    /// No connection could be opened: the request has reached no server.
    Connect,
    /// The connection ended before the response.
    Reset,
    /// The response did not begin in time.
    Timeout,
    /// The response has this status, 502, 503 or 504.
    Status(StatusCode),
}

/// A set of causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryCauses(u8);

impl Retries {
    /// So many retries, under the conditions that hold by default.
    pub fn new(attempts: u32) -> Self {
        Self {
            attempts,
            on: RetryCauses::default()
                .with(RetryCause::Connect)
                .with(RetryCause::Reset),
            budget: 20,
        }
    }
}

impl RetryCauses {
    /// These and one more.
    #[must_use]
    pub fn with(self, cause: RetryCause) -> Self {
        Self(self.0 | bit(cause))
    }

    pub fn contains(self, cause: RetryCause) -> bool {
        self.0 & bit(cause) != 0
    }

    /// Whether there are statuses among them.
    pub fn has_statuses(self) -> bool {
        self.0 & STATUSES != 0
    }
}

/// The bits of statuses.
const STATUSES: u8 = 0b11_1000;

fn bit(cause: RetryCause) -> u8 {
    match cause {
        RetryCause::Connect => 0b1,
        RetryCause::Reset => 0b10,
        RetryCause::Timeout => 0b100,
        RetryCause::Status(StatusCode::BAD_GATEWAY) => 0b1000,
        RetryCause::Status(StatusCode::SERVICE_UNAVAILABLE) => 0b1_0000,
        RetryCause::Status(StatusCode::GATEWAY_TIMEOUT) => 0b10_0000,
        RetryCause::Status(_) => 0,
    }
}
