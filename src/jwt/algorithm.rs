//! How tokens are signed (RFC 7518, section 3; RFC 8037; RFC 9864), with public keys only.

use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKeyRef, Public};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Verifier};

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    /// Over Ed25519.
    EdDsa,
}

/// What a key is, which decides what it can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Algorithm {
    pub const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// As it is registered.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of a name in a token or a key. There is none for `none`, nor for a shared secret.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "Ed25519" => Some(Self::EdDsa),
            _ => Self::ALL.into_iter().find(|one| one.name() == name),
        }
    }

    /// Whether a key can have been used with it.
    pub(super) fn fits(self, kind: KeyKind) -> bool {
        kind == match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                KeyKind::Rsa
            }
            Self::Es256 => KeyKind::P256,
            Self::Es384 => KeyKind::P384,
            Self::Es512 => KeyKind::P521,
            Self::EdDsa => KeyKind::Ed25519,
        }
    }

    /// Whether a signature of `message` is by the owner of a key that fits.
    pub(super) fn verify(self, key: &PKeyRef<Public>, message: &[u8], signature: &[u8]) -> bool {
        self.try_verify(key, message, signature).unwrap_or(false)
    }

    fn try_verify(
        self,
        key: &PKeyRef<Public>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, ErrorStack> {
        let digest = match self {
            Self::EdDsa => {
                return Verifier::new_without_digest(key)?.verify_oneshot(signature, message);
            }
            Self::Rs256 | Self::Ps256 | Self::Es256 => MessageDigest::sha256(),
            Self::Rs384 | Self::Ps384 | Self::Es384 => MessageDigest::sha384(),
            Self::Rs512 | Self::Ps512 | Self::Es512 => MessageDigest::sha512(),
        };
        let mut verifier = Verifier::new(digest, key)?;
        let half = match self {
            Self::Es256 => 32,
            Self::Es384 => 48,
            Self::Es512 => 66,
            Self::Rs256 | Self::Rs384 | Self::Rs512 => {
                verifier.set_rsa_padding(Padding::PKCS1)?;
                return verifier.verify_oneshot(signature, message);
            }
            Self::Ps256 | Self::Ps384 | Self::Ps512 | Self::EdDsa => {
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_mgf1_md(digest)?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                return verifier.verify_oneshot(signature, message);
            }
        };
        // Both numbers at their full length (RFC 7518, section 3.4).
        let Some((r, s)) = signature.split_at_checked(half) else {
            return Ok(false);
        };
        if s.len() != half {
            return Ok(false);
        }
        let (r, s) = (BigNum::from_slice(r)?, BigNum::from_slice(s)?);
        let der = EcdsaSig::from_private_components(r, s)?.to_der()?;
        verifier.verify_oneshot(&der, message)
    }
}
