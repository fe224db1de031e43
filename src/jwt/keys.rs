//! The public keys that verify tokens.

use std::sync::atomic::{AtomicU64, Ordering};

use openssl::sha::sha256;

use super::algorithm::Algorithm;
use super::key::{Key, KeysError, MOST_KEYS};
use super::{jwk, pem};

/// How many keys one token is compared with, at most: it need not say which it is signed by.
const MOST_TRIED: usize = 8;

/// The keys that verify tokens.
#[derive(Debug)]
pub struct KeySet {
    keys: Box<[Key]>,
    /// How many keys of the source cannot be used here.
    skipped: usize,
    /// How many of the certificates that the keys are from have expired.
    expired: usize,
    /// How many of the certificates that the keys are from have issued others of the source.
    issuing: usize,
    /// No two sets have the same.
    id: u64,
    digest: [u8; 32],
}

impl KeySet {
    /// The keys of a JSON Web Key Set (RFC 7517, section 5) or of PEM: public keys and certificates.
    /// Those that cannot be used here are left out.
    ///
    /// # Errors
    /// If there is none that can be.
    pub fn parse(octets: &[u8]) -> Result<Self, KeysError> {
        let keys = Self::parse_published(octets)?;
        match keys.count() {
            0 => Err(KeysError::NoKey),
            _ => Ok(keys),
        }
    }

    /// The same for what an issuer publishes: it has no keys if the issuer has withdrawn them all.
    ///
    /// # Errors
    /// If it is neither a JSON Web Key Set nor PEM, or has too many keys, or private ones.
    pub(super) fn parse_published(octets: &[u8]) -> Result<Self, KeysError> {
        let text = octets.trim_ascii_start();
        let found = match text.first() {
            Some(b'{') => jwk::read_keys(text, MOST_KEYS)?,
            _ => pem::read_keys(text, MOST_KEYS)?,
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            keys: found.keys.into(),
            skipped: found.skipped,
            expired: found.expired,
            issuing: found.issuing,
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

    /// How many of the certificates that the keys are from have expired.
    pub fn expired(&self) -> usize {
        self.expired
    }

    /// How many of the certificates that the keys are from have issued others of the source.
    pub fn issuing(&self) -> usize {
        self.issuing
    }

    /// No two sets have the same.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it was made of these octets.
    pub(super) fn is_of(&self, octets: &[u8]) -> bool {
        self.digest == sha256(octets)
    }

    /// The keys by which a token with this `kid` may be signed: those of this id, then those without
    /// one, which may be any.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let fitting = move || {
            self.keys.iter().filter(move |key| {
                algorithm.fits(key.kind) && key.algorithm.is_none_or(|only| only == algorithm)
            })
        };
        let named = fitting().filter(move |key| id.is_some() && key.id.as_deref() == id);
        let others = fitting().filter(move |key| id.is_none() || key.id.is_none());
        named.chain(others).take(MOST_TRIED)
    }
}

/// Those that were made of the same octets are equal.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}
