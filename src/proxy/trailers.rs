//! Trailers: fields that follow the body of a message. Which of them are passed on, and how they are
//! written in HTTP/1.

use http::header::TRAILER;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_core::{Error, ErrorType};

use super::framing::MAX_TRAILERS;
use super::request::Fields;
use super::rewriting::FieldChanges;
use crate::field::{is_claim, is_trailer};

/// What is said in the head of a request about trailers, and what its route changes.
#[derive(Clone, Copy)]
pub(crate) struct RequestTrailers<'a> {
    pub(crate) fields: Fields<'a>,
    pub(crate) changes: FieldChanges<'a>,
}

impl RequestTrailers<'_> {
    /// What a server gets of a request's trailers; `None` if that is nothing. One of HTTP/1 gets
    /// only those that the request announces: it may take others for fields of the head.
    pub(crate) fn select(self, trailers: HeaderMap, announced_only: bool) -> Option<HeaderMap> {
        select(trailers, |name| {
            !self.changes.drops(name)
                && !is_claim(name)
                && (!announced_only || self.announces(name))
        })
    }

    /// Whether `Trailer` names a field.
    fn announces(self, name: &[u8]) -> bool {
        let is_trailer = |field: &[u8]| field.eq_ignore_ascii_case(TRAILER.as_str().as_bytes());
        let values = self.fields.iter().filter(|(field, _)| is_trailer(field));
        values
            .flat_map(|(_, value)| value.split(|&octet| octet == b','))
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(name))
    }
}

/// The trailers that `keeps` keeps, of those that may be trailers; `None` if there are none.
pub(crate) fn select(mut trailers: HeaderMap, keeps: impl Fn(&[u8]) -> bool) -> Option<HeaderMap> {
    let is_dropped = |name: &&HeaderName| {
        let name = name.as_str().as_bytes();
        !is_trailer(name) || !keeps(name)
    };
    let dropped: Vec<HeaderName> = trailers.keys().filter(is_dropped).cloned().collect();
    for name in dropped {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

/// The trailers in lines of HTTP/1. What is no field is left out.
pub fn parse_trailers(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|&octet| octet == b'\n') {
        let Some(at) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = line.split_at_checked(at).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            // If there are too many, the map is full.
            _ = trailers.try_append(name, value);
        }
    }
    trailers
}

/// The end of a body in chunks, with its trailers.
pub fn write_last_chunk(trailers: &HeaderMap) -> Vec<u8> {
    let mut end = b"0\r\n".to_vec();
    for (name, value) in trailers {
        let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        end.extend(parts.into_iter().flatten());
    }
    end.extend_from_slice(b"\r\n");
    end
}

/// Checks that trailers are no larger than they may be.
///
/// # Errors
/// If they are. Whose error it is, the caller knows.
pub fn check_size(trailers: &HeaderMap) -> Result<(), Box<Error>> {
    let sizes = trailers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    match sizes.sum::<usize>() <= MAX_TRAILERS {
        true => Ok(()),
        false => Err(Error::explain(
            ErrorType::InvalidHTTPHeader,
            "the trailers are too large",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(trailers: Option<HeaderMap>) -> Vec<String> {
        let trailers = trailers.unwrap_or_default();
        trailers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn trailers_are_read_from_lines_and_written_as_lines() {
        let lines = b"X-Sum: 1\r\nbad name: x\r\n: y\r\nnothing\r\nx-sum:  2 \r\nEmpty:\r\n";
        let trailers = parse_trailers(lines);
        let end = "0\r\nx-sum: 1\r\nx-sum: 2\r\nempty: \r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&write_last_chunk(&trailers)), end);
        let none = parse_trailers(b"");
        assert_eq!(write_last_chunk(&none), b"0\r\n\r\n");
    }

    #[test]
    fn what_belongs_to_a_head_is_no_trailer() {
        let lines = b"Content-Length: 9\r\nX-Sum: 1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\
             Authorization: x\r\nConnection: x-sum\r\ngrpc-status: 0\r\n";
        let mut kept = names(select(parse_trailers(lines), |_| true));
        kept.sort_unstable();
        assert_eq!(kept, ["grpc-status", "x-sum"]);
        assert_eq!(select(parse_trailers(b"TE: trailers\r\n"), |_| true), None);
    }

    #[test]
    fn a_server_of_http1_gets_what_was_announced_and_no_claims() {
        let head = b"POST / HTTP/1.1\r\nTrailer: X-Sum, x-real-ip\r\ntrailer:b\r\n\r\n";
        let rules = RequestTrailers {
            fields: Fields::Lines(head),
            changes: FieldChanges::default(),
        };
        let all = || parse_trailers(b"X-Sum: 1\r\nB: 2\r\nC: 3\r\nX-Real-IP: 4\r\n");
        let selected = |announced_only| {
            let mut names = names(rules.select(all(), announced_only));
            names.sort_unstable();
            names
        };
        assert_eq!(selected(true), ["b", "x-sum"]);
        assert_eq!(selected(false), ["b", "c", "x-sum"]);
    }

    #[test]
    fn trailers_have_a_largest_size() {
        let of = |len: usize| {
            let value = HeaderValue::from_bytes(&vec![b'a'; len]).expect("valid");
            HeaderMap::from_iter([(HeaderName::from_static("x"), value)])
        };
        assert!(check_size(&of(MAX_TRAILERS - 5)).is_ok());
        assert!(check_size(&of(MAX_TRAILERS - 4)).is_err());
    }
}
