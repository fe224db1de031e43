//! What a failure means: who is to blame, and what the client gets.

use std::fmt;
use std::io;

use http::StatusCode;
use pingora_core::{Error, ErrorSource, ErrorType};

/// The status in logs and metrics for a client that went away. It is never sent.
pub(crate) const CLIENT_GONE: u16 = 499;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client did something wrong: nobody has to act.
    Client(StatusCode, &'static str),
    /// The client went away: there is nobody to respond to.
    Gone,
    /// A defect of the gateway, or a lack of resources.
    Gateway(StatusCode, &'static str),
    /// An upstream failed.
    Upstream(StatusCode, &'static str),
}

impl Failure {
    /// Interprets Pingora's error.
    ///
    /// `body_complete` says whether the whole request body had arrived: an upstream that waits for
    /// a body is not to blame for its silence.
    pub(crate) fn of(error: &Error, body_complete: bool) -> Self {
        use ErrorType as E;
        match (error.esource(), error.etype()) {
            (_, E::HTTPStatus(code)) => match StatusCode::from_u16(*code) {
                Ok(status @ (StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)) => {
                    Self::Upstream(status, "The server behind this gateway is not available.")
                }
                Ok(status @ StatusCode::SERVICE_UNAVAILABLE) => Self::Upstream(
                    status,
                    "The gateway cannot connect to the server behind it just now.",
                ),
                Ok(status @ StatusCode::PAYLOAD_TOO_LARGE) => {
                    Self::Client(status, "The request's body is larger than allowed here.")
                }
                Ok(status) if status.is_client_error() => {
                    Self::Client(status, "The request cannot be served.")
                }
                Ok(status) => Self::Gateway(status, "The gateway failed."),
                Err(_) => Self::internal(),
            },
            (ErrorSource::Upstream, E::ReadTimedout) if !body_complete => Self::Client(
                StatusCode::REQUEST_TIMEOUT,
                "The request's body did not arrive in time.",
            ),
            (
                ErrorSource::Upstream,
                E::ConnectTimedout | E::TLSHandshakeTimedout | E::ReadTimedout | E::WriteTimedout,
            ) => Self::Upstream(
                StatusCode::GATEWAY_TIMEOUT,
                "The server behind this gateway did not respond in time.",
            ),
            (
                ErrorSource::Upstream,
                E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::SocketError,
            ) => Self::Upstream(
                StatusCode::BAD_GATEWAY,
                "The server behind this gateway cannot be reached.",
            ),
            (ErrorSource::Upstream, E::InvalidCert | E::TLSHandshakeFailure) => Self::Upstream(
                StatusCode::BAD_GATEWAY,
                "The server behind this gateway could not be trusted.",
            ),
            (ErrorSource::Upstream, _) => Self::Upstream(
                StatusCode::BAD_GATEWAY,
                "The server behind this gateway sent an invalid response.",
            ),
            (ErrorSource::Downstream, E::ReadTimedout) => Self::Client(
                StatusCode::REQUEST_TIMEOUT,
                "The request's body did not arrive in time.",
            ),
            (ErrorSource::Downstream, E::ReadError) => match edge_error_kind(error) {
                Some(io::ErrorKind::TimedOut) => Self::Client(
                    StatusCode::REQUEST_TIMEOUT,
                    "The request's body arrived too slowly.",
                ),
                Some(io::ErrorKind::InvalidData) => Self::Client(
                    StatusCode::BAD_REQUEST,
                    "The request's body is not valid HTTP.",
                ),
                _ => Self::Gone,
            },
            // The edge passes on nothing after a message, except what follows the request for an
            // upgrade, and Pingora reports that so.
            (ErrorSource::Downstream, E::ConnectError) => Self::Client(
                StatusCode::BAD_REQUEST,
                "Nothing may be sent until the upgrade is granted.",
            ),
            (
                ErrorSource::Downstream,
                E::ConnectionClosed | E::WriteError | E::WriteTimedout | E::H2Error,
            ) => Self::Gone,
            (ErrorSource::Downstream, _) => {
                Self::Client(StatusCode::BAD_REQUEST, "The request is not valid HTTP.")
            }
            // Pipes connect the two halves of an exchange. A broken one only says that the other
            // half has ended, as when the client goes away.
            (ErrorSource::Internal | ErrorSource::Unset, _) => Self::internal(),
        }
    }

    /// The status for the client, `None` if it is gone.
    pub(crate) fn response_status(self) -> Option<(StatusCode, &'static str)> {
        match self {
            Self::Client(status, why)
            | Self::Gateway(status, why)
            | Self::Upstream(status, why) => Some((status, why)),
            Self::Gone => None,
        }
    }

    const fn internal() -> Self {
        Self::Gateway(StatusCode::INTERNAL_SERVER_ERROR, "The gateway failed.")
    }
}

/// An error as it is logged: without what Pingora quotes of a message that it cannot parse, which
/// may contain cookies and bodies.
pub(crate) struct ErrorSummary<'a>(pub(crate) &'a Error);

impl fmt::Display for ErrorSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = self.0;
        f.write_str(error.esource().as_str())?;
        loop {
            write!(f, " {}", error.etype().as_str())?;
            let context = error.context.as_ref().map(|context| context.as_str());
            if let Some(context) = context.filter(|context| !context.starts_with("buf: ")) {
                write!(f, " context: {context}")?;
            }
            let Some(cause) = &error.cause else {
                return Ok(());
            };
            match cause.downcast_ref::<Box<Error>>() {
                Some(inner) => error = inner,
                None => return write!(f, " cause: {cause}"),
            }
            f.write_str(" cause:")?;
        }
    }
}

