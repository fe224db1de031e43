//! The head of a response as a server sends it in HTTP/1.

use std::mem::MaybeUninit;

use http::{HeaderValue, StatusCode, Version};
use pingora_core::{Error, ErrorType, Result};

use crate::proxy::header::REQUEST_ID;
use crate::proxy::response_head::Meaning;

/// The most octets of a head.
const MAX_HEAD: usize = 64 * 1024;

/// The most fields of a head.
const MAX_FIELDS: usize = 256;

/// The head of a response on its way to the client.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    pub status: StatusCode,
    /// As the server sent it.
    pub reason: &'a str,
    fields: &'a [httparse::Header<'a>],
    meaning: Meaning,
    request_id: &'a HeaderValue,
    /// How the body ends, if one follows.
    pub body: Body,
}

/// The body that follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// None follows, though a length may be declared, as in the response to HEAD.
    None(Option<u64>),
    Length(u64),
    Chunked,
    /// It ends with the server's connection.
    UntilClose,
    /// Everything that follows is a protocol of its own.
    Tunnel,
}

impl Body {
    /// The length that is declared.
    pub fn declared_length(self) -> Option<u64> {
        match self {
            Self::None(length) => length,
            Self::Length(length) => Some(length),
            Self::Chunked | Self::UntilClose | Self::Tunnel => None,
        }
    }
}

/// What a server was asked, as far as its response depends on it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Only for the head of the response.
    pub(super) head_alone: bool,
    pub(super) upgrade: bool,
    pub(super) request_id: &'a HeaderValue,
}

/// What remains of a head that was handed on.
#[derive(Clone, Copy)]
pub(super) struct Parsed {
    /// Its length in octets.
    pub(super) len: usize,
    pub(super) status: StatusCode,
    pub(super) body: Body,
    /// Whether the server keeps its connection.
    pub(super) is_kept: bool,
}

/// Parses the head at the beginning of `octets`, and passes it to `send`. `None` if more octets
/// are needed.
///
/// # Errors
/// If the octets are not the beginning of a response that can be passed on, or if `send` fails.
pub(super) fn parse_head(
    octets: &[u8],
    asked: Asked<'_>,
    send: impl FnOnce(&ResponseHead<'_>) -> Result<()>,
) -> Result<Option<Parsed>> {
    let mut space = [MaybeUninit::uninit(); MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    let parsed = parser
        .parse_response_with_uninit_headers(&mut response, octets, &mut space)
        .map_err(|error| {
            Error::because(ErrorType::InvalidHTTPHeader, "in a response's head", error).into_up()
        })?;
    let httparse::Status::Complete(len) = parsed else {
        return match octets.len() > MAX_HEAD {
            true => Err(invalid("a response's head is too large")),
            false => Ok(None),
        };
    };
    if len > MAX_HEAD {
        return Err(invalid("a response's head is too large"));
    }
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| invalid("a response's status is out of range"))?;
    let version = match response.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let fields = &*response.headers;
    let pairs = fields
        .iter()
        .map(|field| (field.name.as_bytes(), field.value));
    let meaning = Meaning::read(status, version, pairs, asked.upgrade)?;
    let is_bodiless = asked.head_alone
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match meaning.length {
        _ if meaning.is_switching => Body::Tunnel,
        length if is_bodiless => Body::None(length),
        Some(length) => Body::Length(length),
        None if meaning.is_chunked => Body::Chunked,
        None => Body::UntilClose,
    };
    send(&ResponseHead {
        status,
        reason: response.reason.unwrap_or_default(),
        fields,
        meaning,
        request_id: asked.request_id,
        body,
    })?;
    Ok(Some(Parsed {
        len,
        status,
        body,
        is_kept: meaning.is_kept && !matches!(body, Body::UntilClose | Body::Tunnel),
    }))
}

/// Joins the folded lines of a head at the beginning of `octets` (RFC 9112, section 5.2). Returns
/// whether there were any.
pub(super) fn unfold_lines(octets: &mut [u8]) -> bool {
    let mut found = false;
    let mut begin = 0;
    while let Some(end) = octets
        .get(begin..)
        .and_then(|rest| memchr::memchr(b'\n', rest))
    {
        let end = begin + end;
        let line = octets.get(begin..end).unwrap_or_default();
        if matches!(line, [] | [b'\r']) {
            break;
        }
        if matches!(octets.get(end + 1), Some(b' ' | b'\t')) {
            let at = end.saturating_sub(usize::from(line.ends_with(b"\r")));
            if let Some(fold) = octets.get_mut(at..=end) {
                fold.fill(b' ');
                found = true;
            }
        }
        begin = end + 1;
    }
    found
}

impl ResponseHead<'_> {
    /// Whether the response has a `Date`.
    pub fn is_dated(&self) -> bool {
        self.meaning.is_dated
    }

    /// The server's fields that reach the client, without what frames the body, and what is said
    /// of the connection unless it becomes a tunnel.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = || {
            let fields = self.fields.iter();
            fields.map(|field| (field.name.as_bytes(), field.value))
        };
        let is_kept = move |(name, _): &(&[u8], &[u8])| {
            !name.eq_ignore_ascii_case(REQUEST_ID.as_str().as_bytes())
                && self.meaning.keeps_field(name, pairs())
        };
        pairs().filter(is_kept)
    }

    /// The id of the request, which a final response carries.
    pub fn request_id(&self) -> &HeaderValue {
        self.request_id
    }
}

fn invalid(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}
