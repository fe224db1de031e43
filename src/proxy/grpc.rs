//! gRPC, as far as a gateway has to know it: how its clients learn of an error, and by when they want
//! an answer.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora_core::{Error, ErrorType};

use super::request::Fields;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// By how much the gateway lets a request exceed its client's deadline. The client and the server
/// watch it too, and know better what has become of the call.
const SLACK: Duration = Duration::from_millis(500);

/// How a call of gRPC fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    content_type: HeaderValue,
    status: u16,
    message: HeaderValue,
}

impl Failure {
    /// The failure of a request with these `fields` that another client would learn of by `status`;
    /// `None` if it is no call of gRPC.
    pub(crate) fn of(fields: Fields<'_>, status: StatusCode, why: &str) -> Option<Self> {
        let content_type = family(fields.get(&CONTENT_TYPE))?;
        Some(Self {
            content_type: HeaderValue::from_static(content_type),
            status: status_of(status),
            message: encode_message(why),
        })
    }

    /// The fields of the response, which consists of them.
    pub(crate) fn fields(&self) -> [(HeaderName, HeaderValue); 3] {
        [
            (CONTENT_TYPE, self.content_type.clone()),
            (STATUS, HeaderValue::from(self.status)),
            (MESSAGE, self.message.clone()),
        ]
    }

    /// The trailers of a response that has begun.
    pub(crate) fn trailers(self) -> HeaderMap {
        let status = HeaderValue::from(self.status);
        HeaderMap::from_iter([(STATUS, status), (MESSAGE, self.message)])
    }
}

/// Whether a request with these `fields` is a call of gRPC.
pub(crate) fn is_call(fields: Fields<'_>) -> bool {
    family(fields.get(&CONTENT_TYPE)).is_some()
}

/// Whether a message of this type is one of gRPC as it is, whose end is in its trailers. Clients of
/// gRPC-Web look for it in the body.
pub(crate) fn is_native(content_type: Option<&HeaderValue>) -> bool {
    const NATIVE: &[u8] = b"application/grpc";
    let octets = content_type.map_or(&[][..], HeaderValue::as_bytes);
    let Some((name, rest)) = octets.split_at_checked(NATIVE.len()) else {
        return false;
    };
    name.eq_ignore_ascii_case(NATIVE)
        && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// The media type of responses to requests of this type; `None` if it is not one of gRPC.
fn family(content_type: &[u8]) -> Option<&'static str> {
    let begins = |with: &str| {
        let begin = content_type.get(..with.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
    };
    ["application/grpc-web", "application/grpc"]
        .into_iter()
        .find(|family| begins(family))
}

/// The status that a status of HTTP stands for.
fn status_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        // INTERNAL.
        400 => 13,
        // UNAUTHENTICATED.
        401 => 16,
        // PERMISSION_DENIED.
        403 => 7,
        // UNIMPLEMENTED.
        404 => 12,
        // DEADLINE_EXCEEDED.
        408 | 504 => 4,
        // RESOURCE_EXHAUSTED.
        413 => 8,
        // UNAVAILABLE.
        429 | 502 | 503 => 14,
        // UNKNOWN.
        _ => 2,
    }
}

/// A message as it may stand in a field: what is not printable ASCII is percent-encoded, and so is
/// `%`.
fn encode_message(message: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(message.len());
    for octet in message.bytes() {
        match octet {
            b' '..=b'~' if octet != b'%' => encoded.push(char::from(octet)),
            _ => _ = write!(encoded, "%{octet:02X}"),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// How long a request may take for its client; `None` if that does not say.
pub(crate) fn timeout(fields: Fields<'_>) -> Option<Duration> {
    let text = fields.get(&TIMEOUT);
    let (&unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    let timeout = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout + SLACK)
}

/// The error of a request whose client's deadline has passed. No server is to blame for what a
/// client asks for.
pub(crate) fn deadline_error() -> Box<Error> {
    let why = "the request takes longer than its client's deadline";
    Error::explain(ErrorType::HTTPStatus(504), why).into_down()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_field<T>(name: HeaderName, value: &str, read: impl FnOnce(Fields<'_>) -> T) -> T {
        let value = HeaderValue::try_from(value).expect("valid");
        read(Fields::Map(&HeaderMap::from_iter([(name, value)])))
    }

    #[test]
    fn calls_are_known_by_their_content() {
        let family = |content_type: &str| {
            with_field(CONTENT_TYPE, content_type, |fields| {
                let failure = Failure::of(fields, StatusCode::BAD_GATEWAY, "It is down.");
                failure.map(|failure| {
                    let fields = failure.fields();
                    fields.map(|(_, value)| value.to_str().expect("text").to_owned())
                })
            })
        };
        for (asked, responded) in [
            ("application/grpc", "application/grpc"),
            ("Application/gRPC+proto", "application/grpc"),
            ("application/grpc-web-text", "application/grpc-web"),
        ] {
            let expected = [responded, "14", "It is down."].map(str::to_owned);
            assert_eq!(family(asked), Some(expected));
        }
        assert_eq!(family("application/json"), None);
        assert_eq!(family(""), None);
    }

    #[test]
    fn messages_of_grpc_as_it_is_are_told_from_others() {
        let is_native = |content_type| is_native(Some(&HeaderValue::from_static(content_type)));
        for native in [
            "application/grpc",
            "Application/gRPC+proto",
            "application/grpc; charset=utf-8",
        ] {
            assert!(is_native(native), "{native}");
        }
        for other in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "text/html",
            "",
        ] {
            assert!(!is_native(other), "{other}");
        }
        assert!(!super::is_native(None));
    }

    #[test]
    fn statuses_of_http_stand_for_those_of_grpc() {
        for (http, grpc) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (405, 2),
            (408, 4),
            (413, 8),
            (421, 2),
            (429, 14),
            (500, 2),
            (502, 14),
            (503, 14),
            (504, 4),
        ] {
            let status = StatusCode::from_u16(http).expect("a status");
            assert_eq!(status_of(status), grpc, "{http}");
        }
    }

    #[test]
    fn messages_are_printable() {
        assert_eq!(encode_message("100% \u{e4}\r\n~"), "100%25 %C3%A4%0D%0A~");
    }

    #[test]
    fn a_timeout_is_a_number_and_a_unit() {
        let read = |text: &str| with_field(TIMEOUT, text, timeout);
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("250m", Duration::from_millis(250)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text), Some(expected + SLACK), "{text}");
        }
        for bad in ["", "S", "1", "-1S", "1s", "1 S", "123456789S", "1.5S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
