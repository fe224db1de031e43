//! What a handshake needs of a certificate: at rest as DER, or on disk; parsed when first needed.
//!
//! OpenSSL's parsed form of a certificate and its key takes about 8 KiB, DER a tenth of that. Few
//! of a great many certificates are in use at a time, so the parsed form is kept for those alone
//! ([`super::parsed_cache::ParsedCache`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, PKeyRef, Private};
use openssl::ssl::SslRef;
use openssl::x509::{X509, X509Ref};
use thiserror::Error;

use super::chain::ChainRef;
use super::der::Der;
use super::{TlsCertificate, ffi, parse, pem};

/// Fetches certificates that are not held in memory.
pub trait CertSource: Send + Sync {
    /// Fetches `certificate`. Blocks on files or the network.
    ///
    /// # Errors
    /// Why it cannot be fetched, for people.
    fn fetch(&self, certificate: &TlsCertificate) -> Result<Fetched, String>;

    /// Returns true if what was fetched stays in memory from then on.
    fn stays_in_memory(&self) -> bool {
        false
    }
}

/// What a [`CertSource`] has fetched.
pub enum Fetched {
    /// The requested certificate.
    Same(Der),
    /// One that has replaced it meanwhile, for names that include its names.
    Newer(Box<TlsCertificate>),
}

/// Where a certificate with its key is while no handshake needs it.
#[derive(Clone)]
pub(super) enum AtRest {
    Memory(Der),
    OnDisk(OnDisk),
}

/// A certificate on disk, at least until it has been fetched.
#[derive(Clone)]
pub(super) struct OnDisk {
    pub(super) source: Arc<dyn CertSource>,
    /// What was fetched, if it stays.
    held: OnceLock<Der>,
}

impl OnDisk {
    pub(super) fn new(source: Arc<dyn CertSource>) -> Self {
        Self {
            source,
            held: OnceLock::new(),
        }
    }

    /// Holds `der` from now on, if the source wants that.
    pub(super) fn hold_der(&self, der: Der) {
        if self.source.stays_in_memory() {
            // Another thread may have been faster, with the same.
            let _ = self.held.set(der);
        }
    }
}

impl AtRest {
    /// Certificate and key, if they are in memory.
    pub(super) fn der_in_memory(&self) -> Option<&Der> {
        match self {
            Self::Memory(der) => Some(der),
            Self::OnDisk(away) => away.held.get(),
        }
    }
}

/// A certificate with its key and its chain, ready for handshakes.
pub struct Material {
    leaf: X509,
    key: PKey<Private>,
    chain: ChainRef,
    /// Roughly how many octets of memory it takes.
    pub(super) weight: usize,
    /// Whether it was used since the cache last looked.
    used: AtomicBool,
}

/// What OpenSSL needs for a parsed certificate and its key, apart from what grows with their size.
const PARSED: usize = 5 * 1024;

/// What grows with their size: the encoding is kept too, and each part is an object of its own.
const PARSED_PER_OCTET: usize = 3;

/// Why a certificate is not ready for a handshake.
#[derive(Debug, Error)]
pub enum MaterialError {
    #[error("cannot be fetched: {0}")]
    Fetch(String),
    #[error("OpenSSL cannot read it, though it could before: {0}")]
    Parse(#[from] ErrorStack),
    /// The source has another certificate.
    #[error("its source now holds another certificate")]
    Other,
    #[error("work on it was interrupted by a bug")]
    Broken,
}

impl Material {
    pub(super) fn new(leaf: X509, key: PKey<Private>, chain: ChainRef, size: usize) -> Self {
        Self {
            leaf,
            key,
            chain,
            weight: PARSED + PARSED_PER_OCTET * size,
            used: AtomicBool::new(true),
        }
    }

    pub(super) fn parse(der: &Der, chain: ChainRef) -> Result<Self, ErrorStack> {
        let parsed = parse_both(der);
        // The handshake on this thread would take errors left by decoders as its own failure.
        drop(ErrorStack::get());
        let (leaf, key) = parsed?;
        Ok(Self::new(leaf, key, chain, der.len()))
    }

    /// Fetches and parses `certificate`. Blocks.
    pub(super) fn fetch(
        away: &OnDisk,
        certificate: &TlsCertificate,
    ) -> Result<Self, MaterialError> {
        let kept = away.source.fetch(certificate);
        match kept.map_err(MaterialError::Fetch)? {
            Fetched::Same(der) => {
                if openssl::sha::sha256(der.leaf()) != certificate.fingerprint.0 {
                    return Err(MaterialError::Other);
                }
                let material = Self::parse(&der, certificate.chain.clone())?;
                away.hold_der(der);
                Ok(material)
            }
            Fetched::Newer(newer) => {
                let covers = |name| newer.names().contains(name);
                if !certificate.names().iter().all(covers) {
                    return Err(MaterialError::Other);
                }
                match newer.at_rest.der_in_memory() {
                    Some(der) => Ok(Self::parse(der, newer.chain.clone())?),
                    None => Err(MaterialError::Other),
                }
            }
        }
    }

    /// The certificate alone.
    pub(super) fn leaf(&self) -> &X509Ref {
        &self.leaf
    }

    pub(super) fn key(&self) -> &PKeyRef<Private> {
        &self.key
    }

    pub(super) fn chain(&self) -> &[Arc<X509>] {
        &self.chain
    }

    /// Hands chain and key to one handshake.
    ///
    /// If applied for several kinds of key, the certificates coexist and OpenSSL picks the one that
    /// the client can verify.
    ///
    /// # Errors
    /// If OpenSSL is out of memory; the loader has had OpenSSL accept this certificate.
    pub fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ssl.set_certificate(&self.leaf)?;
        ssl.set_private_key(&self.key)?;
        // The chain belongs to the certificate just set. An earlier call may have set one.
        ffi::clear_chain(ssl)?;
        self.chain
            .iter()
            .try_for_each(|certificate| ssl.add_chain_cert(X509::clone(certificate)))
    }

    /// Notes that a handshake uses it. Writes only if that is news, since all cores share it.
    pub(super) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Returns true if it was used since the last call.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

fn parse_both(der: &Der) -> Result<(X509, PKey<Private>), ErrorStack> {
    Ok((X509::from_der(der.leaf())?, pem::private_key(der.key())?))
}

/// What people are shown of a certificate beyond what is always known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The distinguished name of the issuer, `CN=..., O=...`.
    pub issuer: String,
    /// The serial number in upper-case hexadecimal digits.
    pub serial: String,
}

impl Description {
    pub(super) fn of(leaf: &X509Ref) -> Self {
        let serial = leaf.serial_number().to_bn();
        let serial = serial.and_then(|serial| serial.to_hex_str().map(|hex| hex.to_string()));
        Self {
            issuer: parse::name_text(leaf.issuer_name()),
            serial: serial.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_many_take_little() {
        // With the counts of an `Arc`, what an allocator provides for 192 octets.
        let size = size_of::<TlsCertificate>();
        assert!(size <= 192 - 2 * size_of::<usize>(), "{size}");
    }

    #[test]
    fn both_are_as_they_were() {
        for (leaf, key) in [("leaf", "key"), ("", "key"), ("leaf", ""), ("", "")] {
            let der = Der::new(leaf.as_bytes(), key.as_bytes());
            assert_eq!(der.leaf(), leaf.as_bytes());
            assert_eq!(der.key(), key.as_bytes());
            assert_eq!(der.len(), leaf.len() + key.len());
        }
    }
}
