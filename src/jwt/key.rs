//! One public key, and what it may be used for.

use openssl::ec::EcKey;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use thiserror::Error;

use super::algorithm::{Algorithm, KeyKind};

/// The most keys of a set.
pub(super) const MOST_KEYS: usize = 256;

/// The size of RSA keys, in bits. Smaller ones can be broken, larger ones take long.
const RSA_BITS: std::ops::RangeInclusive<i32> = 2048..=8192;

/// What was found in a source of keys.
#[derive(Default)]
pub(super) struct Found {
    pub(super) keys: Vec<Key>,
    /// How many keys cannot be used here.
    pub(super) skipped: usize,
    /// How many certificates of usable keys have expired.
    pub(super) expired: usize,
    /// How many certificates of usable keys have issued others of the source.
    pub(super) issuing: usize,
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
