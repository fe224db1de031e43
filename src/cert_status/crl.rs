//! A revocation list (RFC 5280, section 5): whether it counts for certificates, and which it names.

use std::cmp::Ordering;

use openssl::error::ErrorStack;
use openssl::x509::{CrlStatus, ReasonCode, X509, X509Crl, X509KeyUsage, X509RevokedRef};
use thiserror::Error;

use super::ffi::{self, Scope};
use super::reason;
use crate::certificate::parse::unix_time;
use crate::clock::UnixTime;
use crate::issuer::RevocationReason;

const DAY: i64 = 86_400;

/// How a list in PEM begins.
const PEM: &[u8] = b"-----BEGIN";

/// A list that counts for the certificates of an issuer that name its URL.
pub(super) struct RevocationList {
    list: X509Crl,
    pub(super) this_update: UnixTime,
    pub(super) next_update: UnixTime,
}

/// Why a list does not count.
#[derive(Debug, Error)]
pub(super) enum ListFault {
    #[error("it is not a revocation list")]
    Unreadable,
    #[error("it is not signed by the issuer of the certificates")]
    Signature,
    #[error("it has expired at {0}")]
    Expired(UnixTime),
    /// It may well be right, but it is not what says which certificates are revoked.
    #[error("it is a delta list, or one of another issuer or for other certificates")]
    Special,
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] ErrorStack),
}

impl RevocationList {
    /// Reads the list at `url` for certificates of `issuer`.
    pub(super) fn read(
        octets: &[u8],
        url: &str,
        issuer: &X509,
        now: UnixTime,
    ) -> Result<Self, ListFault> {
        let read = Self::read_checked(octets, url, issuer, now);
        drop(ErrorStack::get());
        read
    }

    fn read_checked(
        octets: &[u8],
        url: &str,
        issuer: &X509,
        now: UnixTime,
    ) -> Result<Self, ListFault> {
        let list = match octets.starts_with(PEM) {
            true => X509Crl::from_pem(octets),
            false => X509Crl::from_der(octets),
        };
        let list = list.map_err(|_| ListFault::Unreadable)?;
        let is_own = list.issuer_name().try_cmp(issuer.subject_name())? == Ordering::Equal;
        let scope = ffi::scope(&list);
        let is_for_us = match &scope {
            Scope::Unreadable => return Err(ListFault::Unreadable),
            Scope::Others => false,
            Scope::Servers(None) => true,
            Scope::Servers(Some(urls)) => urls.iter().any(|one| one == url),
        };
        if !is_own || !is_for_us || ffi::is_special(&list) {
            return Err(ListFault::Special);
        }
        let usage = issuer.key_usage();
        let may_sign = usage.is_none_or(|usage| usage.contains(X509KeyUsage::CRL_SIGN));
        if !may_sign || !list.verify(&*issuer.public_key()?).unwrap_or(false) {
            return Err(ListFault::Signature);
        }
        let this_update = unix_time(list.last_update())?;
        let next_update = list.next_update().map(unix_time).transpose()?;
        let next_update = next_update.unwrap_or(now + DAY);
        if next_update <= now {
            return Err(ListFault::Expired(next_update));
        }
        Ok(Self {
            list,
            this_update,
            next_update,
        })
    }

    /// Why `leaf` is revoked, if it is.
    pub(super) fn find(&self, leaf: &X509) -> Option<RevocationReason> {
        match self.list.get_by_serial(leaf.serial_number()) {
            CrlStatus::Revoked(entry) => Some(reason_of(entry)),
            CrlStatus::NotRevoked | CrlStatus::RemoveFromCrl(_) => None,
        }
    }
}

fn reason_of(entry: &X509RevokedRef) -> RevocationReason {
    let extension = entry.extension::<ReasonCode>().ok().flatten();
    let code = extension.and_then(|(_, code)| code.get_i64().ok());
    code.map_or_else(RevocationReason::default, reason)
}
