//! The layout of the storage: what is kept under which key.
//!
//! | key | holds |
//! |---|---|
//! | `certificates/CA/NAME.pem` | a chain and its private key, as one value: they change as one |
//! | `certificates/CA/NAME.json` | facts about that certificate |
//! | `renewal_info/CA/NAME.json` | when the CA suggests to renew that certificate; locked while it is asked |
//! | `orders/CA/NAME.json` | a pending order, with the key of its certificate |
//! | `accounts/CA/ACCOUNT.json` | an account at a CA, with its key |
//! | `external_accounts/CA/EMAIL.json` | the key from ZeroSSL that binds an account |
//! | `revoked/FINGERPRINT.json` | that a certificate was revoked, until its end |
//! | `found_revoked/FINGERPRINT.json` | who says that a certificate is revoked, until its end |
//! | `ocsp/FINGERPRINT.der` | the last OCSP response of a certificate, until its end |
//! | `compromised/DIGEST.pem` | a certificate whose key others may have: no key with this digest is used again |
//! | `challenges/http-01/TOKEN.json`, `challenges/tls-alpn-01/NAME.json` | what any instance needs to respond to a validation |
//! | `dns/set/ID.json` | a record set in the DNS; its lock is held while it is needed |
//! | `dns/persistent/ACCOUNT/NAME.json` | until when a persistent record validates a name for an account; `dns/persistent/NAME.json` before 0.2 |
//! | `instances/ID.json` | an instance that responds to validations; its lock is held while it is alive |
//! | `retry/CA/ACCOUNT/NAME.json` | failures of a certificate with an account at a CA, and when the next attempt is due |
//! | `on_demand/NAME.json` | that a name has its certificate on demand, and when it was last asked for |
//! | `limits/CA.json` | the limits that a CA has stated |
//! | `locks/NAME` | the lock for work on a certificate |
//! | `local_ca/..` | the roots of the local CA |
//! | `sticky/key.json` | the key of the cookies that keep clients at their servers; locked while it is made |
//!
//! CA comes from the URL of the CA's directory, so that a certificate is found again after its issuer
//! was renamed in the configuration, and never mistaken for one of another CA. NAME comes from the
//! names of the certificate, whatever their order. ACCOUNT comes from the e-mail address of an
//! account and from the key identifier of the external account that it is bound to.

mod ocsp;

use openssl::sha::sha256;

pub use self::ocsp::{all_found_revoked, all_ocsp, found_revoked, ocsp};

use super::{Key, StorageError};
use crate::host::{HostName, Pattern};

/// The longest token of a validation; CAs use about 43 characters.
const MAX_TOKEN: usize = 128;

/// Separates the contact of an account from the external account that it is bound to.
const BOUND: &str = "_eab_";

/// The longest segment made from a name as it is; a longer one is cut and gets a digest.
const MAX_NAME: usize = 150;

/// The segment for a certificate with these names, whatever their order: the first in alphabetical
/// order, and a digest of all if there are more.
pub fn subject(names: &[Pattern]) -> String {
    let mut sorted: Vec<String> = names.iter().map(ToString::to_string).collect();
    sorted.sort_unstable();
    match sorted.as_slice() {
        [] => name(""),
        [only] => name(only),
        [first, ..] => format!("{}_{}", name(first), digest(&sorted.join(" "))),
    }
}

/// The segments that earlier versions used for a certificate with these names: they began with the
/// name that came first in the configuration.
pub fn former_subjects(names: &[Pattern]) -> Vec<String> {
    if names.len() < 2 {
        return Vec::new();
    }
    let mut sorted: Vec<String> = names.iter().map(ToString::to_string).collect();
    sorted.sort_unstable();
    let digest = digest(&sorted.join(" "));
    let others = sorted.iter().skip(1);
    others
        .map(|other| format!("{}_{digest}", name(other)))
        .collect()
}

/// The segment for a CA by the URL of its directory: `https://ca.example/acme/directory` becomes
/// `ca.example-acme-directory`.
pub fn ca(directory: &str) -> String {
    let bare = directory.strip_prefix("https://").unwrap_or(directory);
    fitting(bare.trim_end_matches('/'), url)
}

/// The prefix of all certificates.
///
/// # Errors
/// Never.
pub fn certificates() -> Result<Key, StorageError> {
    "certificates".parse()
}

/// The chain and key of a certificate.
///
/// # Errors
/// Never for segments made here.
pub fn certificate(ca: &str, subject: &str) -> Result<Key, StorageError> {
    format!("certificates/{ca}/{subject}.pem").parse()
}

