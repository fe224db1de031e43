//! A target for fuzzing: the head of a response.

#![allow(clippy::panic, reason = "a target fails by a panic")]

use http::{HeaderValue, StatusCode};

use super::{Asked, Body, parse_head, unfold_lines};
use crate::field::{is_hop_by_hop, is_token};
use crate::proxy::response_fields::ResponseFields;

/// What can be said of a head.
type Seen = (usize, StatusCode, Body, bool);

/// The head of a response. The first octet says what was asked.
///
/// # Panics
/// If it depends on how the octets arrive, if the client gets what it could read in another way, or
/// if the body is framed by what the head does not say.
pub(crate) fn response_head(octets: &[u8]) {
    let Some((&flags, octets)) = octets.split_first() else {
        return;
    };
    let request_id = HeaderValue::from_static("00ff");
    let asked = Asked {
        head_alone: flags & 1 != 0,
        upgrade: flags & 2 != 0,
        expects: flags & 4 != 0,
        gateway: ResponseFields::of_request(&request_id),
        replacements: None,
        trailers: None,
    };
    let whole = read(octets, asked);
    for end in 0..octets.len().min(512) {
        match (read(octets.get(..end).unwrap_or_default(), asked), whole) {
            (Some(None), Some(Some((len, ..)))) => assert!(end < len, "{end} octets are a head"),
            (Some(None), _) | (None, None) => {}
            (begin, whole) => assert_eq!(begin, whole, "after {end} octets"),
        }
    }

    let mut unfolded = octets.to_vec();
    if unfold_lines(&mut unfolded) {
        assert!(!unfold_lines(&mut unfolded), "something is left to unfold");
        read(&unfolded, asked);
    }
}

/// Reads a head: `None` if it is refused, `Some(None)` if octets are missing.
fn read(octets: &[u8], asked: Asked<'_>) -> Option<Option<Seen>> {
    let mut lines = Vec::new();
    let parsed = parse_head(octets, asked, |head| {
        lines.extend(head.reason.bytes());
        for (name, value) in head.fields() {
            assert!(!name.is_empty() && name.iter().copied().all(is_token));
            assert!(
                !is_hop_by_hop(name) || head.status == StatusCode::SWITCHING_PROTOCOLS,
                "{} belongs to the server's connection",
                name.escape_ascii()
            );
            assert!(!name.eq_ignore_ascii_case(b"content-length"));
            lines.extend(value);
        }
        Ok(())
    });
    let parsed = match parsed {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Some(None),
        Err(_) => return None,
    };
    let is_control = |octet: &u8| matches!(octet, 0..b' ' | 0x7f) && *octet != b'\t';
    let found = lines.iter().find(|octet| is_control(octet));
    assert_eq!(found, None, "a control character reaches the client");
    let head = octets.get(..parsed.len).unwrap_or_default();
    assert_eq!(head.len(), parsed.len, "it takes what is not there");
    check_body(head, asked, parsed.status, parsed.body, parsed.is_kept);
    Some(Some((
        parsed.len,
        parsed.status,
        parsed.body,
        parsed.is_kept,
    )))
}

/// Checks how a body is framed against the fields of the head.
fn check_body(head: &[u8], asked: Asked<'_>, status: StatusCode, body: Body, is_kept: bool) {
    let values = |name: &[u8]| -> Vec<Vec<u8>> {
        let lines = head.split(|&octet| octet == b'\n').skip(1);
        let fields = lines.filter_map(|line| line.split_at_checked(memchr::memchr(b':', line)?));
        let found = fields.filter(|(found, _)| found.trim_ascii().eq_ignore_ascii_case(name));
        found
            .map(|(_, value)| value.get(1..).unwrap_or_default().trim_ascii().to_vec())
            .collect()
    };
    let text = head.escape_ascii();
    let is_chunked = !values(b"transfer-encoding").is_empty();
    let is_bodiless = asked.head_alone || matches!(status.as_u16(), 100..=199 | 204 | 304);
    match body {
        Body::Tunnel => assert!(asked.upgrade && status == 101, "{text}"),
        Body::None(_) => assert!(is_bodiless && status != 101, "{text}"),
        Body::Chunked => assert!(is_chunked && !is_bodiless, "{text}"),
        Body::Length(length) => {
            assert!(!is_chunked && !is_bodiless, "{text}");
            let lengths = values(b"content-length");
            let [value] = &*lengths else {
                panic!("several lengths: {text}");
            };
            let value = str::from_utf8(value).unwrap_or_default();
            assert_eq!(value.parse(), Ok(length), "{text}");
        }
        Body::UntilClose => {
            assert!(!is_chunked && !is_bodiless && !is_kept, "{text}");
            assert_eq!(values(b"content-length").len(), 0, "{text}");
        }
        Body::Empty => panic!("only HTTP/2 has it: {text}"),
    }
}
