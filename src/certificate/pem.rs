//! Reads PEM (RFC 7468): finds the certificates and keys in a file, whatever else it holds.
//!
//! It distinguishes the ways in which a file can be wrong, since "no start line" helps nobody: DER
//! or PKCS #12 instead of PEM, a block that ends in the middle, a key with a pass phrase.

use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::Fingerprint;
use super::der::Der;
use super::error::CertificateError;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Makes a certificate from DER.
type Parse<'a> = dyn Fn(&[u8]) -> Result<X509, ErrorStack> + 'a;

/// What a PEM file holds.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) certificates: Vec<X509>,
    pub(crate) keys: Vec<Key>,
    /// The label of a block that is neither, for the message if nothing usable was found.
    pub(crate) other: Option<String>,
}

/// A private key, with the octets that it was parsed from.
pub(crate) struct Key {
    pub(crate) key: PKey<Private>,
    /// PKCS #8, or the form of its algorithm (SEC 1, PKCS #1).
    pub(super) der: Zeroizing<Vec<u8>>,
}

impl Contents {
    /// Reads every certificate and key of `pem`.
    pub(crate) fn read(pem: &[u8]) -> Result<Self, CertificateError> {
        Self::read_with(pem, &X509::from_der)
    }

    /// The same, with `parse` making certificates from DER: one that is in many files is parsed
    /// only once.
    pub(super) fn read_with(pem: &[u8], parse: &Parse<'_>) -> Result<Self, CertificateError> {
        let mut contents = Self::default();
        let mut rest = pem;
        let mut blocks = 0;
        while let Some(block) = Block::next_in(rest)? {
            blocks += 1;
            contents.add_block(&block, parse)?;
            rest = block.rest;
        }
        if blocks == 0 {
            return Err(not_pem(pem));
        }
        Ok(contents)
    }

    fn add_block(&mut self, block: &Block<'_>, parse: &Parse<'_>) -> Result<(), CertificateError> {
        match block.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => {
                let certificate = match block.decode() {
                    Some(der) => parse(&der),
                    None => X509::from_pem(block.text),
                };
                let certificate = certificate.map_err(|_| CertificateError::Unreadable {
                    what: "certificate",
                })?;
                self.certificates.push(certificate);
            }
            "ENCRYPTED PRIVATE KEY" => return Err(CertificateError::EncryptedKey),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                if contains(block.text, b"Proc-Type: 4,ENCRYPTED") {
                    return Err(CertificateError::EncryptedKey);
                }
                let key = Key::read(block).map_err(|_| CertificateError::Unreadable {
                    what: "private key",
                })?;
                self.keys.push(key);
            }
            // Written beside a key by `openssl ecparam -genkey`; adds nothing.
            "EC PARAMETERS" | "DH PARAMETERS" => {}
            label if label.ends_with("PRIVATE KEY") => {
                return Err(CertificateError::UnsupportedKey {
                    found: label.to_owned(),
                });
            }
            label => self.other = Some(label.to_owned()),
        }
        Ok(())
    }
}

impl Key {
    fn read(block: &Block<'_>) -> Result<Self, ErrorStack> {
        let (key, der) = match block.decode() {
            Some(der) => (private_key(&der)?, der),
            None => {
                // Without the callback, OpenSSL might ask on the terminal.
                let key = PKey::private_key_from_pem_callback(block.text, |_| Ok(0))?;
                let der = Zeroizing::new(key.private_key_to_der()?);
                (key, der)
            }
        };
        Ok(Self { key, der })
    }
}

/// Parses a private key in DER: PKCS #8, or the form of its algorithm.
pub(super) fn private_key(der: &[u8]) -> Result<PKey<Private>, ErrorStack> {
    // OpenSSL need not guess the form if it is given.
    PKey::private_key_from_pkcs8(der).or_else(|_| PKey::private_key_from_der(der))
}

/// Returns true if `pem` has a private key, valid or not.
pub(crate) fn has_key(pem: &[u8]) -> bool {
    let mut rest = pem;
    while let Ok(Some(block)) = Block::next_in(rest) {
        if block.label.ends_with("PRIVATE KEY") {
            return true;
        }
        rest = block.rest;
    }
    false
}

