//! What placeholders stand for in one request.

use std::io::Write as _;

use http::HeaderValue;

use super::path;
use super::request::Request;
use crate::config::model::{Part, Placeholder, Template, decode_escape};
use crate::host::NameBuffer;
use crate::jwt::Token;
use crate::tls::TlsInfo;

/// The values of placeholders for one request.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    request: &'a Request<'a>,
    request_id: &'a HeaderValue,
    pub(crate) path: &'a [u8],
    /// `None` if the target has no `?`.
    query: Option<&'a [u8]>,
    /// Empty if it is not known.
    user: &'a str,
    token: Option<&'a Token>,
}

/// A template for the value of a field. One without placeholders is made into a value once.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Fixed(HeaderValue),
    Filled(Template),
}

impl<'a> Values<'a> {
    pub(crate) fn of(request: &'a Request<'a>, request_id: &'a HeaderValue) -> Self {
        let target = request.origin_form();
        let path = path::without_query(target);
        Self {
            request,
            request_id,
            path,
            query: target.get(path.len() + 1..),
            user: "",
            token: None,
        }
    }

    /// The values for a request of this user.
    pub(crate) fn with_user(self, user: &'a str) -> Self {
        Self { user, ..self }
    }

    /// The values for a request with this token.
    pub(crate) fn with_token(self, token: Option<&'a Token>) -> Self {
        Self { token, ..self }
    }

    /// The values with another path.
    pub(crate) fn with_path<'b>(&'b self, path: &'b [u8]) -> Values<'b> {
        Values { path, ..*self }
    }

    /// The template as a text.
    pub(crate) fn fill(&self, template: &Template) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        for part in template.parts() {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Placeholder(placeholder) => self.put(*placeholder, &mut out),
                Part::Claim(name) => out.extend_from_slice(self.claim(name).as_bytes()),
                // Only targets may have them.
                Part::Group { .. } => {}
            }
        }
        out
    }

    /// The template as a URL or a request's target. A path that stands in its query cannot end a
    /// parameter of it.
    pub(crate) fn fill_target(&self, template: &Template) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let path = template.path().map(|expression| {
            let sent = path::without_query(self.request.origin_form());
            (expression, path::read_plainly(sent))
        });
        let captures = path
            .as_ref()
            .and_then(|(expression, path)| expression.captures(path));
        for part in template.parts() {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Placeholder(Placeholder::Path) if out.contains(&b'?') => {
                    put_escaped(self.path, &mut out);
                }
                Part::Group { index, .. } => {
                    let found = captures.as_ref().and_then(|all| all.get(*index));
                    let found = found.map_or(&b""[..], |found| found.as_bytes());
                    put_group(found, &mut out);
                }
                Part::Claim(name) => put_encoded(self.claim(name).as_bytes(), &mut out),
                Part::Placeholder(
                    placeholder @ (Placeholder::ClientCertSubject
                    | Placeholder::ClientCertSan
                    | Placeholder::User),
                ) => {
                    let mut text = Vec::new();
                    self.put(*placeholder, &mut text);
                    put_encoded(&text, &mut out);
                }
                Part::Placeholder(placeholder) => self.put(*placeholder, &mut out),
            }
        }
        out
    }

    /// What the token says under a name; empty without one.
    fn claim(&self, name: &str) -> &'a str {
        self.token.map_or("", |token| token.claim(name))
    }

    fn put(&self, placeholder: Placeholder, out: &mut Vec<u8>) {
        let request = self.request;
        match placeholder {
            Placeholder::Host => {
                let mut buffer = NameBuffer::new();
                if let Some(authority) = request.parse_authority(&mut buffer) {
                    _ = write!(out, "{}", authority.host);
                }
            }
            Placeholder::Path => out.extend_from_slice(self.path),
            Placeholder::Query => out.extend_from_slice(self.query.unwrap_or_default()),
            Placeholder::QuestionedQuery => self.put_query(out),
            Placeholder::Scheme => out.extend_from_slice(match request.is_secure() {
                true => b"https",
                false => b"http",
            }),
            Placeholder::Method => out.extend_from_slice(request.method.as_bytes()),
            Placeholder::ClientIp => {
                if let Some(client) = request.client {
                    _ = write!(out, "{client}");
                }
            }
            Placeholder::User => out.extend_from_slice(self.user.as_bytes()),
            Placeholder::RequestId => out.extend_from_slice(self.request_id.as_bytes()),
            Placeholder::Sni => {
                let info = request.tls.and_then(|tls| tls.extension.get::<TlsInfo>());
                if let Some(name) = info.and_then(|info| info.server_name.as_ref()) {
                    out.extend_from_slice(name.as_str().as_bytes());
                }
            }
            Placeholder::TlsVersion => {
                if let Some(tls) = request.tls {
                    out.extend_from_slice(tls.version.as_bytes());
                }
            }
            Placeholder::Port => {
                let default = if request.is_secure() { 443 } else { 80 };
                _ = write!(out, "{}", request.port.unwrap_or(default));
            }
            Placeholder::ClientCertSubject
            | Placeholder::ClientCertSan
            | Placeholder::ClientCertFingerprint
            | Placeholder::ClientCertSerial => {
                if let Some(certificate) = request.client_certificate() {
                    let text = match placeholder {
                        Placeholder::ClientCertSubject => &certificate.subject,
                        Placeholder::ClientCertSan => &certificate.names,
                        Placeholder::ClientCertSerial => &certificate.serial,
                        _ => &certificate.fingerprint,
                    };
                    out.extend_from_slice(text.as_bytes());
                }
            }
            Placeholder::ClientCertVerified => {
                out.extend_from_slice(match request.client_certificate() {
                    Some(_) => b"true",
                    None => b"false",
                });
            }
        }
    }

    /// Appends the query with its `?`, if there is one.
    pub(crate) fn put_query(&self, out: &mut Vec<u8>) {
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
    }
}

