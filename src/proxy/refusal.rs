//! Requests that are not served, and why.

use std::sync::Arc;

use http::StatusCode;
use prometheus::IntCounter;

use super::rate_limit::Exceeded;
use crate::jwt::Fault;
use crate::metrics::Metrics;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request itself breaks a rule: the status, and a sentence for the client.
    Invalid(StatusCode, &'static str),
    /// The host is not served on this connection (RFC 9110, section 15.5.20).
    Misdirected,
    /// The connection is older than what the site now demands of it.
    Outdated,
    UnknownHost,
    NoRoute,
    /// There are routes for the request but for its method (RFC 9110, section 15.5.6).
    Method,
    AmbiguousPath,
    /// What its route makes of the request would not be valid: a sentence for the client.
    Unfit(&'static str),
    /// Too many requests are at upstreams.
    NoRoom,
    /// Too many files are being sent.
    TooManyFiles,
    /// The route is for clients with a certificate.
    NoCertificate,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The site is maintained, or its route at this index.
    Maintenance(Option<usize>),
    /// The client may not have this because of its address.
    Forbidden,
    /// The client is none of the users that may have this.
    Unauthorized,
    /// The request has no token with which it could be served.
    Token(Fault),
    /// The client has sent too many wrong passwords.
    TooManyGuesses,
    /// The service that decides says no. Its response is the client's.
    Denied,
    /// The service that decides does not say.
    Undecided,
    /// There are more requests than the limit of the route at this index allows, or of the site.
    RateLimited(Option<usize>, Exceeded),
    /// As many requests of the site are in progress as may be.
    SiteFull,
}

impl Refusal {
    /// The host is none.
    pub(super) const INVALID_HOST: Self =
        Self::Invalid(StatusCode::BAD_REQUEST, "The host is not valid.");

    /// The status, and a sentence that explains it to the client.
    pub(crate) fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid(status, why) => (status, why),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "This host is not served on this connection.",
            ),
            Self::Outdated => (
                StatusCode::MISDIRECTED_REQUEST,
                "This host now demands a new connection.",
            ),
            Self::UnknownHost => (StatusCode::NOT_FOUND, "No site has this host."),
            Self::NoRoute => (StatusCode::NOT_FOUND, "There is nothing at this path."),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "This method is not allowed here.",
            ),
            Self::AmbiguousPath => (
                StatusCode::BAD_REQUEST,
                "The path can be read in more than one way.",
            ),
            Self::Unfit(why) => (StatusCode::BAD_REQUEST, why),
            Self::NoRoom => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests are waiting for the servers behind this gateway.",
            ),
            Self::TooManyFiles => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway is sending too many files just now.",
            ),
            Self::NoCertificate => (
                StatusCode::FORBIDDEN,
                "A client certificate is required here.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request's body is larger than allowed here.",
            ),
            Self::Maintenance(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The site is under maintenance.",
            ),
            Self::Forbidden => (StatusCode::FORBIDDEN, "You may not have this."),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "A user name and a password are needed here.",
            ),
            Self::Token(fault) => match fault {
                Fault::Missing => (StatusCode::UNAUTHORIZED, "A token is needed here."),
                Fault::Claims => (StatusCode::FORBIDDEN, "The token does not allow this."),
                Fault::NoKeys => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The verification keys are not known.",
                ),
                other => (
                    StatusCode::UNAUTHORIZED,
                    other.description().unwrap_or_default(),
                ),
            },
            Self::TooManyGuesses => (
                StatusCode::TOO_MANY_REQUESTS,
                "There were too many wrong passwords. Try again in a minute.",
            ),
            Self::Denied => (StatusCode::FORBIDDEN, "You may not have this."),
            Self::Undecided => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The service that decides who may have this does not respond.",
            ),
            Self::RateLimited(..) => (
                StatusCode::TOO_MANY_REQUESTS,
                "There were too many requests. Try again later.",
            ),
            Self::SiteFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests are in progress.",
            ),
        }
    }

    /// What the access log has beside the word: what is wrong with the request itself.
    pub(crate) fn detail(self) -> Option<&'static str> {
        match self {
            Self::Invalid(_, why) | Self::Unfit(why) => Some(why),
            Self::Token(fault) => fault.description(),
            _ => None,
        }
    }

    /// A word for the metrics and the access log.
    pub(crate) fn reason(self) -> &'static str {
        REASONS.get(self.kind()).copied().unwrap_or_default()
    }

    /// The place of its word in [`REASONS`].
    fn kind(self) -> usize {
        match self {
            Self::Invalid(..) => 0,
            Self::Misdirected => 1,
            Self::Outdated => 2,
            Self::UnknownHost => 3,
            Self::NoRoute => 4,
            Self::Method => 5,
            Self::AmbiguousPath => 6,
            Self::Unfit(_) => 7,
            Self::NoRoom => 8,
            Self::NoCertificate => 9,
            Self::BodyTooLarge => 10,
            Self::TooManyFiles => 11,
            Self::Maintenance(_) => 12,
            Self::Forbidden => 13,
            Self::Unauthorized => 14,
            Self::Token(Fault::NoKeys) => 15,
            Self::Token(Fault::Expired) => 16,
            Self::Token(Fault::Claims) => 17,
            Self::Token(_) => 18,
            Self::TooManyGuesses => 19,
            Self::Denied => 20,
            Self::Undecided => 21,
            Self::RateLimited(..) => 22,
            Self::SiteFull => 23,
        }
    }
}

/// Why requests are refused, in the order of [`Refusal::kind`].
const REASONS: [&str; 24] = [
    "invalid",
    "misdirected",
    "outdated",
    "unknown_host",
    "no_route",
    "method",
    "ambiguous_path",
    "unfit",
    "no_room",
    "no_certificate",
    "body_too_large",
    "too_many_files",
    "maintenance",
    "forbidden",
    "unauthorized",
    "jwt_keys",
    "jwt_expired",
    "jwt_claims",
    "jwt",
    "too_many_guesses",
    "denied",
    "undecided",
    "rate_limited",
    "site_full",
];

/// Counts requests that are refused, by the word that the access log has for the reason.
#[derive(Clone)]
pub(super) struct RefusalCounters(Arc<[IntCounter]>);

impl RefusalCounters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |reason| metrics.refused.with_label_values(&[reason]);
        Self(REASONS.into_iter().map(counter).collect())
    }

    pub(super) fn count(&self, refusal: Refusal) {
        if let Some(counter) = self.0.get(refusal.kind()) {
            counter.inc();
        }
    }
}
