//! Public keys in PEM (RFC 7468): keys, and certificates that have them.

use std::cmp::Ordering;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509VerifyResult};

use super::key::{Found, Key, KeysError};

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// The keys of all blocks.
pub(super) fn read_keys(text: &[u8], most: usize) -> Result<Found, KeysError> {
    let text = str::from_utf8(text).map_err(|_| KeysError::Unknown)?;
    let mut found = Found::default();
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let block = rest.get(at..).unwrap_or_default();
        let label = block.get(BEGIN.len()..).unwrap_or_default();
        let (label, _) = label.split_once(DASHES).ok_or(KeysError::Unknown)?;
        let end = format!("-----END {label}-----");
        let length = block.find(&end).ok_or(KeysError::Unknown)? + end.len();
        let (block, after) = block.split_at_checked(length).ok_or(KeysError::Unknown)?;
        if label.ends_with("PRIVATE KEY") {
            return Err(KeysError::Private);
        }
        if found.keys.len() + found.skipped >= most {
            return Err(KeysError::TooMany);
        }
        let read = read_block(label, block.as_bytes()).map_err(|_| KeysError::Unknown)?;
        if let Some((key, certificate)) = read {
            match Key::of(key) {
                Some(key) => {
                    found.keys.push(key);
                    certificates.extend(certificate);
                }
                None => found.skipped += 1,
            }
        }
        rest = after;
    }
    if rest.len() == text.len() {
        return Err(KeysError::Unknown);
    }
    found.expired = count(&certificates, has_expired);
    found.issuing = count(&certificates, |one| has_issued_any(one, &certificates));
    Ok(found)
}

/// The key of a block, and the certificate that it is from.
type BlockKey = (PKey<Public>, Option<X509>);

/// What is in one block; `None` if it has no key.
fn read_block(label: &str, block: &[u8]) -> Result<Option<BlockKey>, ErrorStack> {
    Ok(Some(match label {
        "PUBLIC KEY" => (PKey::public_key_from_pem(block)?, None),
        "RSA PUBLIC KEY" => (
            PKey::from_rsa(Rsa::public_key_from_pem_pkcs1(block)?)?,
            None,
        ),
        "CERTIFICATE" => {
            let certificate = X509::from_pem(block)?;
            (certificate.public_key()?, Some(certificate))
        }
        _ => return Ok(None),
    }))
}

fn count(certificates: &[X509], is_one: impl Fn(&X509) -> bool) -> usize {
    certificates.iter().filter(|one| is_one(one)).count()
}

fn has_expired(certificate: &X509) -> bool {
    let now = Asn1Time::days_from_now(0);
    let compared = now.and_then(|now| certificate.not_after().compare(&now));
    compared.is_ok_and(|compared| compared == Ordering::Less)
}

fn has_issued_any(issuer: &X509, certificates: &[X509]) -> bool {
    certificates.iter().any(|one| {
        issuer.issued(one) == X509VerifyResult::OK && one.issued(one) != X509VerifyResult::OK
    })
}
