//! A service that decides which requests are served.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

use crate::http_client::HttpClient;

/// The most octets of a response's body.
pub(crate) const MAX_ANSWER: usize = 64 * 1024;

/// A service that decides which requests are served, and how it is asked.
pub struct ForwardAuth {
    pub url: Uri,
    /// Fields of its responses that servers get, in place of the clients' own.
    pub copy_headers: Arc<[HeaderName]>,
    pub timeout: Duration,
    /// `None` if it cannot be asked: the roots that it would be trusted by could not be read.
    pub(crate) client: Option<HttpClient>,
}

impl fmt::Debug for ForwardAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardAuth")
            .field("url", &self.url)
            .field("copy_headers", &self.copy_headers)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Those that are asked alike, trusting the same roots, are equal.
impl PartialEq for ForwardAuth {
    fn eq(&self, other: &Self) -> bool {
        let roots = |one: &Self| one.client.as_ref().map(|client| client.roots().copied());
        self.url == other.url
            && self.copy_headers == other.copy_headers
            && self.timeout == other.timeout
            && roots(self) == roots(other)
    }
}
