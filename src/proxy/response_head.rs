//! The head of an upstream's response: what it means, and which of its fields reach the client.

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use super::header::{connection_names, digits};
use crate::field::is_hop_by_hop;

/// What a response's head says about its body and its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// The length of the body as it is declared, if it is.
    pub(crate) length: Option<u64>,
    pub(crate) is_chunked: bool,
    /// Whether the server keeps the connection for another request.
    pub(crate) is_kept: bool,
    /// Whether the head dates the response.
    pub(crate) is_dated: bool,
    /// Whether the connection becomes a tunnel.
    pub(crate) is_switching: bool,
    /// Whether `Connection` names fields.
    nominates: bool,
}

impl Meaning {
    /// Reads the fields of a response. `upgrade_asked` says whether its request asked for an
    /// upgrade.
    ///
    /// # Errors
    /// If the response cannot be passed on without guessing what it means.
    pub(crate) fn read<'a>(
        status: StatusCode,
        version: Version,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        upgrade_asked: bool,
    ) -> Result<Self> {
        let mut meaning = Self {
            is_switching: status == StatusCode::SWITCHING_PROTOCOLS,
            is_kept: version == Version::HTTP_11,
            ..Self::default()
        };
        if meaning.is_switching && !upgrade_asked {
            return invalid("101 to a request that did not ask for an upgrade");
        }
        if meaning.is_switching && version != Version::HTTP_11 {
            return invalid("101 in an HTTP/1.0 response");
        }
        for (name, value) in fields {
            meaning.read_field(name, value, version)?;
        }
        if meaning.is_chunked {
            // It overrides a length, and a server that sends both is not trusted with another
            // request (RFC 9112, section 6.3).
            meaning.is_kept &= meaning.length.is_none();
            meaning.length = None;
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            // Neither may declare how its body is framed (RFC 9110, section 8.6; RFC 9112, section
            // 6.1).
            (meaning.length, meaning.is_chunked) = (None, false);
        } else if status == StatusCode::NOT_MODIFIED {
            meaning.is_chunked = false;
        }
        Ok(meaning)
    }

    fn read_field(&mut self, name: &[u8], value: &[u8], version: Version) -> Result<()> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            4 if is("date") => self.is_dated = true,
            10 if is("connection") => {
                for name in connection_names([(name, value)].into_iter()) {
                    if name.eq_ignore_ascii_case(b"close") {
                        self.is_kept = false;
                    } else if !name.eq_ignore_ascii_case(b"keep-alive") {
                        self.nominates = true;
                    }
                }
            }
            14 if is("content-length") => match digits(value) {
                Some(length) if self.length.is_none() => self.length = Some(length),
                _ => return invalid("a Content-Length that is not one number"),
            },
            17 if is("transfer-encoding") => {
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return invalid("a Transfer-Encoding other than chunked");
                }
                if version != Version::HTTP_11 {
                    return invalid("Transfer-Encoding in an HTTP/1.0 response");
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a field reaches the client as it is. How the body is framed is written anew.
    ///
    /// `fields` are all fields of the head.
    pub(crate) fn keeps_field<'a>(
        self,
        name: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is_hop_by_hop(name) {
            return self.is_switching && (is("upgrade") || is("connection"));
        }
        let mut nominated = connection_names(fields);
        let is_nominated =
            self.nominates && nominated.any(|named| named.eq_ignore_ascii_case(name));
        !is("content-length") && !is_nominated
    }
}

fn invalid<T>(why: &'static str) -> Result<T> {
    Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())
}

/// Checks a response's head that Pingora has read, and drops what belongs to the upstream's
/// connection.
///
/// # Errors
/// If the response cannot be passed on without guessing what it means.
pub(crate) fn clean_response(response: &mut ResponseHeader, upgrade_asked: bool) -> Result<()> {
    let fields = || {
        let fields = response.headers.iter();
        fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
    };
    let meaning = Meaning::read(response.status, response.version, fields(), upgrade_asked)?;
    let is_dropped = |name: &&HeaderName| !meaning.keeps_field(name.as_str().as_bytes(), fields());
    let dropped: Vec<HeaderName> = response
        .headers
        .keys()
        .filter(is_dropped)
        .cloned()
        .collect();
    for name in dropped {
        let is_framing = name == TRANSFER_ENCODING && meaning.is_chunked;
        if !is_framing {
            response.remove_header(&name);
        }
    }
    if let Some(length) = meaning.length {
        response.insert_header(CONTENT_LENGTH, HeaderValue::from(length))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_that_was_asked_for_is_agreed_to() {
        let switching = |version, asked| {
            let mut response = ResponseHeader::build(101, None).expect("a head");
            response.set_version(version);
            clean_response(&mut response, asked).is_ok()
        };
        assert!(switching(Version::HTTP_11, true));
        assert!(!switching(Version::HTTP_11, false));
        assert!(!switching(Version::HTTP_10, true));
    }

    #[test]
    fn an_answer_has_at_most_one_length_and_none_where_it_has_no_body() {
        let cleaned = |status: u16, fields: &[(&'static str, &'static str)]| {
            let mut response = ResponseHeader::build(status, None).expect("a head");
            for (name, value) in fields {
                response.append_header(*name, *value).expect("a field");
            }
            clean_response(&mut response, true).ok()?;
            let one = |name| {
                response
                    .headers
                    .get(name)
                    .map(|v| v.to_str().expect("text").to_owned())
            };
            Some((one("transfer-encoding"), one("content-length")))
        };
        let (chunked, five) = (("Transfer-Encoding", "chunked"), ("Content-Length", "5"));
        let text = |text: &str| Some(text.to_owned());
        for status in [101, 103, 204] {
            assert_eq!(cleaned(status, &[chunked]), Some((None, None)));
            assert_eq!(cleaned(status, &[five]), Some((None, None)));
        }
        assert_eq!(cleaned(304, &[chunked]), Some((None, None)));
        assert_eq!(cleaned(304, &[five]), Some((None, text("5"))));
        assert_eq!(cleaned(200, &[chunked]), Some((text("chunked"), None)));
        assert_eq!(
            cleaned(200, &[("Content-Length", "005")]),
            Some((None, text("5")))
        );
        assert_eq!(cleaned(200, &[five, five]), None);
        assert_eq!(cleaned(200, &[("Content-Length", "5, 5")]), None);
        assert_eq!(cleaned(200, &[("Content-Length", "+5")]), None);
    }

    #[test]
    fn an_answer_loses_what_belongs_to_its_connection() {
        let mut response = ResponseHeader::build(200, None).expect("a head");
        for (name, value) in [
            ("Connection", "close, X-Hop, content-length"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Upgrade", "h2c"),
            ("Trailer", "x"),
            ("Content-Length", "3"),
            ("Server", "origin"),
        ] {
            response.append_header(name, value).expect("a field");
        }
        clean_response(&mut response, false).expect("valid");
        let mut left: Vec<_> = response.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "server"]);
    }
}
