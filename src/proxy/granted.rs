//! What a service that admits a request adds to it and to its response.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

/// What an authentication service says of a request that it admits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Fields of the request that nobody but the service may set.
    pub(crate) names: Arc<[HeaderName]>,
    /// Those that it sets.
    pub(crate) fields: Vec<(HeaderName, HeaderValue)>,
    /// What it sets at the client.
    pub(crate) cookies: Vec<HeaderValue>,
}

impl Granted {
    /// Whether a field of the request is dropped.
    pub(crate) fn drops(&self, name: &[u8]) -> bool {
        let is = |other: &HeaderName| name.eq_ignore_ascii_case(other.as_str().as_bytes());
        self.names.iter().any(is)
    }
}
