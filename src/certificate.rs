//! A certificate chain with its key, checked once and shared by every handshake that serves it.
//!
//! [`Loader`] makes a [`TlsCertificate`] from PEM and refuses whatever could not be served, so a
//! handshake never meets a bad certificate. Nothing here reads files or knows the configuration;
//! `cert_files` and `manager` do. [`sni`] finds the certificate for a name. OpenSSL's form of it is
//! made when a handshake first needs it ([`parsed_cache`]): there may be a million.

mod chain;
mod change;
pub mod der;
pub mod error;
mod ffi;
mod file_path;
pub mod finding;
mod flaws;
pub(crate) mod from_index;
pub mod loader;
pub mod material;
pub(crate) mod parse;
pub mod parsed_cache;
pub(crate) mod pem;
mod roots;
pub mod sni;
mod source;
pub(crate) mod status;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use openssl::ssl::SslRef;
use openssl::x509::X509;
use zeroize::Zeroizing;

pub(crate) use self::change::Change;
pub use self::error::{CertificateError, CertificateWarning};
pub use self::file_path::FilePath;
pub use self::finding::{Finding, Reason, RenewalFacts};
pub use self::flaws::{Flaw, Flaws};
pub use self::loader::{Loaded, Loader};
pub use self::source::Source;

use self::chain::ChainRef;
use self::material::{AtRest, CertSource, Description, Material, MaterialError, OnDisk};
use self::status::CertStatus;
use crate::base64url;
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::schedule::Lifetime;

/// A certificate chain with its private key, checked to belong together.
pub struct TlsCertificate {
    /// Leaf and key.
    at_rest: AtRest,
    /// The same and the chain for handshakes, while they are in use.
    parsed: ArcSwapOption<Material>,
    /// From the issuer of the leaf upwards, without the root. Shared between certificates.
    chain: ChainRef,
    flaws: Flaws,
    names: Box<[Pattern]>,
    kind: KeyKind,
    not_before: UnixTime,
    not_after: UnixTime,
    fingerprint: Fingerprint,
    source: Source,
    /// Its status and its OCSP response; `None` if it names no place to learn it.
    status: Option<Arc<CertStatus>>,
}

impl TlsCertificate {
    /// The names and addresses of the subject alternative name extension.
    pub fn names(&self) -> &[Pattern] {
        &self.names
    }

