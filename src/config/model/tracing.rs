//! Where traces go.

use std::path::PathBuf;

use http::{HeaderName, Uri};

use crate::secret::Secret;

/// A collector of spans, and what it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Where spans are sent, with its path.
    pub endpoint: Uri,
    /// More fields of the request; their values can be those of header fields.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The roots to trust (PEM); `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// The name of this gateway among other services.
    pub service: String,
    /// The share of requests that are recorded, from 0 to 1.
    pub sample: f64,
}
