//! A certificate and its private key in DER.

use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::x509::X509Ref;
use zeroize::Zeroizing;

/// A certificate and its private key in DER, in one piece of memory that is wiped when freed.
#[derive(Clone)]
pub struct Der {
    /// The length of the certificate, the certificate, the key. The length is inline because there
    /// may be a million of these.
    bytes: Zeroizing<Box<[u8]>>,
}

/// The size of the length, in octets.
const LENGTH: usize = 4;

impl Der {
    /// Joins the two.
    pub fn new(leaf: &[u8], key: &[u8]) -> Self {
        let length = u32::try_from(leaf.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(LENGTH + leaf.len() + key.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(leaf);
        bytes.extend_from_slice(key);
        Self {
            // The capacity is exact: nothing is moved, so no copy is left behind.
            bytes: Zeroizing::new(bytes.into_boxed_slice()),
        }
    }

    /// Encodes the two.
    ///
    /// # Errors
    /// If OpenSSL cannot encode them.
    pub(super) fn encode(leaf: &X509Ref, key: &PKeyRef<Private>) -> Result<Self, ErrorStack> {
        let key = Zeroizing::new(key.private_key_to_der()?);
        Ok(Self::new(&leaf.to_der()?, &key))
    }

    /// The certificate.
    pub fn leaf(&self) -> &[u8] {
        self.split().0
    }

    /// The private key: PKCS #8, or the form of its algorithm (SEC 1, PKCS #1).
    pub fn key(&self) -> &[u8] {
        self.split().1
    }

    /// The size of both, in octets.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(LENGTH)
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let Some((length, both)) = self.bytes.split_first_chunk::<LENGTH>() else {
            return Default::default();
        };
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        both.split_at_checked(length).unwrap_or_default()
    }
}
