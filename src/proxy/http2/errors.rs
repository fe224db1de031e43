//! What an error of a stream to a server means.

use h2::Reason;
use pingora_core::{Error, ErrorType};

/// Whether the server has not processed the request: it has refused the stream, or ended the
/// connection before it. Then any request may be sent again (RFC 9113, section 8.7).
pub(in crate::proxy) fn is_unprocessed(error: &h2::Error) -> bool {
    // After GOAWAY, h2 fails so the streams above the last one that the server names.
    let is_left_out = error.is_go_away();
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (is_left_out || is_refused)
}

/// The error of a request whose stream has failed. Its type says whether the connection has died, as
/// over HTTP/1.
pub(in crate::proxy) fn stream_error(error: h2::Error, why: &'static str) -> Box<Error> {
    let kind = if error.is_io() || error.is_go_away() || is_unprocessed(&error) {
        ErrorType::ConnectionClosed
    } else if error.is_library() {
        ErrorType::InvalidHTTPHeader
    } else {
        ErrorType::H2Error
    };
    Error::because(kind, why, error).into_up()
}
