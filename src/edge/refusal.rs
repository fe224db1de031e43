//! Why a request is refused for its head alone, before it is routed.

use http::StatusCode;

/// Why a request is refused before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// What is wrong, for the client and the log. It never repeats what the client sent.
    pub(super) reason: &'static str,
}

pub(super) const fn bad(reason: &'static str) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        reason,
    }
}

pub(super) const TOO_LARGE: Refusal = Refusal {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    reason: "the request head is too large",
};

pub(super) const LINE_TOO_LONG: Refusal = Refusal {
    status: StatusCode::URI_TOO_LONG,
    reason: "the request line is too long",
};

pub(super) const CONNECT: Refusal = Refusal {
    status: StatusCode::METHOD_NOT_ALLOWED,
    reason: "CONNECT is not served here",
};
