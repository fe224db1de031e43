//! The key under which cookies are made, and where it is kept.

use std::fmt;
use std::sync::Arc;

use openssl::base64;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rand::rand_priv_bytes;
use openssl::sign::Signer;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::storage::{Storage, StorageError, damaged, keys};

/// How many octets of a code a cookie has.
const CODE: usize = 18;

/// The key of the cookies that keep clients at their servers. A handle; clones share the key.
#[derive(Clone)]
pub struct StickyKey(Arc<Zeroizing<[u8; 32]>>);

/// The key as it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    /// In base64.
    key: String,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl StickyKey {
    /// The key in the storage, which is made if there is none. Blocks.
    ///
    /// # Errors
    /// If the storage cannot be read or written, or there is no randomness.
    pub fn open(storage: &dyn Storage) -> Result<Self, StorageError> {
        if let Some(key) = Self::load(storage)? {
            return Ok(key);
        }
        let at = keys::sticky()?;
        let _lease = storage.lock(&at)?;
        // Another process may have been faster.
        if let Some(key) = Self::load(storage)? {
            return Ok(key);
        }
        let key = Self::generate().map_err(|error| StorageError::backend("make", &at, error))?;
        let record = Record {
            key: base64::encode_block(&key.0[..]),
        };
        let text = serde_json::to_vec(&record).unwrap_or_default();
        storage.store(&at, &Zeroizing::new(text))?;
        Ok(key)
    }

    fn load(storage: &dyn Storage) -> Result<Option<Self>, StorageError> {
        damaged::read_or_set_aside(storage, &keys::sticky()?, |value| {
            let record: Record = damaged::parse_json(value)?;
            let key = base64::decode_block(&record.key).map(Zeroizing::new).ok();
            let key = key.and_then(|key| <[u8; 32]>::try_from(key.as_slice()).ok());
            let key = key.ok_or_else(|| "it is not a key of 32 octets".to_owned())?;
            Ok::<_, String>(Self(Arc::new(Zeroizing::new(key))))
        })
    }

    /// A new key that no other process has.
    ///
    /// # Errors
    /// If there is no randomness.
    pub(in crate::proxy) fn generate() -> Result<Self, ErrorStack> {
        let mut key = Zeroizing::new([0; 32]);
        rand_priv_bytes(&mut key[..])?;
        Ok(Self(Arc::new(key)))
    }

    /// The code of an address of an upstream, in base64url.
    pub(super) fn sign(&self, upstream: &str, address: &str) -> Option<Box<str>> {
        let key = PKey::hmac(&self.0[..]).ok()?;
        let mut signer = Signer::new(MessageDigest::sha256(), &key).ok()?;
        for part in ["sticky", upstream, address] {
            signer.update(&part.len().to_be_bytes()).ok()?;
            signer.update(part.as_bytes()).ok()?;
        }
        let code = signer.sign_to_vec().ok()?;
        let text = base64::encode_block(code.get(..CODE)?);
        Some(text.replace('+', "-").replace('/', "_").into())
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn all_processes_of_a_storage_have_one_key() {
        let storage = MemoryStorage::default();
        let code = |key: &StickyKey| key.sign("app", "10.0.0.1:80").expect("a code");
        let first = StickyKey::open(&storage).expect("a key");
        let again = StickyKey::open(&storage).expect("a key");
        assert_eq!(code(&first), code(&again));
        assert_ne!(code(&first), code(&StickyKey::generate().expect("a key")));
        assert_eq!(format!("{first:?}"), "[redacted]");
    }

    #[test]
    fn a_damaged_key_is_set_aside() {
        let storage = MemoryStorage::default();
        let at = keys::sticky().expect("a key");
        storage
            .store(&at, b"{\"key\":\"c2hvcnQ=\"}")
            .expect("stored");
        let key = StickyKey::open(&storage).expect("a key");
        assert!(damaged::is_aside(&storage, &at).expect("readable"));
        let again = StickyKey::open(&storage).expect("a key");
        assert_eq!(key.0, again.0);
    }

    #[test]
    fn a_code_is_of_one_address_of_one_upstream() {
        let key = StickyKey::generate().expect("a key");
        let code = |upstream, address| key.sign(upstream, address).expect("a code");
        let one = code("app", "10.0.0.1:80");
        assert_eq!(one.len(), 24);
        let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
        assert!(one.bytes().all(is_plain), "{one}");
        assert_ne!(one, code("app", "10.0.0.2:80"));
        assert_ne!(one, code("other", "10.0.0.1:80"));
        assert_ne!(code("a", "bc"), code("ab", "c"));
    }
}
