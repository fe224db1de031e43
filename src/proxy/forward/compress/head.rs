//! What compression changes in the head of a response.

use http::StatusCode;
use pingora_core::Result;

use crate::config::model::{Coding, Compression};
use crate::proxy::accept_encoding::{Preference, members};
use crate::proxy::coded_fields::{describes_octets, weaken};
use crate::proxy::forward::response::{Body, ResponseHead};

/// What is to be known of a response's fields.
#[derive(Default)]
struct Facts<'a> {
    content_type: Option<&'a [u8]>,
    is_encoded: bool,
    is_range: bool,
    /// Whether nobody may change its content.
    is_final: bool,
    entity_tag: Option<&'a [u8]>,
    /// The names in `Vary`.
    vary: Vec<&'a [u8]>,
    varies_by_coding: bool,
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has nothing to do with compression.
    None,
    /// It might have been compressed for another client.
    Vary,
    Encode(Coding),
}

/// A field that is written anew.
enum Edit {
    Keep,
    Drop,
    Weaken,
}

/// Decides what becomes of the response with this head.
pub(super) fn plan(
    head: &ResponseHead<'_>,
    compression: &Compression,
    preference: Preference,
) -> Change {
    let facts = Facts::of(head);
    if head.body == Body::Tunnel
        || head.status.is_informational()
        || head.status == StatusCode::NO_CONTENT
        || facts.is_final
    {
        return Change::None;
    }
    let is_unmodified = head.status == StatusCode::NOT_MODIFIED;
    match facts.content_type {
        Some(content_type) if compression.covers(content_type) => {}
        // It need not describe what the client has.
        None if is_unmodified => {}
        _ => return Change::None,
    }
    let is_part = facts.is_range || head.status == StatusCode::PARTIAL_CONTENT;
    let is_small = match head.body.declared_length() {
        Some(length) if preference.refuses_identity => length == 0,
        Some(length) => length == 0 || length < compression.min_size,
        None => false,
    };
    match preference.coding {
        // A server may encode only some responses by itself.
        _ if facts.is_encoded => Change::Vary,
        Some(coding) if !is_unmodified && !is_part && !is_small => Change::Encode(coding),
        _ => Change::Vary,
    }
}

/// Passes `head` to `send`, changed as `change` says. `known_tags` are those of the request: values
/// of `If-None-Match`.
pub(super) fn send_changed<'a>(
    head: &ResponseHead<'_>,
    change: Change,
    known_tags: impl Iterator<Item = &'a [u8]>,
    send: impl FnOnce(&ResponseHead<'_>) -> Result<()>,
) -> Result<()> {
    if change == Change::None {
        return send(head);
    }
    let facts = Facts::of(head);
    let is_encoded = matches!(change, Change::Encode(_));
    let weak_tag = facts.entity_tag.and_then(weaken);
    let is_weakened = match &weak_tag {
        // A client whose copy is an encoded one learns that that one is current.
        Some(weak) if head.status == StatusCode::NOT_MODIFIED => {
            let mut known = known_tags;
            known.any(|tags| memchr::memmem::find(tags, weak).is_some())
        }
        _ => is_encoded,
    };
    let vary = (!facts.varies_by_coding).then(|| {
        let mut names = facts.vary.clone();
        names.push(b"Accept-Encoding");
        names.join(&b", "[..])
    });
    let mut fields = Vec::new();
    for (name, value) in head.fields() {
        let Ok(name) = str::from_utf8(name) else {
            continue;
        };
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let edit = match name.len() {
            4 if is("etag") && is_weakened => Edit::Weaken,
            4 if is("vary") && vary.is_some() => Edit::Drop,
            _ if is_encoded && describes_octets(name) => Edit::Drop,
            _ => Edit::Keep,
        };
        let value = match edit {
            Edit::Keep => value,
            Edit::Drop => continue,
            Edit::Weaken => match &weak_tag {
                Some(weak) => weak.as_slice(),
                None if value.starts_with(b"W/") => value,
                // It is none.
                None => continue,
            },
        };
        fields.push(httparse::Header { name, value });
    }
    let mut body = head.body;
    if let Some(vary) = &vary {
        let (name, value) = ("Vary", &**vary);
        fields.push(httparse::Header { name, value });
    }
    if let Change::Encode(coding) = change {
        let (name, value) = ("Content-Encoding", coding.as_str().as_bytes());
        fields.push(httparse::Header { name, value });
        body = match body {
            Body::None(_) => Body::None(None),
            _ => Body::Chunked,
        };
    }
    send(&head.with_fields(&fields, body))
}

