//! Conditional requests and ranges (RFC 9110, sections 13 and 14).

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderName;
use http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};

use crate::proxy::request::{Fields, Request};

/// The last second that a date of HTTP can be.
const LAST_SECOND: u64 = 253_402_300_799;

/// What a request says of the state of a file, and of the part that it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    if_match: Option<Box<[u8]>>,
    if_unmodified_since: Option<u64>,
    if_none_match: Option<Box<[u8]>>,
    if_modified_since: Option<u64>,
    if_range: Option<Box<[u8]>>,
    range: Option<Box<[u8]>>,
}

/// What identifies the state of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// A strong entity tag, with its quotes.
    pub(crate) etag: String,
    /// In seconds since 1970.
    pub(crate) modified: u64,
}

/// What is sent of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Part(Range<u64>),
    /// The client has it already: 304.
    NotModified,
    /// It is not in the state that the request requires: 412.
    Failed,
    /// It has no such part: 416.
    Unsatisfiable,
}

impl Conditions {
    pub(crate) fn of(request: &Request<'_>) -> Self {
        let get = |name| joined(request.fields, name);
        let date = |name| parse_date(&get(name)?);
        Self {
            if_match: get(&IF_MATCH),
            if_unmodified_since: date(&IF_UNMODIFIED_SINCE),
            if_none_match: get(&IF_NONE_MATCH),
            if_modified_since: date(&IF_MODIFIED_SINCE),
            // Ranges are for GET only.
            if_range: get(&IF_RANGE),
            range: get(&RANGE).filter(|_| request.method == "GET"),
        }
    }

    /// What is sent of a file in this state, with so many octets.
    pub(crate) fn extent(&self, version: &Version, length: u64) -> Extent {
        let has_failed = match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => !names_tag(tags, &version.etag, false),
            (None, Some(date)) => version.modified > date,
            (None, None) => false,
        };
        if has_failed {
            return Extent::Failed;
        }
        let is_known = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => names_tag(tags, &version.etag, true),
            (None, Some(date)) => version.modified <= date,
            (None, None) => false,
        };
        if is_known {
            return Extent::NotModified;
        }
        let is_same = self.if_range.as_deref().is_none_or(|value| {
            let is_date = || parse_date(value) == Some(version.modified);
            value == version.etag.as_bytes() || is_date()
        });
        match self.range.as_deref().filter(|_| is_same) {
            Some(range) => extent_of_range(range, length).unwrap_or(Extent::Whole),
            None => Extent::Whole,
        }
    }
}

/// A date as HTTP writes it.
pub(crate) fn format_date(seconds: u64) -> String {
    let since = Duration::from_secs(seconds.min(LAST_SECOND));
    httpdate::fmt_http_date(UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH))
}

/// When a file was modified, as far as HTTP can say so: not in the future.
pub(crate) fn clamp_modified(seconds: i64, now: i64) -> u64 {
    let seconds = u64::try_from(seconds.min(now)).unwrap_or(0);
    seconds.min(LAST_SECOND)
}

fn parse_date(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// The value of a field, if there is one; several are one list.
fn joined(fields: Fields<'_>, name: &HeaderName) -> Option<Box<[u8]>> {
    let is = |other: &[u8]| other.eq_ignore_ascii_case(name.as_str().as_bytes());
    let mut values = fields.iter().filter(|(name, _)| is(name));
    let (_, first) = values.next()?;
    let mut all = first.to_vec();
    for (_, value) in values {
        all.extend_from_slice(b", ");
        all.extend_from_slice(value);
    }
    Some(all.into())
}

/// Whether a list names an entity tag, or any by `*`. Weak ones are only compared if `weakly`.
fn names_tag(list: &[u8], etag: &str, weakly: bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        rest = rest.trim_ascii_start();
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
        let (is_weak, tag) = match rest.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let Some(inner) = tag.strip_prefix(b"\"") else {
            return false;
        };
        let Some(length) = memchr::memchr(b'"', inner) else {
            return false;
        };
        let (tag, after) = tag.split_at_checked(length + 2).unwrap_or((tag, b""));
        if tag == etag.as_bytes() && (weakly || !is_weak) {
            return true;
        }
        rest = after;
    }
}

/// The extent that a field `Range` asks for; `None` if it is to be ignored, as are several ranges.
fn extent_of_range(value: &[u8], length: u64) -> Option<Extent> {
    let (unit, ranges) = value.split_at_checked(memchr::memchr(b'=', value)?)?;
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let range = ranges.get(1..)?.trim_ascii();
    let (first, last) = range.split_at_checked(memchr::memchr(b'-', range)?)?;
    let (first, last) = (first.trim_ascii(), last.get(1..)?.trim_ascii());
    let part = match (first, last) {
        (b"", b"") => return None,
        (b"", suffix) => {
            let suffix = number(suffix)?;
            length.saturating_sub(suffix)..length
        }
        (first, b"") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..length.min(last.saturating_add(1))
        }
    };
    Some(match part.is_empty() {
        true => Extent::Unsatisfiable,
        false => Extent::Part(part),
    })
}

