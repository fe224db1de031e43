//! Redirects whose target depends on the request.

use http::{HeaderValue, StatusCode};

use super::refusal::Refusal;
use super::request::is_well_formed;
use super::response::LocalResponse;
use super::template::Values;
use crate::config::model::Template;
use crate::field::is_authority;

/// A redirect to what a template makes of the request.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) status: StatusCode,
    /// Begins with the scheme and a host, or with a path.
    pub(crate) to: Template,
}

impl Redirect {
    /// The response to one request.
    ///
    /// # Errors
    /// If what the client sent cannot stand in the target.
    pub(crate) fn fill(&self, values: &Values<'_>) -> Result<LocalResponse, Refusal> {
        let why = "There is no redirect for this path, query and host.";
        let target = location(values.fill_target(&self.to));
        let target = target.ok_or(Refusal::Unfit(why))?;
        Ok(LocalResponse::redirect(self.status, target))
    }
}

/// The value of `Location` for a target. If it is a path, it stays on this host: browsers take what
/// follows `//` or `/\` for a host.
pub(crate) fn location(target: Vec<u8>) -> Option<HeaderValue> {
    if !is_well_formed(&target) {
        return None;
    }
    if target.starts_with(b"/") {
        let is_slash = |octet: &&u8| matches!(octet, b'/' | b'\\');
        let begin = target.iter().take_while(is_slash).count();
        let path = target.get(begin.saturating_sub(1)..)?;
        let path = [&b"/"[..], path.get(1..)?].concat();
        return HeaderValue::try_from(escape_url(path)).ok();
    }
    let rest = [&b"https://"[..], b"http://"]
        .into_iter()
        .find_map(|scheme| target.strip_prefix(scheme))?;
    let end = rest
        .iter()
        .position(|octet| matches!(octet, b'/' | b'?' | b'\\'));
    let authority = rest.get(..end.unwrap_or(rest.len()))?;
    if !is_authority(authority) {
        return None;
    }
    HeaderValue::try_from(escape_url(target)).ok()
}

/// A URL, or the rest of one, with what may not stand there in percent-encoding: clients take that
/// for different things. A `\` stays, since browsers take it for a `/`.
pub(crate) fn escape_url(url: Vec<u8>) -> Vec<u8> {
    let is_bad = |octet: &u8| !octet.is_ascii_graphic() || b"\"<>^`{|}".contains(octet);
    if !url.iter().any(is_bad) {
        return url;
    }
    let mut out = Vec::with_capacity(url.len() * 2);
    for octet in url {
        match is_bad(&octet) {
            true => out.extend_from_slice(format!("%{octet:02X}").as_bytes()),
            false => out.push(octet),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(target: &str) -> Option<String> {
        let location = location(target.as_bytes().to_vec())?;
        Some(location.to_str().expect("text").to_owned())
    }

    #[test]
    fn a_path_stays_on_its_host() {
        for (target, to) in [
            ("/", "/"),
            ("/a//b", "/a//b"),
            ("//evil.example/", "/evil.example/"),
            ("///evil.example", "/evil.example"),
            ("/\\evil.example", "/evil.example"),
            ("/\\/evil.example", "/evil.example"),
            ("//", "/"),
            ("/\u{e4}\"?q=`{x}", "/%C3%A4%22?q=%60%7Bx%7D"),
            (
                "https://a.example/{a|b}^%20",
                "https://a.example/%7Ba%7Cb%7D%5E%20",
            ),
        ] {
            assert_eq!(led(target).as_deref(), Some(to), "{target}");
        }
    }

    #[test]
    fn a_url_has_a_host() {
        for target in [
            "https://a.example//evil.example/",
            "http://a.example:80?x",
            "https://[::1]/\\x",
            "https://a.example",
        ] {
            assert_eq!(led(target).as_deref(), Some(target));
        }
        for target in [
            "https:///evil.example/",
            "https://",
            "https://a.example@evil.example/",
            "https://\\evil.example",
            "https://a:b/",
            "evil.example",
            "javascript:alert(1)",
            "",
            "/a\r\nSet-Cookie: b",
            "https://a.example/\r\nb",
            "/a b",
            "/\0",
            "https://a.example/#b",
        ] {
            assert_eq!(led(target), None, "{target:?}");
        }
    }
}
