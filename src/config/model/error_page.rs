//! Pages for errors and for maintenance, read with the configuration.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::Network;
use super::media_type::{is_json, is_text};

/// Pages for errors, the most specific first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages(Vec<(ErrorKey, ErrorPage)>);

/// The statuses that a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKey {
    Status(u16),
    /// All statuses with this first digit.
    Class(u16),
    Default,
}

/// What clients get for some statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// One for each form, in order of preference.
    pub pages: Vec<Arc<Page>>,
    /// Whether it replaces the bodies of servers too.
    pub upstream: bool,
}

/// The content of a file or a text, with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    media_type: HeaderValue,
    parts: Box<[PagePart]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PagePart {
    Octets(Bytes),
    Host,
    RequestId,
    Status,
}

/// What a client wants to have in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    Json,
    /// Any.
    Text,
}

/// What is filled into a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageValues<'a> {
    pub(crate) status: StatusCode,
    pub(crate) host: &'a str,
    pub(crate) request_id: &'a str,
}

/// What clients of a site get while it is maintained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub status: StatusCode,
    /// `None` for the error page of the status.
    pub page: Option<Arc<Page>>,
    /// When clients may try again; zero if the response does not say it.
    pub retry_after: Duration,
    /// Whose requests are served all the same.
    pub allow: Vec<Network>,
}

impl ErrorPages {
    /// These pages, each for statuses of its own.
    pub fn new(pages: impl IntoIterator<Item = (ErrorKey, ErrorPage)>) -> Self {
        let mut pages: Vec<_> = pages.into_iter().collect();
        pages.sort_by_key(|(key, _)| *key);
        Self(pages)
    }

    /// These pages, and those of `others` for what these are not for.
    #[must_use]
    pub fn with_others(self, others: &Self) -> Self {
        let is_new = |key: &ErrorKey| self.0.iter().all(|(own, _)| own != key);
        let more: Vec<_> = others
            .0
            .iter()
            .filter(|(key, _)| is_new(key))
            .cloned()
            .collect();
        Self::new(self.0.into_iter().chain(more))
    }

    /// The keys of all pages, the most specific first.
    pub fn keys(&self) -> impl Iterator<Item = ErrorKey> {
        self.0.iter().map(|(key, _)| *key)
    }

    /// The key of the page in the form that this value of `Accept` prefers, for an error of the
    /// gateway.
    pub fn find_key(&self, status: StatusCode, accept: &[u8]) -> Option<ErrorKey> {
        let form = Form::wanted(accept);
        let mut entries = self.matching(status);
        entries.find_map(|(key, entry)| entry.find(form).map(|_| *key))
    }

    /// Whether one of them replaces bodies of servers.
    pub fn has_upstream(&self) -> bool {
        self.0.iter().any(|(_, page)| page.upstream)
    }

    /// The page in this form for an error of the gateway.
    pub(crate) fn find(&self, status: StatusCode, form: Form) -> Option<&Arc<Page>> {
        let mut entries = self.matching(status);
        entries.find_map(|(_, entry)| entry.find(form))
    }

    /// The page in this form that replaces the body of a server's response.
    pub(crate) fn find_upstream(&self, status: StatusCode, form: Form) -> Option<&Arc<Page>> {
        let mut entries = self.matching(status);
        let found = entries.find_map(|(_, entry)| Some((entry, entry.find(form)?)));
        found
            .filter(|(entry, _)| entry.upstream)
            .map(|(_, page)| page)
    }

    fn matching(&self, status: StatusCode) -> impl Iterator<Item = &(ErrorKey, ErrorPage)> {
        let status = status.as_u16();
        let is_for = move |key: ErrorKey| match key {
            ErrorKey::Status(own) => own == status,
            ErrorKey::Class(class) => class == status / 100,
            ErrorKey::Default => status >= 400,
        };
        self.0.iter().filter(move |(key, _)| is_for(*key))
    }
}