    /// Returns true if this certificate is valid for `host`, a normalized name.
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.covers(host))
    }

    /// Returns true if this certificate is valid for `address`.
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

    /// When the first certificate above it in its chain expires, and whose that is; `None` if it
    /// has no chain.
    pub fn chain_end(&self) -> Option<(UnixTime, String)> {
        let (end, first) = self.chain.first_end()?;
        Some((end, parse::name_text(first.subject_name())))
    }

    /// When the last certificate above it in its chain becomes valid, and that one's subject; `None` if it
    /// has no chain.
    pub fn chain_begin(&self) -> Option<(UnixTime, String)> {
        let (begin, last) = self.chain.last_begin()?;
        Some((begin, parse::name_text(last.subject_name())))
    }

    /// The last second at which everything that clients are sent is valid: the end of the
    /// certificate or of one above it in its chain, whichever comes first.
    pub fn served_until(&self) -> UnixTime {
        let chain = self.chain.not_after();
        chain.map_or(self.not_after, |end| end.min(self.not_after))
    }

    /// Whether `now` is within the period of validity, before or after it.
    pub fn validity(&self, now: UnixTime) -> Validity {
        if now < self.not_before {
            Validity::NotYet
        } else if now > self.not_after {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }

    /// Its period of validity, for decisions about renewal.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime::new(self.not_before, self.not_after, &self.fingerprint.0)
    }

    /// The period in which clients accept it with its chain, for messages about its end; see
    /// [`Self::served_until`].
    pub fn served_lifetime(&self) -> Lifetime {
        let begin = self.chain.last_begin().map(|(begin, _)| begin);
        Lifetime {
            not_before: begin.unwrap_or_default().max(self.not_before),
            not_after: self.served_until(),
            ..self.lifetime()
        }
    }

    /// Returns true if a renewal is due. `window` is the last part of its lifetime; see
    /// [`Lifetime::due_at`].
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

    /// Its description for people; empty if it is on disk and cannot be fetched.
    pub fn describe(&self) -> Description {
        let material = self.material();
        material.map_or_else(
            |_| Description::default(),
            |one| Description::of(one.leaf()),
        )
    }

    /// Its identifier at its CA (RFC 9773, section 4.1); `None` if it does not name the key that
    /// signed it, or cannot be fetched.
    pub fn renewal_id(&self) -> Option<String> {
        let material = self.material().ok()?;
        let leaf = material.leaf();
        let authority = leaf.authority_key_id()?.as_slice();
        let serial = leaf.serial_number().to_bn().ok()?;
        Some(renewal_id(authority, serial.to_vec()))
    }

    /// What clients object to in it or its chain, whatever the time.
    pub fn flaws(&self) -> Flaws {
        self.flaws
    }

    /// What people should know of [`Self::flaws`]; nothing if it is on disk and cannot be fetched.
    pub(crate) fn flaw_warnings(&self) -> Vec<CertificateWarning> {
        let material = self.material();
        material.map_or_else(
            |_| Vec::new(),
            |one| self.flaws.warnings(one.leaf(), one.chain()),
        )
    }

    /// Where this certificate comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Its status, if it names a place to learn it.
    pub(crate) fn status(&self) -> Option<&Arc<CertStatus>> {
        self.status.as_ref()
    }

    /// Returns true if clients are to refuse it at `now` for want of an OCSP response.
    pub(crate) fn lacks_staple(&self, now: UnixTime) -> bool {
        self.status().is_some_and(|status| status.lacks_staple(now))
    }

    /// The certificate that issued it, if that is known.
    pub(crate) fn issuer(&self) -> Option<&Arc<X509>> {
        let issuer = self.chain.issuer();
        issuer.filter(|_| !self.flaws.has(Flaw::IssuerUnknown))
    }

    /// How many certificates a client is sent.
    pub fn chain_len(&self) -> usize {
        1 + self.chain.len()
    }

    /// The chain as sent, leaf first, in PEM.
    ///
    /// # Errors
    /// If it cannot be fetched or encoded.
    pub fn chain_pem(&self) -> Result<Vec<u8>, MaterialError> {
        let material = self.material()?;
        let mut pem = material.leaf().to_pem()?;
        for certificate in material.chain() {
            pem.extend(certificate.to_pem()?);
        }
        Ok(pem)
    }

    /// Chain and private key in one PEM, as the loader accepts them.
    ///
    /// # Errors
    /// If it cannot be fetched or encoded.
    pub(crate) fn bundle_pem(&self) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
        let mut pem = Zeroizing::new(self.chain_pem()?);
        pem.extend_from_slice(&self.key_pem()?);
        Ok(pem)
    }

    /// The private key in PEM (PKCS #8).
    ///
    /// # Errors
    /// If it cannot be fetched or encoded.
    pub(crate) fn key_pem(&self) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
        let pem = self.material()?.key().private_key_to_pem_pkcs8()?;
        Ok(Zeroizing::new(pem))
    }

    /// The certificate without its chain, in DER.
    ///
    /// # Errors
    /// If it cannot be fetched or encoded.
    pub(crate) fn leaf_der(&self) -> Result<Vec<u8>, MaterialError> {
        Ok(self.material()?.leaf().to_der()?)
    }

    /// The same, parsed, without its key where that is in memory. Blocks if it is on disk.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub(crate) fn leaf(&self) -> Result<X509, MaterialError> {
        match self.at_rest.der_in_memory() {
            Some(der) => Ok(X509::from_der(der.leaf())?),
            None => Ok(self.material()?.leaf().to_owned()),
        }
    }

    /// The SHA-256 digest of its public key, in hexadecimal.
    ///
    /// # Errors
    /// If it cannot be fetched or encoded.
    pub(crate) fn key_digest(&self) -> Result<String, MaterialError> {
        let key = self.material()?.key().public_key_to_der()?;
        Ok(Fingerprint(openssl::sha::sha256(&key)).to_string())
    }

    /// Hands chain and key to one handshake; what is parsed for it is not kept. Blocks if the
    /// certificate is on disk: servers of many clients use
    /// [`parsed_cache::ParsedCache::get_or_parse`].
    ///
    /// # Errors
    /// If it cannot be fetched, or OpenSSL is out of memory.
    pub fn apply(&self, ssl: &mut SslRef) -> Result<(), MaterialError> {
        Ok(self.material()?.apply(ssl)?)
    }

    /// Leaf, key and chain, parsed unless they are already. Blocks if they are on disk.
    fn material(&self) -> Result<Arc<Material>, MaterialError> {
        if let Some(parsed) = self.parsed.load_full() {
            return Ok(parsed);
        }
        self.parse_material().map(Arc::new)
    }

    /// The same, parsed now.
    fn parse_material(&self) -> Result<Material, MaterialError> {
        match (self.at_rest.der_in_memory(), &self.at_rest) {
            (None, AtRest::OnDisk(away)) => Material::fetch(away, self),
            (Some(der), _) | (_, AtRest::Memory(der)) => {
                Ok(Material::parse(der, ChainRef::clone(&self.chain))?)
            }
        }
    }

    /// The same certificate, fetched from `cert_source` when needed instead of kept in memory.
    #[must_use]
    pub(crate) fn with_source(&self, cert_source: Arc<dyn CertSource>) -> Self {
        Self {
            at_rest: AtRest::OnDisk(OnDisk::new(cert_source)),
            parsed: ArcSwapOption::empty(),
            chain: ChainRef::clone(&self.chain),
            names: self.names.clone(),
            source: self.source.clone(),
            status: self.status.clone(),
            ..*self
        }
    }
}

/// The identifier of a certificate in RFC 9773: the key that signed it and its serial number.
fn renewal_id(authority: &[u8], mut serial: Vec<u8>) -> String {
    // As in DER, where a number with its highest bit set would be negative.
    if serial.first().is_none_or(|first| *first >= 0x80) {
        serial.insert(0, 0);
    }
    format!(
        "{}.{}",
        base64url::encode(authority),
        base64url::encode(&serial)
    )
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

/// A moment in relation to a period of validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Expired,
    NotYet,
    Valid,
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
