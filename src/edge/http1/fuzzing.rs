//! A target for fuzzing: the head of a request.

#![allow(clippy::panic, reason = "a target fails by a panic")]

use bytes::BytesMut;

use super::head::{Body, Head, MAX_FIELDS, parse};
use super::request_line::RoughLine;
use crate::field::is_token;
use crate::proxy::Fields;

/// What a head may have.
const MAX: usize = 64 * 1024;

/// The head of a request.
///
/// # Panics
/// If it depends on how the octets arrive, if another parser reads another request, or if a head in
/// origin form is another request.
pub(crate) fn request_head(octets: &[u8]) {
    // Never fails: it is for the log.
    _ = RoughLine::of(octets);
    let whole = parse(octets, MAX);
    for end in 0..octets.len().min(1024) {
        let begin = octets.get(..end).unwrap_or_default();
        match (parse(begin, MAX), &whole) {
            (Ok(None), _) => {
                let is_whole = matches!(&whole, Ok(Some(head)) if head.len <= end);
                assert!(!is_whole, "{end} octets are a head");
            }
            (Ok(Some(head)), Ok(Some(whole))) => assert_eq!(head, *whole),
            (Err(_), Err(_)) => {}
            (begin, _) => panic!("{begin:?} after {end} octets, and then {whole:?}"),
        }
    }
    let Ok(Some(head)) = whole else {
        return;
    };
    check_head(octets.get(..head.len).unwrap_or_default(), &head);
    if let Some(absolute) = &head.absolute {
        let mut rewritten = BytesMut::from(octets);
        absolute.to_origin_form(&mut rewritten, head.len);
        let again = parse(&rewritten, usize::MAX);
        let Ok(Some(again)) = again else {
            panic!("{again:?} in origin form");
        };
        assert_eq!(again.absolute, None);
        assert_eq!(rewritten.get(again.ranges.target.start), Some(&b'/'));
        let kept = |head: &Head| (head.body, head.http_10, head.keeps_connection, head.expects);
        assert_eq!(kept(&again), kept(&head));
        assert_eq!(
            octets.get(head.len..),
            rewritten.get(again.len..),
            "what follows"
        );
        check_head(rewritten.get(..again.len).unwrap_or_default(), &again);
    }
}

/// Checks that others read the same.
fn check_head(octets: &[u8], head: &Head) {
    let text = octets.escape_ascii();
    let is_bare = |pair: &[u8]| {
        let is_end = pair == b"\r\n";
        (pair.first() == Some(&b'\r') || pair.get(1) == Some(&b'\n')) && !is_end
    };
    assert!(octets.ends_with(b"\r\n\r\n"), "{text}");
    assert!(
        !octets.windows(2).any(is_bare) && !octets.contains(&0),
        "{text}"
    );

    let mut space = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut other = httparse::Request::new(&mut space);
    let parsed = other.parse(octets);
    assert_eq!(
        parsed,
        Ok(httparse::Status::Complete(octets.len())),
        "{text}"
    );
    let part = |range: &std::ops::Range<usize>| octets.get(range.clone());
    assert_eq!(part(&head.ranges.method), other.method.map(str::as_bytes));
    assert_eq!(part(&head.ranges.target), other.path.map(str::as_bytes));
    assert_eq!(other.version, Some(u8::from(!head.http_10)));

    let fields: Vec<_> = other.headers.iter().collect();
    let ours: Vec<_> = Fields::Lines(octets).iter().collect();
    let theirs: Vec<_> = fields
        .iter()
        .map(|field| (field.name.as_bytes(), field.value.trim_ascii()))
        .collect();
    assert_eq!(ours, theirs, "{text}");
    assert!(
        theirs
            .iter()
            .all(|(name, _)| name.iter().copied().all(is_token))
    );

    let values = |name: &str| -> Vec<&[u8]> {
        let is = |field: &&&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        let found = fields.iter().filter(is);
        found.map(|field| field.value.trim_ascii()).collect()
    };
    let hosts = values("host");
    assert!(
        hosts.len() == 1 || (head.http_10 && hosts.is_empty()),
        "{text}"
    );
    assert_eq!(part(&head.ranges.host).unwrap_or_default(), hosts.concat());
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "{text}");
    let declared = lengths.first().map(|value| {
        str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
    });
    match head.body {
        Body::Chunked => assert!(codings.concat().eq_ignore_ascii_case(b"chunked"), "{text}"),
        Body::Length(length) => {
            assert!(codings.is_empty(), "{text}");
            assert_eq!(declared.unwrap_or(Some(0)), Some(length), "{text}");
        }
        Body::Upgrade => {
            assert!(codings.is_empty(), "{text}");
            assert_eq!(declared.unwrap_or(Some(0)), Some(0), "{text}");
            assert_eq!(part(&head.ranges.method), Some(&b"GET"[..]));
        }
    }
}