impl fmt::Display for ErrorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Maintenance {
    /// Whether it has a page of its own in the form that this value of `Accept` prefers.
    pub fn has_page_for(&self, accept: &[u8]) -> bool {
        let page = self.page.as_ref();
        page.is_some_and(|page| page.suits(Form::wanted(accept)))
    }
}

impl ErrorPage {
    fn find(&self, form: Form) -> Option<&Arc<Page>> {
        self.pages.iter().find(|page| page.suits(form))
    }
}

impl Page {
    /// A page of these octets. In text, `{status}`, `{host}` and `{request_id}` are placeholders;
    /// all other braces stand for themselves.
    pub fn new(media_type: HeaderValue, octets: Bytes) -> Self {
        let parts = match is_text(&media_type) {
            true => parts(octets),
            false => vec![PagePart::Octets(octets)],
        };
        Self {
            media_type,
            parts: parts.into(),
        }
    }

    pub fn media_type(&self) -> &HeaderValue {
        &self.media_type
    }

    /// Whether a client that wants this form takes the page.
    pub(crate) fn suits(&self, form: Form) -> bool {
        match form {
            Form::Html => !is_json(&self.media_type),
            Form::Json => is_json(&self.media_type),
            Form::Text => true,
        }
    }

    /// The page for one request.
    pub(crate) fn fill(&self, values: PageValues<'_>) -> Bytes {
        if let [PagePart::Octets(all)] = &*self.parts {
            return all.clone();
        }
        let mut out = Vec::with_capacity(1024);
        for part in &self.parts {
            out.extend_from_slice(match part {
                PagePart::Octets(octets) => octets,
                PagePart::Host => values.host.as_bytes(),
                PagePart::RequestId => values.request_id.as_bytes(),
                PagePart::Status => values.status.as_str().as_bytes(),
            });
        }
        out.into()
    }
}

impl Form {
    /// The form that an `Accept` field prefers, the first of those that it likes equally. Text is what
    /// is left, or what is liked better than both others.
    pub(crate) fn wanted(accept: &[u8]) -> Self {
        let mut best = (Self::Text, 0);
        let mut text = 0;
        for range in accept.split(|&octet| octet == b',') {
            let mut parts = range.split(|&octet| octet == b';').map(<[u8]>::trim_ascii);
            let media = parts.next().unwrap_or_default();
            let is = |other: &str| media.eq_ignore_ascii_case(other.as_bytes());
            let weight = parts.find_map(read_weight).unwrap_or(1000);
            if is("text/plain") {
                text = text.max(weight);
            } else if weight > best.1 {
                if is("text/html") {
                    best = (Self::Html, weight);
                } else if is("application/json") || is("application/problem+json") {
                    best = (Self::Json, weight);
                }
            }
        }
        match text > best.1 {
            true => Self::Text,
            false => best.0,
        }
    }
}

/// The weight that a parameter of a media range gives it, in thousandths; `None` if it is no weight.
fn read_weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="))?;
    let value: f32 = str::from_utf8(value).ok()?.parse().ok()?;
    // One out of range becomes the nearest in it.
    Some((value.clamp(0.0, 1.0) * 1000.0) as u16)
}

impl Maintenance {
    /// Whether the requests of a client are served.
    pub(crate) fn admits(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|client| self.allow.iter().any(|network| network.contains(client)))
    }
}

