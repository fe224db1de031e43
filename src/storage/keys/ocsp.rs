//! The keys of OCSP responses, and of what was found to be revoked.

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

/// The prefix of all certificates that were found to be revoked.
///
/// # Errors
/// Never.
pub fn all_found_revoked() -> Result<Key, StorageError> {
    "found_revoked".parse()
}

/// The record that the certificate with this fingerprint was found to be revoked.
///
/// # Errors
/// If `fingerprint` is malformed.
pub fn found_revoked(fingerprint: &str) -> Result<Key, StorageError> {
    format!("found_revoked/{fingerprint}.json").parse()
}