/// A number, or the largest one in place of a larger one.
fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = str::from_utf8(digits).ok()?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: u64 = 1000;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn version() -> Version {
        Version {
            etag: "\"a\"".to_owned(),
            modified: 784_111_777,
        }
    }

    fn extent_for(method: &str, fields: &str) -> Extent {
        let lines = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        let request = Request {
            method,
            target: b"/",
            authority: b"a",
            version: "HTTP/1.1",
            fields: Fields::Lines(lines.as_bytes()),
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        Conditions::of(&request).extent(&version(), LENGTH)
    }

    #[test]
    fn conditions_are_evaluated_in_their_order() {
        use Extent::{Failed, NotModified, Part, Unsatisfiable, Whole};
        for (fields, expected) in [
            ("", Whole),
            ("If-None-Match: \"a\"", NotModified),
            ("If-None-Match: W/\"a\"", NotModified),
            ("If-None-Match: \"b\", W/\"x,\" ,\"a\"", NotModified),
            ("If-None-Match: \"b\"\r\nif-none-match: \"a\"", NotModified),
            ("If-None-Match: *", NotModified),
            ("If-None-Match: \"b\"", Whole),
            ("If-None-Match: a", Whole),
            ("If-None-Match: \"a", Whole),
            (&format!("If-Modified-Since: {DATE}"), NotModified),
            (&format!("If-Modified-Since: {LATER}"), NotModified),
            (&format!("If-Modified-Since: {EARLIER}"), Whole),
            ("If-Modified-Since: yesterday", Whole),
            // An entity tag is better than a date.
            (
                &format!("If-None-Match: \"b\"\r\nIf-Modified-Since: {DATE}"),
                Whole,
            ),
            ("If-Match: \"a\"", Whole),
            ("If-Match: *", Whole),
            ("If-Match: W/\"a\"", Failed),
            ("If-Match: \"b\"", Failed),
            (&format!("If-Unmodified-Since: {DATE}"), Whole),
            (&format!("If-Unmodified-Since: {EARLIER}"), Failed),
            (
                &format!("If-Match: \"a\"\r\nIf-Unmodified-Since: {EARLIER}"),
                Whole,
            ),
            ("If-Match: \"b\"\r\nIf-None-Match: \"a\"", Failed),
            ("Range: bytes=0-0", Part(0..1)),
            ("Range: bytes=0-0\r\nIf-None-Match: \"a\"", NotModified),
            ("Range: bytes=5-\r\nIf-Range: \"a\"", Part(5..LENGTH)),
            ("Range: bytes=5-\r\nIf-Range: W/\"a\"", Whole),
            ("Range: bytes=5-\r\nIf-Range: \"b\"", Whole),
            (
                &format!("Range: bytes=5-\r\nIf-Range: {DATE}"),
                Part(5..LENGTH),
            ),
            (&format!("Range: bytes=5-\r\nIf-Range: {LATER}"), Whole),
            ("Range: bytes=1000-\r\nIf-Range: \"b\"", Whole),
            ("Range: bytes=1000-", Unsatisfiable),
        ] {
            assert_eq!(extent_for("GET", fields), expected, "{fields}");
        }
        assert_eq!(extent_for("HEAD", "Range: bytes=0-0"), Whole);
        assert_eq!(extent_for("HEAD", "If-None-Match: \"a\""), NotModified);
    }

    #[test]
    fn one_range_is_served_and_anything_else_ignored() {
        use Extent::{Part, Unsatisfiable, Whole};
        for (range, expected) in [
            ("bytes=0-99", Part(0..100)),
            ("bytes=0-", Part(0..LENGTH)),
            ("Bytes = 999-5000 ", Part(999..LENGTH)),
            ("bytes=-1", Part(999..LENGTH)),
            ("bytes=-5000", Part(0..LENGTH)),
            ("bytes=0-99999999999999999999999", Part(0..LENGTH)),
            ("bytes=-99999999999999999999999", Part(0..LENGTH)),
            ("bytes=-0", Unsatisfiable),
            ("bytes=1000-1000", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=0-1,5-6", Whole),
            ("bytes=5-4", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("bytes", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1--2", Whole),
            ("lines=0-1", Whole),
            ("", Whole),
        ] {
            let found = extent_of_range(range.as_bytes(), LENGTH).unwrap_or(Whole);
            assert_eq!(found, expected, "{range}");
        }
        for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            let found = extent_of_range(range.as_bytes(), 0);
            assert_eq!(found, Some(Unsatisfiable), "{range}");
        }
    }

    #[test]
    fn dates_stay_within_what_http_can_say() {
        for (seconds, expected) in [
            (-5, 0),
            (5, 5),
            (1_000_001, 1_000_000),
            (i64::MAX, 1_000_000),
        ] {
            assert_eq!(clamp_modified(seconds, 1_000_000), expected);
        }
        assert_eq!(format_date(784_111_777), DATE);
        assert_eq!(format_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn a_part_is_within_its_file(range in "(bytes)?=?[0-9,-]{0,12}", length in 0u64..100) {
            if let Some(Extent::Part(part)) = extent_of_range(range.as_bytes(), length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }

        #[test]
        fn any_list_of_tags_is_read(list in "[W/\", *a]{0,20}") {
            _ = names_tag(list.as_bytes(), "\"a\"", true);
        }
    }
}