impl Value {
    pub(crate) fn of(template: &Template) -> Self {
        let fixed = template.as_literal().map(HeaderValue::from_str);
        match fixed {
            Some(Ok(value)) => Self::Fixed(value),
            _ => Self::Filled(template.clone()),
        }
    }

    /// The value for one request; `None` if it may not stand in a field.
    pub(crate) fn fill(&self, values: &Values<'_>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Filled(template) => HeaderValue::try_from(values.fill(template)).ok(),
        }
    }
}

/// Appends a part of a path that was decoded but for slashes that are data. What would end it in a
/// URL is percent-encoded, and in a query also what would end a parameter.
fn put_group(decoded: &[u8], out: &mut Vec<u8>) {
    let is_query = out.contains(&b'?');
    for (at, &octet) in decoded.iter().enumerate() {
        let is_kept = match octet {
            b'%' => decode_escape(decoded, at) == Some(b'/'),
            b'&' | b';' | b'+' => !is_query,
            _ => octet.is_ascii_alphanumeric() || b"-._~!$'()*,=:@/".contains(&octet),
        };
        match is_kept {
            true => out.push(octet),
            false => _ = write!(out, "%{octet:02X}"),
        }
    }
}

/// Appends a text of a certificate or a token, or the name of a user, so that it can be any part of a URL.
fn put_encoded(text: &[u8], out: &mut Vec<u8>) {
    for &octet in text {
        match octet {
            b'-' | b'.' | b'_' | b'~' => out.push(octet),
            _ if octet.is_ascii_alphanumeric() => out.push(octet),
            _ => _ = write!(out, "%{octet:02X}"),
        }
    }
}

/// Appends a path, with whatever ends a parameter or must be escaped in a query in percent-encoding.
fn put_escaped(path: &[u8], out: &mut Vec<u8>) {
    for &octet in path {
        match octet {
            b'&' | b';' | b'+' | b'"' => _ = write!(out, "%{octet:02X}"),
            _ => out.push(octet),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::proxy::request::Fields;

    fn fill(template: &str, target: &str, authority: &str) -> String {
        let fields = HeaderMap::new();
        let request = Request {
            method: "GET",
            target: target.as_bytes(),
            authority: authority.as_bytes(),
            version: "HTTP/1.1",
            fields: Fields::Map(&fields),
            client: "192.0.2.1".parse().ok(),
            port: Some(8080),
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        let id = HeaderValue::from_static("00ff");
        let template = template.parse().expect("a template");
        let filled = Values::of(&request, &id).fill_target(&template);
        String::from_utf8(filled).expect("text")
    }

    #[test]
    fn placeholders_stand_for_what_the_request_has() {
        for (template, filled) in [
            ("{host}", "a.example"),
            ("{path}", "/a%2Fb/%41"),
            ("{query}", "c=d?e"),
            ("{path}{?query}", "/a%2Fb/%41?c=d?e"),
            ("{scheme}://{host}:{port}/", "http://a.example:8080/"),
            ("{method} {client_ip} {request_id}", "GET 192.0.2.1 00ff"),
            ("[{sni}{tls_version}]", "[]"),
            ("[{client_cert_subject}{client_cert_san}]", "[]"),
            ("{client_cert_verified}", "false"),
            ("{{{path}}}", "{/a%2Fb/%41}"),
        ] {
            let target = "/a%2Fb/%41?c=d?e";
            assert_eq!(
                fill(template, target, "A.Example.:8080"),
                filled,
                "{template}"
            );
        }
        assert_eq!(fill("{path}{?query}", "/", "a"), "/");
        assert_eq!(fill("{path}{?query}", "/?", "a"), "/?");
        assert_eq!(fill("{host}", "/", "[2001:DB8::1]:80"), "[2001:db8::1]");
    }

    #[test]
    fn a_path_within_a_query_stays_one_parameter() {
        let filled = fill("/find?at={path}&b=c", "/x&b=d;e+f\"%26", "a");
        assert_eq!(filled, "/find?at=/x%26b=d%3Be%2Bf%22%26&b=c");
        assert_eq!(fill("{path}", "/x&y", "a"), "/x&y");
    }
}