/// Splits a text at its placeholders.
fn parts(text: Bytes) -> Vec<PagePart> {
    const PLACEHOLDERS: [(&[u8], PagePart); 3] = [
        (b"{host}", PagePart::Host),
        (b"{request_id}", PagePart::RequestId),
        (b"{status}", PagePart::Status),
    ];
    let mut parts = Vec::new();
    let mut begin = 0;
    for at in memchr::memchr_iter(b'{', &text) {
        let rest = text.get(at..).unwrap_or_default();
        let found = PLACEHOLDERS
            .iter()
            .find(|(written, _)| rest.starts_with(written));
        if let Some((written, placeholder)) = found {
            if at > begin {
                parts.push(PagePart::Octets(text.slice(begin..at)));
            }
            parts.push(placeholder.clone());
            begin = at + written.len();
        }
    }
    if begin < text.len() || parts.is_empty() {
        parts.push(PagePart::Octets(text.slice(begin..)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(media_type: &'static str, text: &'static str) -> Arc<Page> {
        let media_type = HeaderValue::from_static(media_type);
        Arc::new(Page::new(media_type, Bytes::from_static(text.as_bytes())))
    }

    fn filled(page: &Page) -> String {
        let octets = page.fill(PageValues {
            status: StatusCode::NOT_FOUND,
            host: "a.example",
            request_id: "00ff",
        });
        String::from_utf8(octets.to_vec()).expect("text")
    }

    #[test]
    fn only_known_placeholders_are_filled_in() {
        for (text, expected) in [
            ("", ""),
            ("{status}", "404"),
            (
                "<p>{status} on {host}: {request_id}</p>",
                "<p>404 on a.example: 00ff</p>",
            ),
            (
                "p { color: red } {{host}} {hosts} {",
                "p { color: red } {a.example} {hosts} {",
            ),
        ] {
            assert_eq!(filled(&page("text/html", text)), expected);
        }
        assert_eq!(filled(&page("image/png", "{status}")), "{status}");
    }

    #[test]
    fn the_most_specific_page_in_the_form_that_is_wanted_is_found() {
        let entry = |pages: &[&Arc<Page>], upstream| ErrorPage {
            pages: pages.iter().map(|&page| Arc::clone(page)).collect(),
            upstream,
        };
        let [html, json, class, any] = [
            page("text/html", "404"),
            page("application/json", "{}"),
            page("text/plain", "4xx"),
            page("application/json", "any"),
        ];
        let site = ErrorPages::new([
            (ErrorKey::Class(4), entry(&[&class], false)),
            (ErrorKey::Status(404), entry(&[&html, &json], true)),
        ]);
        let server = ErrorPages::new([
            (ErrorKey::Class(4), entry(&[&html], true)),
            (ErrorKey::Default, entry(&[&any], false)),
        ]);
        let pages = site.with_others(&server);
        let found = |status, form| {
            let status = StatusCode::from_u16(status).expect("a status");
            pages.find(status, form)
        };
        assert_eq!(found(404, Form::Html), Some(&html));
        assert_eq!(found(404, Form::Text), Some(&html));
        assert_eq!(found(404, Form::Json), Some(&json));
        assert_eq!(found(405, Form::Html), Some(&class));
        assert_eq!(found(405, Form::Json), Some(&any));
        assert_eq!(found(500, Form::Html), None);
        assert_eq!(found(500, Form::Text), Some(&any));
        let replaced = |status| {
            let status = StatusCode::from_u16(status).expect("a status");
            pages.find_upstream(status, Form::Html)
        };
        assert_eq!(replaced(404), Some(&html));
        assert_eq!(replaced(405), None);
        assert!(pages.has_upstream());
    }

    #[test]
    fn the_form_is_the_one_that_is_asked_for_first() {
        for (accept, form) in [
            ("text/html;q=0.5, application/json", Form::Json),
            ("text/html;q=0.5, application/json;q=0.4", Form::Html),
            ("application/json;q=0, text/html;q=0.001", Form::Html),
            (
                "text/html; charset=x; q=0.2, application/json ;Q=0.3",
                Form::Json,
            ),
            ("text/html;q=0, */*", Form::Text),
            ("text/html;q=0.5, text/plain", Form::Text),
            ("text/plain, text/html", Form::Html),
            ("text/html;q=x, application/json", Form::Html),
            ("text/html;q=nan, application/json", Form::Json),
            ("", Form::Text),
            ("*/*", Form::Text),
            (
                "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
                Form::Html,
            ),
            ("application/json", Form::Json),
            ("application/problem+json;q=1, text/html", Form::Json),
        ] {
            assert_eq!(Form::wanted(accept.as_bytes()), form, "{accept}");
        }
    }
}
