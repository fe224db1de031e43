//! What changes in the certificates that are served.

use std::sync::Arc;

use super::TlsCertificate;

/// A certificate that took the place of another, or of none.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) old: Option<Arc<TlsCertificate>>,
    pub(crate) new: Option<Arc<TlsCertificate>>,
}
