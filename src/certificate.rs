//! A certificate chain with its key, parsed once and shared by every handshake that serves it.
//!
//! [`Loader`] makes a [`TlsCertificate`] from PEM and refuses whatever could not be served, so
//! that a handshake never meets a bad certificate. Nothing here reads files or knows the
//! configuration; `manager` does. [`sni`] finds the certificate for a name.

mod chain;
pub mod error;
mod ffi;
mod file_path;
pub mod loader;
pub(crate) mod parse;
pub(crate) mod pem;
pub mod sni;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslRef;
use openssl::x509::X509;
use zeroize::Zeroizing;

pub use self::error::{CertificateError, CertificateWarning};
pub use self::file_path::FilePath;
pub use self::loader::{Loaded, Loader};

use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::schedule::Lifetime;

/// A certificate chain with its private key, checked to belong together.
pub struct TlsCertificate {
    leaf: X509,
    key: PKey<Private>,
    /// From the issuer of the leaf upwards, without the root. Shared between certificates.
    chain: Box<[Arc<X509>]>,
    /// Whether the issuer of the leaf is unknown.
    incomplete: bool,
    names: Box<[Pattern]>,
    kind: KeyKind,
    not_before: UnixTime,
    not_after: UnixTime,
    fingerprint: Fingerprint,
    source: Source,
}

impl TlsCertificate {
    /// The names and addresses of the subject alternative name extension.
    pub fn names(&self) -> &[Pattern] {
        &self.names
    }

    /// Whether this certificate is valid for `host`, a name in normal form.
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.covers(host))
    }

    /// Whether this certificate is valid for `address`.
    pub fn covers_ip(&self, address: IpAddr) -> bool {
        self.names.contains(&Pattern::Ip(address.to_canonical()))
    }

    /// The first second of validity.
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The last second of validity.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether `now` is in the period of validity, before or after it.
    pub fn validity(&self, now: UnixTime) -> Validity {
        if now < self.not_before {
            Validity::NotYet
        } else if now > self.not_after {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }

    /// From when to when it is valid, for those who decide about renewals.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime::new(self.not_before, self.not_after, &self.fingerprint.0)
    }

    /// Whether a renewal is due, where `window` is a part of the life of this certificate, its
    /// last; see [`Lifetime::due_at`].
    pub fn is_due(&self, window: f64, now: UnixTime) -> bool {
        self.lifetime().is_due(window, now)
    }

    /// The kind of the key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SHA-256 over the leaf's DER.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The serial number in upper-case hexadecimal digits, empty where it cannot be read.
    pub fn serial(&self) -> String {
        let serial = self.leaf.serial_number().to_bn();
        serial
            .and_then(|serial| serial.to_hex_str().map(|hex| hex.to_string()))
            .unwrap_or_default()
    }

    /// How it is known at its CA (RFC 9773, section 4.1); `None` where it does not say by which key
    /// it was signed.
    pub fn renewal_id(&self) -> Option<String> {
        let authority = self.leaf.authority_key_id()?.as_slice();
        let serial = self.leaf.serial_number().to_bn().ok()?;
        Some(renewal_id(authority, serial.to_vec()))
    }

    /// The distinguished name of the issuer, `CN=..., O=...`.
    pub fn issuer(&self) -> String {
        parse::name_text(self.leaf.issuer_name())
    }

    /// Where this certificate comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How many certificates a client is sent.
    pub fn chain_len(&self) -> usize {
        1 + self.chain.len()
    }

    /// The chain as it is sent, leaf first, in PEM.
    ///
    /// # Errors
    /// Where OpenSSL cannot encode it.
    pub fn chain_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        let mut pem = self.leaf.to_pem()?;
        for certificate in &self.chain {
            pem.extend(certificate.to_pem()?);
        }
        Ok(pem)
    }

    /// Chain and private key in one PEM, as the loader takes them.
    ///
    /// # Errors
    /// Where OpenSSL cannot encode it.
    pub(crate) fn bundle_pem(&self) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
        let mut pem = Zeroizing::new(self.chain_pem()?);
        pem.extend_from_slice(&self.key_pem()?);
        Ok(pem)
    }

    /// The private key in PEM (PKCS #8).
    ///
    /// # Errors
    /// Where OpenSSL cannot encode it.
    pub(crate) fn key_pem(&self) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
        self.key.private_key_to_pem_pkcs8().map(Zeroizing::new)
    }

    /// The certificate without its chain, DER.
    ///
    /// # Errors
    /// Where OpenSSL cannot encode it.
    pub(crate) fn leaf_der(&self) -> Result<Vec<u8>, ErrorStack> {
        self.leaf.to_der()
    }

    /// SHA-256 of its public key, in hexadecimal.
    ///
    /// # Errors
    /// Where OpenSSL cannot encode it.
    pub(crate) fn key_digest(&self) -> Result<String, ErrorStack> {
        let key = self.key.public_key_to_der()?;
        Ok(Fingerprint(openssl::sha::sha256(&key)).to_string())
    }

    /// Hands chain and key to one handshake.
    ///
    /// Applied for several kinds of key, the certificates stand side by side and OpenSSL takes the
    /// one that the client can verify.
    ///
    /// # Errors
    /// Where OpenSSL is out of memory; the loader has had OpenSSL accept this very certificate.
    pub fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ssl.set_certificate(&self.leaf)?;
        ssl.set_private_key(&self.key)?;
        // The chain belongs to the certificate just set. A handshake may have had one before.
        ffi::clear_chain(ssl)?;
        self.chain
            .iter()
            .try_for_each(|certificate| ssl.add_chain_cert(X509::clone(certificate)))
    }
}

/// The key that signed a certificate and its serial number, as RFC 9773 puts them together.
fn renewal_id(authority: &[u8], mut serial: Vec<u8>) -> String {
    // As in DER, where a number with its highest bit set would be negative.
    if serial.first().is_none_or(|first| *first >= 0x80) {
        serial.insert(0, 0);
    }
    format!("{}.{}", base64url(authority), base64url(&serial))
}

/// RFC 4648, section 5, without padding.
fn base64url(octets: &[u8]) -> String {
    let text = openssl::base64::encode_block(octets);
    let url = text.replace('+', "-").replace('/', "_");
    url.trim_end_matches('=').to_owned()
}

/// Never shows the key.
impl fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("names", &self.names)
            .field("kind", &self.kind)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("fingerprint", &self.fingerprint)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// The kind of a certificate's key, which decides which clients can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    Ecdsa,
    Ed25519,
    Rsa,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ecdsa => "ecdsa",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        })
    }
}

/// Where a moment stands to a period of validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Expired,
    NotYet,
    Valid,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of a configured directory.
    Directory(FilePath),
    /// A file that is named in the configuration.
    File(FilePath),
    /// An issuer, by its name in the configuration.
    Issuer(Arc<str>),
    /// A program that uses this library.
    Program,
}

impl Source {
    /// A word for metrics and tables: `directory`, `file`, `program` or the issuer's name.
    pub fn label(&self) -> &str {
        match self {
            Self::Directory(_) => "directory",
            Self::File(_) => "file",
            Self::Issuer(name) => name,
            Self::Program => "program",
        }
    }

    /// The certificate's file, `None` where it is in none.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Directory(path) | Self::File(path) => Some(path.to_path()),
            Self::Issuer(_) | Self::Program => None,
        }
    }
}

/// The SHA-256 digest of a certificate, shown in lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