/// Facts about a certificate besides its chain and key.
///
/// # Errors
/// Never for segments made here.
pub fn metadata(ca: &str, subject: &str) -> Result<Key, StorageError> {
    format!("certificates/{ca}/{subject}.json").parse()
}

/// When the CA suggests to renew a certificate.
///
/// # Errors
/// Never for segments made here.
pub fn renewal_info(ca: &str, subject: &str) -> Result<Key, StorageError> {
    format!("renewal_info/{ca}/{subject}.json").parse()
}

/// A pending order.
///
/// # Errors
/// Never for segments made here.
pub fn order(ca: &str, subject: &str) -> Result<Key, StorageError> {
    format!("orders/{ca}/{subject}.json").parse()
}

/// The identifier of an account at a CA, `CA/ACCOUNT`, by its contact and the key identifier of the
/// external account that it is bound to.
pub fn account_of(ca: &str, email: Option<&str>, key_id: Option<&str>) -> String {
    let contact = contact(email);
    match key_id {
        Some(key_id) => format!("{ca}/{contact}{BOUND}{}", digest(key_id)),
        None => format!("{ca}/{contact}"),
    }
}

/// What replaces the account for a local CA, by its name in the configuration.
pub fn local_account(issuer: &str) -> String {
    format!("local_ca/{}", name(issuer))
}

/// The account with this identifier of [`account_of`].
///
/// # Errors
/// Never for what is made here.
pub fn account(account: &str) -> Result<Key, StorageError> {
    format!("accounts/{account}.json").parse()
}

/// The prefix of all accounts at a CA.
///
/// # Errors
/// Never for segments made here.
pub fn accounts_at(ca: &str) -> Result<Key, StorageError> {
    format!("accounts/{ca}").parse()
}

/// Returns true if the account at `key` has this contact and is bound to any external account.
pub fn is_bound_account(key: &Key, ca: &str, email: Option<&str>) -> bool {
    let head = format!("accounts/{}{BOUND}", account_of(ca, email, None));
    key.as_str().starts_with(&head)
}

/// The key that binds an account of this contact at a CA to an external account.
///
/// # Errors
/// Never for segments made here.
pub fn external_account(ca: &str, email: Option<&str>) -> Result<Key, StorageError> {
    format!("external_accounts/{ca}/{}.json", contact(email)).parse()
}

/// The prefix of all revoked certificates.
///
/// # Errors
/// Never.
pub fn all_revoked() -> Result<Key, StorageError> {
    "revoked".parse()
}

/// The record that the certificate with this fingerprint was revoked.
///
/// # Errors
/// If `fingerprint` is malformed.
pub fn revoked(fingerprint: &str) -> Result<Key, StorageError> {
    format!("revoked/{fingerprint}.json").parse()
}

/// The certificate with the public key of this digest, which is compromised.
///
/// # Errors
/// If `digest` is malformed.
pub fn compromised(digest: &str) -> Result<Key, StorageError> {
    format!("compromised/{digest}.pem").parse()
}

/// The prefix of all pending validations.
///
/// # Errors
/// Never.
pub fn challenges() -> Result<Key, StorageError> {
    "challenges".parse()
}

/// The response to the validation of this token over HTTP.
///
/// # Errors
/// If `token` is malformed: it comes from outside, and must be base64url (RFC 8555, section 8.3).
pub fn http01_challenge(token: &str) -> Result<Key, StorageError> {
    if is_token(token) {
        format!("challenges/http-01/{token}.json").parse()
    } else {
        Err(StorageError::Key(token.to_owned()))
    }
}

/// The response to the validation of this name over TLS.
///
/// # Errors
/// Never.
pub fn tls_alpn01_challenge(domain: &HostName) -> Result<Key, StorageError> {
    let name = name(domain.as_str());
    format!("challenges/tls-alpn-01/{name}.json").parse()
}

/// The prefix of all records set in the DNS.
///
/// # Errors
/// Never.
pub fn dns_records() -> Result<Key, StorageError> {
    "dns/set".parse()
}

/// A record set in the DNS, identified by `text`.
///
/// # Errors
/// Never.
pub fn dns_record(text: &str) -> Result<Key, StorageError> {
    format!("dns/set/{}.json", digest(text)).parse()
}

/// The prefix of all names validated by persistent records.
///
/// # Errors
/// Never.
pub fn persistent_proofs() -> Result<Key, StorageError> {
    "dns/persistent".parse()
}

/// Until when a persistent record validates a name, for the CA and account with this URL.
///
/// # Errors
/// Never.
pub fn persistent_proof(account: &str, domain: &HostName) -> Result<Key, StorageError> {
    let (account, name) = (name(account), name(domain.as_str()));
    format!("dns/persistent/{account}/{name}.json").parse()
}

