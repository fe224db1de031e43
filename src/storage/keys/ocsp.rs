//! The keys of OCSP responses.

use crate::storage::{Key, StorageError};

/// The prefix of all OCSP responses.
///
/// # Errors
/// Never.
pub fn all_ocsp() -> Result<Key, StorageError> {
    "ocsp".parse()
}

/// The last OCSP response of the certificate with this fingerprint.
///
/// # Errors
/// If `fingerprint` is malformed.
pub fn ocsp(fingerprint: &str) -> Result<Key, StorageError> {
    format!("ocsp/{fingerprint}.der").parse()
}
