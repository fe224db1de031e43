//! Public keys that tokens are verified with.

use std::sync::atomic::{AtomicU64, Ordering};

use openssl::ec::EcKey;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::sha::sha256;
use thiserror::Error;

use super::algorithm::{Algorithm, KeyKind};
use super::{jwk, pem};

/// The most keys of a set.
const MOST_KEYS: usize = 256;

/// How many keys one token is compared with, at most: it need not say which it is signed by.
const MOST_TRIED: usize = 8;

/// The size of RSA keys, in bits. Smaller ones can be broken, larger ones take long.
const RSA_BITS: std::ops::RangeInclusive<i32> = 2048..=8192;

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

/// A public key, and what it may be used for.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Option<Box<str>>,
    /// The only algorithm that it may be used with, if it says so.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) kind: KeyKind,
    pub(super) key: PKey<Public>,
}

/// Why a text is no set of keys.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeysError {
    #[error("is neither a JSON Web Key Set nor PEM")]
    Unknown,
    #[error("has no public key that tokens can be verified with")]
    NoKey,
    #[error("has more than {MOST_KEYS} keys")]
    TooMany,
    #[error("has a private key, which nobody but the issuer of the tokens should have")]
    Private,
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

impl Key {
    /// A key that says nothing of itself; `None` if tokens cannot be verified with it.
    pub(super) fn of(key: PKey<Public>) -> Option<Self> {
        let kind = match key.id() {
            Id::RSA => {
                let rsa = key.rsa().ok()?;
                let is_common = RSA_BITS.contains(&rsa.n().num_bits())
                    && (2..=64).contains(&rsa.e().num_bits())
                    && rsa.e().is_bit_set(0);
                is_common.then_some(KeyKind::Rsa)?
            }
            Id::EC => of_curve(&key.ec_key().ok()?)?,
            Id::ED25519 => KeyKind::Ed25519,
            _ => return None,
        };
        Some(Self {
            id: None,
            algorithm: None,
            kind,
            key,
        })
    }
}

fn of_curve(key: &EcKey<Public>) -> Option<KeyKind> {
    match key.group().curve_name()? {
        Nid::X9_62_PRIME256V1 => Some(KeyKind::P256),
        Nid::SECP384R1 => Some(KeyKind::P384),
        Nid::SECP521R1 => Some(KeyKind::P521),
        _ => None,
    }
}