/// The prefix of all instances that respond to validations.
///
/// # Errors
/// Never.
pub fn instances() -> Result<Key, StorageError> {
    "instances".parse()
}

/// An instance that responds to validations.
///
/// # Errors
/// If `id` is malformed.
pub fn instance(id: &str) -> Result<Key, StorageError> {
    format!("instances/{id}.json").parse()
}

/// Returns true if `text` may be the token of a validation.
pub fn is_token(text: &str) -> bool {
    let base64url = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(base64url)
}

/// The failures of a certificate with an account, see [`account_of`].
///
/// # Errors
/// Never for what is made here.
pub fn retry(account: &str, subject: &str) -> Result<Key, StorageError> {
    format!("retry/{account}/{subject}.json").parse()
}

/// The failures of a certificate as earlier versions stored them, whatever the CA.
///
/// # Errors
/// Never for segments made here.
pub fn former_retry(subject: &str) -> Result<Key, StorageError> {
    format!("retry/{subject}.json").parse()
}

/// The prefix of all names with a certificate on demand.
///
/// # Errors
/// Never.
pub fn all_on_demand() -> Result<Key, StorageError> {
    "on_demand".parse()
}

/// The record that the only name of `subject` has a certificate on demand.
///
/// # Errors
/// Never for segments made here.
pub fn on_demand(subject: &str) -> Result<Key, StorageError> {
    format!("on_demand/{subject}.json").parse()
}

/// The limits that a CA has stated.
///
/// # Errors
/// Never for segments made here.
pub fn limits(ca: &str) -> Result<Key, StorageError> {
    format!("limits/{ca}.json").parse()
}

/// The key of the cookies that keep clients at their servers.
///
/// # Errors
/// Never.
pub fn sticky() -> Result<Key, StorageError> {
    "sticky/key.json".parse()
}

/// The lock for work on something.
///
/// # Errors
/// Never for segments made here.
pub fn lock(subject: &str) -> Result<Key, StorageError> {
    format!("locks/{subject}").parse()
}

/// The segment for the contact of an account.
fn contact(email: Option<&str>) -> String {
    email.map_or_else(
        || "default".to_owned(),
        |email| fitting(email, |plain| plain.replacen('-', "@", 1)),
    )
}

/// The segment for the name of a host.
fn name(text: &str) -> String {
    fitting(text, str::to_owned)
}

/// `text` as a segment of a key: other characters become `-`. It gets a digest if it is long, or if
/// `reading` does not restore it from the segment: another text may give the same.
fn fitting(text: &str, reading: impl Fn(&str) -> String) -> String {
    let plain: String = text
        .chars()
        .map(|char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '*' => char,
            _ => '-',
        })
        .collect();
    let plain = plain.trim_start_matches('.');
    let is_plain = !plain.is_empty() && plain.len() <= MAX_NAME;
    if is_plain && !ends_in_digest(plain) && reading(plain) == text {
        return plain.to_owned();
    }
    let head: String = plain.chars().take(MAX_NAME).collect();
    format!("{head}_{}", digest(text))
}

/// The URL, without its scheme, that a segment most likely stands for: the host ends at the first
/// `-` after the last dot, a number after it is its port, and then comes the path.
fn url(segment: &str) -> String {
    let top = segment.rfind('.').unwrap_or_default();
    let (before, rest) = segment.split_at(top);
    let Some((end, path)) = rest.split_once('-') else {
        return segment.to_owned();
    };
    let first = path.split('-').next().unwrap_or_default();
    let is_port = !first.is_empty() && first.bytes().all(|octet| octet.is_ascii_digit());
    let mark = if is_port { ':' } else { '/' };
    format!("{before}{end}{mark}{}", path.replace('-', "/"))
}