impl<'a> Facts<'a> {
    fn of(head: &'a ResponseHead<'_>) -> Self {
        let mut facts = Self::default();
        for (name, value) in head.fields() {
            facts.read_field(name, value);
        }
        facts
    }

    fn read_field(&mut self, name: &'a [u8], value: &'a [u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            4 if is("etag") => self.entity_tag = Some(value),
            4 if is("vary") => {
                for name in members(value) {
                    let is_coding = name.eq_ignore_ascii_case(b"accept-encoding");
                    self.varies_by_coding |= is_coding || name == b"*";
                    self.vary.push(name);
                }
            }
            12 if is("content-type") => self.content_type = Some(value),
            13 if is("cache-control") => {
                let is_final = |word: &[u8]| word.eq_ignore_ascii_case(b"no-transform");
                self.is_final |= members(value).any(is_final);
            }
            13 if is("content-range") => self.is_range = true,
            16 if is("content-encoding") => self.is_encoded = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{CompressionLevel, MediaTypes};

    const GZIP: Preference = Preference {
        coding: Some(Coding::Gzip),
        refuses_identity: false,
    };

    fn compression() -> Compression {
        Compression {
            codings: vec![Coding::Gzip],
            types: vec![MediaTypes::Main("text/".into())],
            min_size: 100,
            level: CompressionLevel::Default,
        }
    }

    /// What becomes of a head, and its fields as the client gets them.
    fn changed(fields: &str, preference: Preference, tags: &[&str]) -> (Change, Vec<String>, Body) {
        let status = fields.split_once(' ').map_or(fields, |(status, _)| status);
        let rest = fields.strip_prefix(status).unwrap_or_default().trim();
        let rest = rest.replace(" | ", "\r\n");
        let end = if rest.is_empty() { "\r\n" } else { "\r\n\r\n" };
        let octets = format!("HTTP/1.1 {status} Status\r\n{rest}{end}");
        let mut got = None;
        let parsed = ResponseHead::parse_sample(octets.as_bytes(), |head| {
            let change = plan(head, &compression(), preference);
            let tags = tags.iter().map(|tag| tag.as_bytes());
            send_changed(head, change, tags, |head| {
                let line = |(name, value)| {
                    let text = |part| String::from_utf8_lossy(part).into_owned();
                    format!("{}: {}", text(name), text(value))
                };
                got = Some((change, head.fields().map(line).collect(), head.body));
                Ok(())
            })
        });
        assert!(parsed.is_ok());
        got.expect("a head")
    }

    #[test]
    fn a_head_says_how_its_body_is_encoded() {
        let (change, fields, body) = changed(
            "200 Content-Type: text/plain | Content-Length: 100 | ETag: \"a\" | \
             Accept-Ranges: bytes | Vary: Origin | vary: Cookie, X | Digest: x | \
             Content-MD5: x | Repr-Digest: x | Content-Digest: x | Last-Modified: x",
            GZIP,
            &[],
        );
        assert_eq!(change, Change::Encode(Coding::Gzip));
        assert_eq!(body, Body::Chunked);
        assert_eq!(
            fields,
            [
                "Content-Type: text/plain",
                "ETag: W/\"a\"",
                "Last-Modified: x",
                "Vary: Origin, Cookie, X, Accept-Encoding",
                "Content-Encoding: gzip",
            ]
        );
    }

    #[test]
    fn a_response_that_is_not_encoded_varies_all_the_same() {
        let all = "200 Content-Type: text/plain | Content-Length: 100 | ETag: \"a\" | Digest: x";
        let (change, fields, body) = changed(all, Preference::default(), &[]);
        assert_eq!((change, body), (Change::Vary, Body::Length(100)));
        assert_eq!(
            fields,
            [
                "Content-Type: text/plain",
                "ETag: \"a\"",
                "Digest: x",
                "Vary: Accept-Encoding",
            ]
        );
        for (vary, expected) in [
            ("*", "*"),
            ("Origin, *", "Origin, *"),
            ("accept-encoding", "accept-encoding"),
            ("X, Accept-Encoding", "X, Accept-Encoding"),
            ("X,,Y", "X, Y, Accept-Encoding"),
            ("", "Accept-Encoding"),
        ] {
            let head = format!("200 Content-Type: text/plain | Vary: {vary}");
            let (_, fields, _) = changed(&head, Preference::default(), &[]);
            assert_eq!(fields[1], format!("Vary: {expected}"), "{vary}");
        }
    }

    #[test]
    fn what_becomes_of_a_response_depends_on_its_kind() {
        let encode = Change::Encode(Coding::Gzip);
        for (head, expected) in [
            ("200 Content-Type: text/plain", encode),
            ("404 Content-Type: text/html; charset=utf-8", encode),
            ("200 Content-Type: text/plain | Content-Length: 100", encode),
            (
                "200 Content-Type: text/plain | Content-Length: 99",
                Change::Vary,
            ),
            (
                "200 Content-Type: text/plain | Content-Length: 0",
                Change::Vary,
            ),
            (
                "206 Content-Type: text/plain | Content-Range: bytes 0-1/2",
                Change::Vary,
            ),
            (
                "200 Content-Type: text/plain | Content-Range: bytes 0-1/2",
                Change::Vary,
            ),
            ("200 Content-Type: image/png", Change::None),
            ("200 Content-Type: text/event-stream", Change::None),
            ("200", Change::None),
            ("204", Change::None),
            ("304", Change::Vary),
            ("304 Content-Type: image/png", Change::None),
            (
                "200 Content-Type: text/plain | Content-Encoding: br",
                Change::Vary,
            ),
            (
                "200 Content-Type: image/png | Content-Encoding: br",
                Change::None,
            ),
            (
                "200 Content-Type: text/plain | Cache-Control: private, No-Transform",
                Change::None,
            ),
        ] {
            assert_eq!(changed(head, GZIP, &[]).0, expected, "{head}");
        }
        let strict = Preference {
            refuses_identity: true,
            ..GZIP
        };
        let small = "200 Content-Type: text/plain | Content-Length: 1";
        assert_eq!(changed(small, strict, &[]).0, encode);
        let empty = "200 Content-Type: text/plain | Content-Length: 0";
        assert_eq!(changed(empty, strict, &[]).0, Change::Vary);
    }

    #[test]
    fn a_tag_is_weak_for_what_was_encoded() {
        let tag = |head: &str, tags: &[&str]| {
            let (_, fields, _) = changed(head, GZIP, tags);
            let tag = fields.iter().find_map(|line| line.strip_prefix("ETag: "));
            tag.map(str::to_owned)
        };
        let some = |tag: &str| Some(tag.to_owned());
        let text = "Content-Type: text/plain |";
        assert_eq!(
            tag(&format!("200 {text} ETag: W/\"a\""), &[]),
            some("W/\"a\"")
        );
        assert_eq!(tag(&format!("200 {text} ETag: a"), &[]), None);
        let unmodified = "304 ETag: \"a\"";
        assert_eq!(tag(unmodified, &["\"b\", W/\"a\""]), some("W/\"a\""));
        assert_eq!(tag(unmodified, &["\"a\""]), some("\"a\""));
        assert_eq!(tag(unmodified, &["W/\"b\"", "*"]), some("\"a\""));
        assert_eq!(tag(unmodified, &[]), some("\"a\""));
    }
}
