//! Requests that are not served, and why.

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
        match self {
            Self::Invalid(..) => "invalid",
            Self::Misdirected => "misdirected",
            Self::Outdated => "outdated",
            Self::UnknownHost => "unknown_host",
            Self::NoRoute => "no_route",
            Self::Method => "method",
            Self::AmbiguousPath => "ambiguous_path",
            Self::Unfit(_) => "unfit",
            Self::NoRoom => "no_room",
            Self::NoCertificate => "no_certificate",
            Self::BodyTooLarge => "body_too_large",
            Self::TooManyFiles => "too_many_files",
            Self::Maintenance(_) => "maintenance",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::Token(Fault::NoKeys) => "jwt_keys",
            Self::Token(Fault::Expired) => "jwt_expired",
            Self::Token(Fault::Claims) => "jwt_claims",
            Self::Token(_) => "jwt",
            Self::TooManyGuesses => "too_many_guesses",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
            Self::RateLimited(..) => "rate_limited",
            Self::SiteFull => "site_full",
        }
    }
}

/// Counts requests that are refused, except those that a site has nothing for.
#[derive(Clone)]
pub(super) struct RefusalCounters {
    invalid: IntCounter,
    misdirected: IntCounter,
    unknown_host: IntCounter,
    no_room: IntCounter,
    too_many_files: IntCounter,
    forbidden: IntCounter,
    unauthorized: IntCounter,
    too_many_guesses: IntCounter,
    jwt: IntCounter,
    jwt_expired: IntCounter,
    jwt_claims: IntCounter,
    jwt_keys: IntCounter,
    no_certificate: IntCounter,
    denied: IntCounter,
    undecided: IntCounter,
    rate_limited: IntCounter,
    site_full: IntCounter,
}

impl RefusalCounters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let refused = |refusal: Refusal| metrics.refused.with_label_values(&[refusal.reason()]);
        Self {
            invalid: refused(Refusal::Invalid(StatusCode::BAD_REQUEST, "")),
            misdirected: refused(Refusal::Misdirected),
            unknown_host: refused(Refusal::UnknownHost),
            no_room: refused(Refusal::NoRoom),
            forbidden: refused(Refusal::Forbidden),
            unauthorized: refused(Refusal::Unauthorized),
            too_many_guesses: refused(Refusal::TooManyGuesses),
            jwt: refused(Refusal::Token(Fault::Missing)),
            jwt_expired: refused(Refusal::Token(Fault::Expired)),
            jwt_claims: refused(Refusal::Token(Fault::Claims)),
            jwt_keys: refused(Refusal::Token(Fault::NoKeys)),
            denied: refused(Refusal::Denied),
            undecided: refused(Refusal::Undecided),
            rate_limited: refused(Refusal::RateLimited(None, Exceeded(0))),
            site_full: refused(Refusal::SiteFull),
            too_many_files: refused(Refusal::TooManyFiles),
            no_certificate: refused(Refusal::NoCertificate),
        }
    }

    pub(super) fn count(&self, refusal: Refusal) {
        match refusal {
            Refusal::Invalid(..) => self.invalid.inc(),
            Refusal::Misdirected | Refusal::Outdated => self.misdirected.inc(),
            Refusal::UnknownHost => self.unknown_host.inc(),
            Refusal::NoRoom => self.no_room.inc(),
            Refusal::TooManyFiles => self.too_many_files.inc(),
            Refusal::Forbidden => self.forbidden.inc(),
            Refusal::Unauthorized => self.unauthorized.inc(),
            Refusal::TooManyGuesses => self.too_many_guesses.inc(),
            Refusal::Token(Fault::NoKeys) => self.jwt_keys.inc(),
            Refusal::Token(Fault::Expired) => self.jwt_expired.inc(),
            Refusal::Token(Fault::Claims) => self.jwt_claims.inc(),
            Refusal::Token(_) => self.jwt.inc(),
            Refusal::NoCertificate => self.no_certificate.inc(),
            Refusal::Denied => self.denied.inc(),
            Refusal::Undecided => self.undecided.inc(),
            Refusal::RateLimited(..) => self.rate_limited.inc(),
            Refusal::SiteFull => self.site_full.inc(),
            // Counted as responses of the site.
            Refusal::NoRoute
            | Refusal::Method
            | Refusal::AmbiguousPath
            | Refusal::Unfit(_)
            | Refusal::BodyTooLarge
            | Refusal::Maintenance(_) => {}
        }
    }
}