/// The certificate with this fingerprint and the first private key of `pem`, unparsed; `None` if
/// either is missing. That they belong together was checked when they were written.
pub(crate) fn find_der(pem: &[u8], fingerprint: Fingerprint) -> Option<Der> {
    let (mut leaf, mut key) = (None, None);
    let mut rest = pem;
    while let Ok(Some(block)) = Block::next_in(rest) {
        match block.label {
            "CERTIFICATE" if leaf.is_none() => {
                let der = block.decode()?;
                leaf = (openssl::sha::sha256(&der) == fingerprint.0).then_some(der);
            }
            "PRIVATE KEY" if key.is_none() => key = Some(block.decode()?),
            _ => {}
        }
        rest = block.rest;
    }
    Some(Der::new(&leaf?, &key?))
}

/// One block, from its first dash to its last.
struct Block<'a> {
    label: &'a str,
    text: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Block<'a> {
    /// The decoded octets; `None` if it has headers, or is damaged.
    fn decode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let begin = BEGIN.len() + self.label.len() + DASHES.len();
        let end = END.len() + self.label.len() + DASHES.len();
        let body = self.text.get(begin..self.text.len().checked_sub(end)?)?;
        // The capacity is exact: nothing is moved, so no copy of a key is left behind.
        let mut text = Zeroizing::new(Vec::with_capacity(body.len()));
        for line in body.split(|octet| *octet == b'\n') {
            text.extend_from_slice(line.trim_ascii());
        }
        let text = std::str::from_utf8(&text).ok()?;
        openssl::base64::decode_block(text).ok().map(Zeroizing::new)
    }

    /// The first block of `pem`; `None` if there is none.
    fn next_in(pem: &'a [u8]) -> Result<Option<Self>, CertificateError> {
        let Some(start) = find_bytes(pem, BEGIN) else {
            // The file was truncated within its very first line.
            return Ok(None);
        };
        let text = pem.get(start..).unwrap_or_default();
        let after_begin = text.get(BEGIN.len()..).unwrap_or_default();
        let label_len = find_bytes(after_begin, DASHES).ok_or(CertificateError::Torn)?;
        let label = after_begin
            .get(..label_len)
            .and_then(|label| std::str::from_utf8(label).ok())
            .filter(|label| !label.contains('\n'))
            .ok_or(CertificateError::Torn)?;
        let end = find_bytes(after_begin, END).ok_or(CertificateError::Torn)?;
        // The next block must not begin before this one ends.
        if find_bytes(after_begin, BEGIN).is_some_and(|begin| begin < end) {
            return Err(CertificateError::Torn);
        }
        let length = BEGIN.len() + end + END.len() + label.len() + DASHES.len();
        let whole = text.get(..length).ok_or(CertificateError::Torn)?;
        let closing = whole
            .get(BEGIN.len() + end + END.len()..)
            .unwrap_or_default();
        if closing.strip_suffix(DASHES) != Some(label.as_bytes()) {
            return Err(CertificateError::Torn);
        }
        Ok(Some(Self {
            label,
            text: whole,
            rest: text.get(length..).unwrap_or_default(),
        }))
    }
}

/// Why there is no block in `bytes`.
fn not_pem(bytes: &[u8]) -> CertificateError {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        CertificateError::Empty
    } else if X509::from_der(bytes).is_ok() {
        CertificateError::Der {
            what: "certificate",
        }
    } else if PKey::private_key_from_der(bytes).is_ok() {
        CertificateError::Der {
            what: "private key",
        }
    } else if Pkcs12::from_der(bytes).is_ok() {
        CertificateError::Pkcs12
    } else if is_utf16(bytes) {
        CertificateError::Utf16
    } else if DASHES.starts_with(bytes) || BEGIN.starts_with(bytes) {
        CertificateError::Torn
    } else {
        CertificateError::NotPem
    }
}

/// Returns true if `bytes` are UTF-16 text, with a byte order mark or the beginning of a block.
fn is_utf16(bytes: &[u8]) -> bool {
    let begins = |order: fn(u16) -> [u8; 2]| {
        let begin: Vec<u8> = BEGIN.iter().flat_map(|one| order((*one).into())).collect();
        contains(bytes, &begin)
    };
    bytes.starts_with(b"\xFF\xFE")
        || bytes.starts_with(b"\xFE\xFF")
        || begins(u16::to_le_bytes)
        || begins(u16::to_be_bytes)
}

fn find_bytes(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    find_bytes(haystack, needle).is_some()
}