/// Returns true if a segment looks as if it ended in a digest.
fn ends_in_digest(segment: &str) -> bool {
    segment.rsplit_once('_').is_some_and(|(_, end)| {
        let is_hexadecimal = |octet: u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
        end.len() == 16 && end.bytes().all(is_hexadecimal)
    })
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
        let turned = names(&["b.example", "a.example"]);
        assert_eq!(two, subject(&turned));
        let former = former_subjects(&turned);
        assert_eq!(former, [two.replacen('a', "b", 1)]);
        assert_eq!(former_subjects(&names(&["a.example"])), [""; 0]);
        assert_ne!(two, subject(&names(&["a.example", "c.example"])));
        let long = format!("{}.example", ["a"; 120].join("."));
        let key = certificate("ca", &subject(&names(&[&long]))).expect("a key");
        assert!(key.as_str().len() < 220, "{key}");
    }

    #[test]
    fn tokens_of_validations_are_base64url_and_bounded() {
        let key = http01_challenge("-evaGxfADs6_x").expect("a token");
        assert_eq!(key.as_str(), "challenges/http-01/-evaGxfADs6_x.json");
        let long = "a".repeat(129);
        for bad in ["", "..", "a/b", "../a", "a.b", "a b", "a=", "\u{fc}", &long] {
            assert!(http01_challenge(bad).is_err(), "{bad:?}");
        }
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for name in ["a.example", "_x.example", &longest] {
            let key = tls_alpn01_challenge(&name.parse().expect("a name")).expect("a key");
            assert!(key.as_str().starts_with("challenges/tls-alpn-01/"), "{key}");
        }
    }

    #[test]
    fn cas_are_told_apart_by_their_directory() {
        assert_eq!(
            ca("https://acme-v02.api.letsencrypt.org/directory"),
            "acme-v02.api.letsencrypt.org-directory"
        );
        assert_eq!(ca("https://127.0.0.1:14000/dir"), "127.0.0.1-14000-dir");
        let of = account_of(&ca("https://ca/dir"), Some("ops@example.com"), None);
        let key = account(&of).expect("a key");
        assert_eq!(key.as_str(), "accounts/ca-dir/ops-example.com.json");
    }

    #[test]
    fn accounts_are_told_apart_by_what_they_are_bound_to() {
        let email = Some("ops@example.com");
        let of = |email, key_id| account(&account_of("ca", email, key_id)).expect("a key");
        let bare = of(email, None);
        let (one, two) = (of(email, Some("k1")), of(email, Some("k2")));
        assert_ne!(one, two);
        assert!(is_bound_account(&one, "ca", email), "{one}");
        assert!(!is_bound_account(&bare, "ca", email));
        assert!(!is_bound_account(&one, "ca", Some("ops@example.org")));
        assert!(is_bound_account(&of(None, Some("k1")), "ca", None));
        let key = retry(&account_of("ca", None, Some("k1")), "a.example").expect("a key");
        assert!(key.as_str().starts_with("retry/ca/default_eab_"), "{key}");
    }

    #[test]
    fn what_is_different_has_different_keys() {
        // (address, segment without a digest)
        let urls = [
            ("https://ca.example/a/b", Some("ca.example-a-b")),
            ("https://ca.example/a-b", None),
            ("https://ca.example-a/b", None),
            ("https://ca.example-a.b", Some("ca.example-a.b")),
            ("http://ca.example/a/b", None),
            ("https://ca.example/a/b?c", None),
            ("https://ca.example/a_b", Some("ca.example-a_b")),
            ("https://ca.example:8443/a/b", Some("ca.example-8443-a-b")),
            ("https://ca.example/8443/a/b", None),
            ("https://ca.example/v1.0/a", None),
            ("https://ca/a", Some("ca-a")),
            ("https://ca-a", None),
            (
                "https://acme-v02.api.letsencrypt.org/directory",
                Some("acme-v02.api.letsencrypt.org-directory"),
            ),
            (
                "https://acme.zerossl.com/v2/DV90",
                Some("acme.zerossl.com-v2-DV90"),
            ),
            (
                "https://dv.acme-v02.api.pki.goog/directory",
                Some("dv.acme-v02.api.pki.goog-directory"),
            ),
            ("https://localhost:14000/dir", Some("localhost-14000-dir")),
            ("https://[::1]:14000/dir", None),
        ];
        let emails = [
            ("ops@example.com", Some("ops-example.com")),
            ("ops@my-example.com", Some("ops-my-example.com")),
            ("ops-x@d.example", None),
            ("ops+x@d.example", None),
            ("ops@x-d.example", Some("ops-x-d.example")),
            (".ops@example.com", None),
            ("ops@example.com_0123456789abcdef", None),
        ];
        let email = |email: &str| {
            let key = account(&account_of("ca", Some(email), None)).expect("a key");
            let name = key.as_str().trim_start_matches("accounts/ca/");
            name.trim_end_matches(".json").to_owned()
        };
        let urls = urls.map(|(text, plain)| (text, ca(text), plain));
        let emails = emails.map(|(text, plain)| (text, email(text), plain));
        for all in [&urls[..], &emails[..]] {
            let mut segments: Vec<_> = all.iter().map(|(_, segment, _)| segment).collect();
            segments.sort_unstable();
            segments.dedup();
            assert_eq!(segments.len(), all.len(), "{segments:?}");
            for (text, segment, plain) in all {
                match plain {
                    Some(plain) => assert_eq!(segment, plain, "{text}"),
                    None => assert!(ends_in_digest(segment), "{text}: {segment}"),
                }
            }
        }
    }
}
