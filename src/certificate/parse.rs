//! Facts of a parsed certificate: names, times, the kind of its key.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKeyRef, Private};
use openssl::x509::{X509NameRef, X509Ref};

use super::error::{CertificateError, CertificateWarning};
use super::{Fingerprint, KeyKind, ffi};
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::printable;

/// The minimum size of an RSA modulus, in bits, that clients and OpenSSL's security level 2 accept.
pub(super) const MIN_RSA_BITS: u32 = 2048;

const DAY: i64 = 86_400;

/// The subject alternative names of `leaf` that a TLS server can use, in their order; the common
/// name is never one (RFC 6125, section 6.4.4, RFC 9525, section 2).
pub(super) fn names(
    leaf: &X509Ref,
    warnings: &mut Vec<CertificateWarning>,
) -> Result<Box<[Pattern]>, CertificateError> {
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    for name in leaf.subject_alt_names().into_iter().flatten() {
        let pattern = match (name.dnsname(), name.ipaddress()) {
            (Some(text), _) => match dns_pattern(text) {
                Ok(pattern) => Some(pattern),
                Err(why) => {
                    let name = text.to_owned();
                    warnings.push(CertificateWarning::Name { name, why });
                    None
                }
            },
            (None, Some(bytes)) => address(bytes).map(|ip| Pattern::Ip(ip.to_canonical())),
            (None, None) => None,
        };
        names.extend(pattern.filter(|pattern| seen.insert(pattern.clone())));
    }
    if names.is_empty() {
        return Err(CertificateError::NoNames {
            common_name: common_name(leaf.subject_name()),
        });
    }
    Ok(names.into())
}

fn dns_pattern(text: &str) -> Result<Pattern, String> {
    match text.parse() {
        Ok(Pattern::Any) => Err("would cover every name".to_owned()),
        Ok(Pattern::Ip(_)) => Err("is an IP address, not a host name".to_owned()),
        Ok(pattern) => Ok(pattern),
        Err(error) => Err(error.to_string()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

/// The kind of `key`; an error if clients cannot use it.
pub(super) fn key_kind(key: &PKeyRef<Private>) -> Result<KeyKind, CertificateError> {
    let unsupported = |found: String| Err(CertificateError::UnsupportedKey { found });
    match key.id() {
        Id::RSA | Id::RSA_PSS if key.bits() < MIN_RSA_BITS => {
            unsupported(format!("RSA of only {} bits", key.bits()))
        }
        Id::RSA | Id::RSA_PSS => Ok(KeyKind::Rsa),
        Id::ED25519 => Ok(KeyKind::Ed25519),
        Id::EC => match check_curve(key) {
            Ok(()) => Ok(KeyKind::Ecdsa),
            Err(curve) => unsupported(format!("ECDSA on the curve {curve}")),
        },
        Id::DSA => unsupported("DSA".to_owned()),
        Id::ED448 => unsupported("Ed448, which browsers do not support".to_owned()),
        _ => unsupported("of another kind".to_owned()),
    }
}

/// Checks that an ECDSA key is on a curve that clients accept.
///
/// # Errors
/// The name of the curve.
pub(super) fn check_curve<T: HasPublic>(key: &PKeyRef<T>) -> Result<(), String> {
    match ffi::group_name(key).as_deref() {
        Some("prime256v1" | "secp384r1" | "secp521r1") => Ok(()),
        curve => Err(curve.unwrap_or("unknown to OpenSSL").to_owned()),
    }
}

/// A point in time as Unix time.
pub(crate) fn unix_time(time: &Asn1TimeRef) -> Result<UnixTime, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * DAY + i64::from(since.secs);
    Ok(UnixTime::from_secs(seconds))
}

/// The SHA-256 digest of a certificate.
pub(super) fn fingerprint(certificate: &X509Ref) -> Result<Fingerprint, ErrorStack> {
    let mut bytes = [0; 32];
    for (to, from) in bytes
        .iter_mut()
        .zip(certificate.digest(MessageDigest::sha256())?.iter())
    {
        *to = *from;
    }
    Ok(Fingerprint(bytes))
}

/// A distinguished name for people, on one line, most specific part first:
/// `CN=R10, O=Let's Encrypt, C=US`.
pub(crate) fn name_text(name: &X509NameRef) -> String {
    let mut parts: Vec<_> = name
        .entries()
        .filter_map(|entry| {
            let key = entry.object().nid().short_name().ok()?;
            let value = entry.data().to_string().ok()?;
            Some(format!("{key}={}", printable::line(&value)))
        })
        .collect();
    parts.reverse();
    if parts.is_empty() {
        return "no name".to_owned();
    }
    parts.join(", ")
}

fn common_name(name: &X509NameRef) -> Option<String> {
    name.entries_by_nid(Nid::COMMONNAME)
        .next()
        .and_then(|entry| entry.data().to_string().ok())
}
