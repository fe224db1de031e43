//! The layout of the storage: what is kept under which key.
//!
//! | key | holds |
//! |---|---|
//! | `certificates/CA/NAME.pem` | a chain and its private key, as one value: they change as one |
//! | `certificates/CA/NAME.json` | what is known of that certificate beside |
//! | `orders/CA/NAME.json` | an order under way, with the key that its certificate will have |
//! | `accounts/CA/EMAIL.json` | an account at a CA, with its key |
//! | `challenges/TYPE/NAME.json` | what any instance needs to answer a validation |
//! | `retry/NAME.json` | failures of a certificate, and when the next attempt is due |
//! | `limits/CA.json` | what a CA has told us not to do for now |
//! | `locks/NAME` | held by whoever works on a certificate |
//! | `local_ca/..` | the roots of the local CA |
//!
//! CA is made from the URL of the CA's directory, so that a certificate is found again when the
//! issuer gets another name in the configuration, and never taken for one of another CA.

use openssl::sha::sha256;

use super::{Key, StorageError};
use crate::host::Pattern;

/// The longest segment made from a name as it is; what is longer is cut and gets a digest.
const MAX_NAME: usize = 150;

/// The segment for a certificate with these names: the first name, and where there are more a
/// digest of them all.
pub fn subject(names: &[Pattern]) -> String {
    let mut sorted: Vec<String> = names.iter().map(ToString::to_string).collect();
    let first = sorted.first().cloned().unwrap_or_default();
    if sorted.len() == 1 {
        return fitting(&first);
    }
    sorted.sort();
    format!("{}_{}", fitting(&first), digest(&sorted.join(" ")))
}

/// The segment for a CA by the URL of its directory: `https://ca.example/acme/directory` becomes
/// `ca.example-acme-directory`.
pub fn ca(directory: &str) -> String {
    let bare = directory
        .split_once("://")
        .map_or(directory, |(_, rest)| rest);
    fitting(bare.trim_end_matches('/'))
}

/// The chain and key of a certificate.
///
/// # Errors
/// Never for segments made here.
pub fn certificate(ca: &str, subject: &str) -> Result<Key, StorageError> {
    format!("certificates/{ca}/{subject}.pem").parse()
}

/// What is known of a certificate beside its chain and key.
///
/// # Errors
/// Never for segments made here.
pub fn metadata(ca: &str, subject: &str) -> Result<Key, StorageError> {
    format!("certificates/{ca}/{subject}.json").parse()
}

/// An order under way.
///
/// # Errors
/// Never for segments made here.
pub fn order(ca: &str, subject: &str) -> Result<Key, StorageError> {
    format!("orders/{ca}/{subject}.json").parse()
}

/// An account at a CA, of this contact.
///
/// # Errors
/// Never for segments made here.
pub fn account(ca: &str, email: Option<&str>) -> Result<Key, StorageError> {
    let contact = email.map_or_else(|| "default".to_owned(), fitting);
    format!("accounts/{ca}/{contact}.json").parse()
}

/// The failures of a certificate.
///
/// # Errors
/// Never for segments made here.
pub fn retry(subject: &str) -> Result<Key, StorageError> {
    format!("retry/{subject}.json").parse()
}

/// What a CA has told us not to do for now.
///
/// # Errors
/// Never for segments made here.
pub fn limits(ca: &str) -> Result<Key, StorageError> {
    format!("limits/{ca}.json").parse()
}

/// The lock of whoever works on something.
///
/// # Errors
/// Never for segments made here.
pub fn lock(subject: &str) -> Result<Key, StorageError> {
    format!("locks/{subject}").parse()
}

/// `text` as a segment of a key: other characters become `-`, and what is long, or would become
/// the same as another, gets a digest.
fn fitting(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '*' => char,
            _ => '-',
        })
        .collect();
    let plain = plain.trim_start_matches('.');
    if plain.len() <= MAX_NAME && !plain.is_empty() {
        return plain.to_owned();
    }
    let head: String = plain.chars().take(MAX_NAME).collect();
    format!("{head}_{}", digest(text))
}

fn digest(text: &str) -> String {
    let hash = sha256(text.as_bytes());
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Pattern> {
        names
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect()
    }

    #[test]
    fn certificates_are_found_by_their_names_in_any_order() {
        assert_eq!(subject(&names(&["a.example"])), "a.example");
        assert_eq!(subject(&names(&["*.a.example"])), "*.a.example");
        let two = subject(&names(&["a.example", "b.example"]));
        assert!(two.starts_with("a.example_"), "{two}");
        assert_ne!(two, subject(&names(&["a.example", "c.example"])));
        let long = format!("{}.example", ["a"; 120].join("."));
        let key = certificate("ca", &subject(&names(&[&long]))).expect("a key");
        assert!(key.as_str().len() < 220, "{key}");
    }

    #[test]
    fn cas_are_told_apart_by_their_directory() {
        assert_eq!(
            ca("https://acme-v02.api.letsencrypt.org/directory"),
            "acme-v02.api.letsencrypt.org-directory"
        );
        assert_eq!(ca("https://127.0.0.1:14000/dir"), "127.0.0.1-14000-dir");
        let key = account(&ca("https://ca/dir"), Some("ops@example.com")).expect("a key");
        assert_eq!(key.as_str(), "accounts/ca-dir/ops-example.com.json");
    }
}
