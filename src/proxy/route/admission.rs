//! Whether a host is served on a connection.

use std::sync::Arc;

use super::Site;

/// Whether a host is served on a connection.
pub(crate) enum Admission<'a> {
    Serve(&'a Arc<Site>),
    /// The host is not served on this connection: 421 (RFC 9110, section 15.5.20).
    Misdirected,
    /// The site is served over TLS: redirect to this port.
    ToTls(&'a Arc<Site>, u16),
    /// No site has this host.
    Unknown,
}
