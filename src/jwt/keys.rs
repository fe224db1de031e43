//! Public keys that tokens are verified with.

use std::sync::atomic::{AtomicU64, Ordering};

use openssl::sha::sha256;

use super::algorithm::Algorithm;
use super::key::{Key, KeysError, MOST_KEYS};
use super::{jwk, pem};

/// How many keys one token is compared with, at most: it need not say which it is signed by.
const MOST_TRIED: usize = 8;

/// Keys that tokens are verified with.
#[derive(Debug)]
pub struct KeySet {
    keys: Box<[Key]>,
    /// How many keys of the source cannot be used here.
    skipped: usize,
    /// No two sets have the same.
    id: u64,
    digest: [u8; 32],
}

impl KeySet {
    /// The keys of a JSON Web Key Set (RFC 7517, section 5) or of PEM: public keys and certificates.
    /// Those of a JSON Web Key Set that cannot be used here are left out.
    ///
    /// # Errors
    /// If there is none that can be.
    pub fn parse(octets: &[u8]) -> Result<Self, KeysError> {
        let text = octets.trim_ascii_start();
        let (keys, skipped) = match text.first() {
            Some(b'{') => jwk::read_keys(text, MOST_KEYS)?,
            _ => (pem::read_keys(text, MOST_KEYS)?, 0),
        };
        if keys.is_empty() {
            return Err(KeysError::NoKey);
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            keys: keys.into(),
            skipped,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            digest: sha256(octets),
        })
    }

    /// How many keys it has.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// How many keys of the source cannot be used here.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// No two sets have the same.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it was made of these octets.
    pub(super) fn is_of(&self, octets: &[u8]) -> bool {
        self.digest == sha256(octets)
    }

    /// The keys by which a token with this `kid` may be signed. A key without an id may be any.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let keys = self.keys.iter().filter(move |key| {
            let is_meant = match (id, &key.id) {
                (Some(id), Some(own)) => **own == *id,
                (None, _) | (_, None) => true,
            };
            is_meant
                && algorithm.fits(key.kind)
                && key.algorithm.is_none_or(|only| only == algorithm)
        });
        keys.take(MOST_TRIED)
    }
}
