//! Which names may have a certificate.

use crate::host::Pattern;

/// Whether the policy `allow` lets `host`, a name in normal form, have a certificate.
pub fn allows(allow: &[Pattern], host: &str) -> bool {
    let has_dot = host.contains('.');
    allow.iter().any(|pattern| match pattern {
        Pattern::Exact(_) => pattern.covers(host),
        Pattern::Ip(_) => false,
        Pattern::Any | Pattern::Wildcard(_) => has_dot && pattern.covers(host),
    })
}
