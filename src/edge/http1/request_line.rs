//! The request line (RFC 9112, section 3), and what can be read of one that is refused.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use http::StatusCode;

use crate::edge::refusal::{CONNECT, Refusal, bad};
use crate::field::is_token;
use crate::proxy::is_well_formed;

/// The longest request line in bytes.
pub(in crate::edge) const MAX_REQUEST_LINE: usize = 16 * 1024;

/// The longest method.
pub(super) const MAX_METHOD: usize = 32;

/// The empty line that a client may send before a request (RFC 9112, section 2.2).
pub(super) const EMPTY_LINE: &[u8] = b"\r\n";

/// A request line that was found valid.
#[derive(Debug)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    /// Whether its version is 1.0.
    pub(super) http_10: bool,
}

impl<'a> RequestLine<'a> {
    /// Reads `METHOD SP TARGET SP HTTP/1.x`.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("the request line is not 'METHOD TARGET HTTP/1.1'"));
        };
        if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
            return Err(bad("the method is not a token"));
        }
        if method.len() > MAX_METHOD {
            return Err(bad("the method is too long"));
        }
        let http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                // 505 would be the right status, but a client's mistake must not count as a 5xx.
                return Err(bad("this HTTP version is not spoken here"));
            }
            _ => return Err(bad("the request line is not 'METHOD TARGET HTTP/1.1'")),
        };
        let refused = |status, reason| Err(Refusal { status, reason });
        match method {
            b"CONNECT" => return Err(CONNECT),
            b"TRACE" => {
                return refused(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not served here");
            }
            _ => {}
        }
        let form_is_known = match target {
            [b'/', ..] => true,
            b"*" => method == b"OPTIONS",
            _ => authority(target).is_some(),
        };
        if !form_is_known || !is_well_formed(target) {
            return Err(bad("the request target is malformed"));
        }
        Ok(Self {
            method,
            target,
            http_10,
        })
    }
}

/// Whether the beginning of a request line can still become one.
pub(super) fn looks_like_http(bytes: &[u8]) -> Result<(), Refusal> {
    let method = bytes.split(|&byte| byte == b' ').next().unwrap_or_default();
    if method.len() > MAX_METHOD || !method.iter().all(|&byte| is_token(byte) || byte == b'\r') {
        return Err(bad("this is not HTTP"));
    }
    Ok(())
}

/// A target in absolute form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Absolute {
    pub(super) target: Range<usize>,
    /// Its range within the head, as `target`.
    pub(super) authority: Range<usize>,
    /// Whether the head also has a `Host` field.
    pub(super) has_host: bool,
}

impl Absolute {
    /// Rewrites the head, the first `head` bytes of `bytes`, into origin form, which every server
    /// reads in the same way. The authority becomes that of `Host`.
    pub(super) fn to_origin_form(&self, bytes: &mut BytesMut, head: usize) {
        let old = bytes.split_to(head.min(bytes.len()));
        let part = |range: Range<usize>| old.get(range).unwrap_or_default();
        let path = part(self.authority.end..self.target.end);
        let mut new = BytesMut::with_capacity(old.len() + bytes.len());
        new.put_slice(part(0..self.target.start));
        if !path.starts_with(b"/") {
            new.put_u8(b'/');
        }
        new.put_slice(path);
        let rest = part(self.target.end..old.len());
        let line = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let (line, fields) = rest.split_at_checked(line).unwrap_or((rest, &[]));
        new.put_slice(line);
        if !self.has_host {
            new.put_slice(b"Host: ");
            new.put_slice(part(self.authority.clone()));
            new.put_slice(b"\r\n");
        }
        new.put_slice(fields);
        new.put_slice(bytes);
        *bytes = new;
    }
}

/// The authority and the default port of a target in absolute form, `http://host/path` (RFC 9112,
/// section 3.2.2).
pub(super) fn authority(target: &[u8]) -> Option<(&[u8], u16)> {
    let (rest, port) =
        [("http://", 80), ("https://", 443)]
            .into_iter()
            .find_map(|(scheme, port)| {
                let (begin, rest) = target.split_at_checked(scheme.len())?;
                let is = begin.eq_ignore_ascii_case(scheme.as_bytes());
                is.then_some((rest, port))
            })?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let authority = rest.get(..end.unwrap_or(rest.len()))?;
    (!authority.is_empty()).then_some((authority, port))
}

/// What can be read of the request line of a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoughLine<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a [u8],
    pub(super) version: &'static str,
}

impl<'a> RoughLine<'a> {
    /// The words of the first line in `bytes`, `-` for each that is missing.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_prefix(EMPTY_LINE).unwrap_or(bytes);
        let line = bytes
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .next()
            .unwrap_or_default();
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let method = words
            .next()
            .filter(|word| matches!(word.len(), 1..=MAX_METHOD))
            .filter(|word| word.iter().all(|&byte| is_token(byte)))
            .and_then(|word| str::from_utf8(word).ok());
        let target = words.next().filter(|word| !word.is_empty());
        Self {
            method: method.unwrap_or("-"),
            target: method.and(target).unwrap_or(b"-"),
            version: match words.next() {
                Some(b"HTTP/1.1") => "HTTP/1.1",
                Some(b"HTTP/1.0") => "HTTP/1.0",
                _ => "-",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_escaped_is_refused() {
        for target in ["/", "/a%20b", "/\"{}|^\\", "/?`{}|^\\?", "/\u{fc}?\u{2028}"] {
            assert!(is_well_formed(target.as_bytes()), "{target}");
        }
        for target in [
            &b"/<"[..],
            b"/?>",
            b"/`",
            b"/?\"",
            b"/#",
            b"/\x7f",
            b"/\xff",
            b"/?\xc3",
        ] {
            assert!(!is_well_formed(target), "{}", target.escape_ascii());
        }
    }

    #[test]
    fn a_long_method_is_refused_however_it_arrives() {
        for (length, is_good) in [(MAX_METHOD, true), (MAX_METHOD + 1, false)] {
            let line = format!("{} / HTTP/1.1", "M".repeat(length));
            assert_eq!(RequestLine::parse(line.as_bytes()).is_ok(), is_good);
            for end in 0..line.len() {
                let begin = line.as_bytes().get(..end).expect("a part");
                let is_known = end > MAX_METHOD && !is_good;
                assert_eq!(looks_like_http(begin).is_ok(), !is_known, "{end}");
            }
        }
    }

    #[test]
    fn what_can_be_told_of_a_refused_request_is_told() {
        let words = |bytes: &'static [u8]| {
            let line = RoughLine::of(bytes);
            (line.method, line.target, line.version)
        };
        assert_eq!(
            words(b"GET /x HTTP/1.1\r\nHost: a\r\n"),
            ("GET", &b"/x"[..], "HTTP/1.1")
        );
        assert_eq!(
            words(b"\r\nPUT /x y HTTP/1.0\r\n"),
            ("PUT", &b"/x"[..], "-")
        );
        for garbage in [
            &b""[..],
            b"\x16\x03\x01 x y",
            b" / HTTP",
            b"G\"T / HTTP/1.1",
        ] {
            let (method, target, _) = words(garbage);
            assert_eq!((method, target), ("-", &b"-"[..]), "{garbage:?}");
        }
    }
}
