//! URLs that are secrets.

use std::fmt;

use http::Uri;

use crate::secret::Secret;

/// A part of a URL that is shorter is a word, not a secret.
const SHORTEST_SECRET: usize = 8;

/// The URL of a service that asks for nothing else: whoever knows it can use it. Only its scheme and
/// its host are shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl {
    text: Secret,
    uri: Uri,
}

impl SecretUrl {
    /// The URL in `text`, which is one of http or https with a host.
    pub(crate) fn new(text: &Secret, uri: Uri) -> Self {
        Self {
            text: text.clone(),
            uri,
        }
    }

    /// The whole text, for the one call that needs it.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The URL in parts, for the one call that needs it.
    pub fn expose_uri(&self) -> &Uri {
        &self.uri
    }

    /// A text of somebody else's without the parts of the path and the query that may be secret.
    pub fn redact(&self, text: &str) -> String {
        let path = self.uri.path_and_query().map_or("", |path| path.as_str());
        let parts = path.split(['/', '?', '&', '=', ':']);
        let parts = parts.filter(|part| part.len() >= SHORTEST_SECRET);
        parts.fold(text.to_owned(), |text, part| {
            text.replace(part, "[redacted]")
        })
    }

    /// Returns true if it is one of plain HTTP.
    pub fn is_plain(&self) -> bool {
        self.uri.scheme_str() == Some("http")
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}", self.uri.host().unwrap_or_default())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_a_secret_url_is_shown() {
        let text = Secret::new("https://hooks.test:8443/services/T0/B0/xyz?key=abc".to_owned());
        let uri = text.expose().parse().expect("a URL");
        let url = SecretUrl::new(&text, uri);
        assert_eq!(url.to_string(), "https://hooks.test");
        assert_eq!(format!("{url:?}"), "https://hooks.test");
        let text =
            Secret::new("https://hooks.test/bot123456789:AAbbCCdd/send?key=secret-key".to_owned());
        let uri = text.expose().parse().expect("a URL");
        let said = "no bot bot123456789 with AAbbCCdd and secret-key can send";
        assert_eq!(
            SecretUrl::new(&text, uri).redact(said),
            "no bot [redacted] with [redacted] and [redacted] can send"
        );
    }
}