/// Whether a connection could not be opened because this process lacks a resource of the system:
/// descriptors, ports or memory.
pub(crate) fn is_out_of_resources(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    matches!(
        cause.and_then(io::Error::raw_os_error),
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Why the edge, not the system, ended a read: it checks bodies of HTTP/1.
fn edge_error_kind(error: &Error) -> Option<io::ErrorKind> {
    let cause = error.root_cause().downcast_ref::<io::Error>()?;
    cause.raw_os_error().is_none().then(|| cause.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    use ErrorType as E;

    fn status(error: &Error, body_complete: bool) -> Option<u16> {
        Failure::of(error, body_complete)
            .response_status()
            .map(|(status, _)| status.as_u16())
    }

    #[test]
    fn upstream_faults_are_5xx() {
        use ErrorType as E;
        for (etype, code) in [
            (E::ConnectRefused, 502),
            (E::ConnectNoRoute, 502),
            (E::ConnectTimedout, 504),
            (E::TLSHandshakeTimedout, 504),
            (E::TLSHandshakeFailure, 502),
            (E::InvalidCert, 502),
            (E::ConnectionClosed, 502),
            (E::ReadError, 502),
            (E::WriteError, 502),
            (E::ReadTimedout, 504),
            (E::WriteTimedout, 504),
            (E::InvalidHTTPHeader, 502),
        ] {
            assert_eq!(
                status(&Error::new_up(etype.clone()), true),
                Some(code),
                "{etype:?}"
            );
        }
    }

    #[test]
    fn client_faults_are_never_5xx() {
        use ErrorType as E;
        assert_eq!(
            status(&Error::new_down(E::InvalidHTTPHeader), false),
            Some(400)
        );
        assert_eq!(
            status(&Error::new_down(E::Custom("InvalidChunk")), false),
            Some(400)
        );
        assert_eq!(status(&Error::new_down(E::ReadTimedout), false), Some(408));
        assert_eq!(status(&Error::new_up(E::ReadTimedout), false), Some(408));
        assert_eq!(status(&Error::new_down(E::ConnectError), true), Some(400));
        for gone in [E::ConnectionClosed, E::ReadError, E::WriteError, E::H2Error] {
            assert_eq!(status(&Error::new_down(gone), true), None);
        }
    }

    #[test]
    fn the_log_quotes_nothing_of_a_message() {
        let cause = io::Error::other("invalid header name");
        let quoting = Error::because(E::InvalidHTTPHeader, "buf: Set-Cookie: secret", cause);
        let error = quoting.more_context("while reading the head").into_up();
        assert_eq!(
            ErrorSummary(&error).to_string(),
            "Upstream InvalidHTTPHeader context: while reading the head cause: \
             InvalidHTTPHeader cause: invalid header name"
        );
    }

    #[test]
    fn what_the_edge_refuses_to_read_is_told_to_the_client() {
        let error = |kind| {
            let cause = io::Error::new(kind, "as the edge has it");
            Error::because(ErrorType::ReadError, "reading", cause)
                .more_context("again")
                .into_down()
        };
        assert_eq!(status(&error(io::ErrorKind::TimedOut), false), Some(408));
        assert_eq!(status(&error(io::ErrorKind::InvalidData), false), Some(400));
        assert_eq!(status(&error(io::ErrorKind::ConnectionReset), false), None);
    }
}
