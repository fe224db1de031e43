//! Public keys in PEM (RFC 7468): keys, and certificates that have them.

use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use openssl::x509::X509;

use super::key::{Key, KeysError};

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// The keys of all blocks.
pub(super) fn read_keys(text: &[u8], most: usize) -> Result<Vec<Key>, KeysError> {
    let text = str::from_utf8(text).map_err(|_| KeysError::Unknown)?;
    let mut keys = Vec::new();
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
        if keys.len() >= most {
            return Err(KeysError::TooMany);
        }
        keys.extend(read_block(label, block.as_bytes())?);
        rest = after;
    }
    if rest.len() == text.len() {
        return Err(KeysError::Unknown);
    }
    Ok(keys)
}

/// The key of one block, if it is one that tokens can be verified with.
fn read_block(label: &str, block: &[u8]) -> Result<Option<Key>, KeysError> {
    let key = match label {
        "PUBLIC KEY" => PKey::public_key_from_pem(block),
        "RSA PUBLIC KEY" => Rsa::public_key_from_pem_pkcs1(block).and_then(PKey::from_rsa),
        "CERTIFICATE" => X509::from_pem(block).and_then(|certificate| certificate.public_key()),
        _ => return Ok(None),
    };
    let key: PKey<Public> = key.map_err(|_| KeysError::Unknown)?;
    Ok(Key::of(key))
}
