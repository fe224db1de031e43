//! What ties a session to the site that it was made for.

use openssl::sha::Sha256;

use super::select::Purpose;
use crate::config::model::{Tls, TlsPolicy};
use crate::host::HostName;

/// What must be equal for a session to be resumed, apart from the name.
pub(super) fn session_policy(tls: &Tls) -> Vec<u8> {
    format!(
        "snigate 2 {:?} {:?} {:?}",
        tls.versions, tls.ciphers, tls.protocols
    )
    .into_bytes()
}

/// The context of sessions of one name under one policy, at a listener of its own if that has a mark;
/// an address has its name in the DNS.
///
/// Without it OpenSSL resumes a session of one site under the name of any other.
pub(super) fn session_context(
    policy: &[u8],
    own_policy: Option<&TlsPolicy>,
    (name, mark): (Option<&HostName>, Option<&str>),
    purpose: Purpose,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(policy);
    hash.update(&[purpose as u8]);
    if let Some(own_policy) = own_policy {
        hash.update(own_policy.digest());
    }
    if let Some(mark) = mark {
        hash.update(format!("\0{mark}\0").as_bytes());
    }
    if let Some(name) = name {
        hash.update(name.as_str().as_bytes());
    }
    hash.finish()
}
