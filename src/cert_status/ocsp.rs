//! OCSP (RFC 6960) for one certificate: the request, and what a response to it is worth.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ocsp::{
    OcspCertId, OcspCertStatus, OcspFlag, OcspRequest, OcspResponse, OcspResponseStatus,
};
use openssl::stack::Stack;
use openssl::x509::X509;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use thiserror::Error;

use super::{ffi, reason};
use crate::certificate::parse::unix_time;
use crate::certificate::status::Staple;
use crate::clock::UnixTime;
use crate::issuer::RevocationReason;

/// By how much the clocks of others may be ahead, in seconds.
const SKEW: i64 = 300;

/// What a responder says of a certificate.
#[derive(Debug)]
pub(super) enum Answer {
    Good(Staple),
    /// Revoked for this reason, in a response of this `thisUpdate`.
    Revoked(RevocationReason, UnixTime),
}

/// Why a response is worth nothing.
#[derive(Debug, Error)]
pub(super) enum OcspFault {
    #[error("the response is not one of OCSP")]
    Unreadable,
    #[error("the responder refuses: {0}")]
    Refused(&'static str),
    #[error("the response is not signed by the issuer of the certificate or for it")]
    Signature,
    #[error("the response is about another certificate")]
    Other,
    #[error("the responder does not know the certificate")]
    Unknown,
    #[error("the response is valid only from {0} on: is the clock of this machine right?")]
    Early(UnixTime),
    #[error("the response has expired at {0}")]
    Expired(UnixTime),
    #[error("the response does not say until when it is valid")]
    NoEnd,
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// A request for the status of `leaf`, which `issuer` has issued. It has no nonce, so that a response
/// may be one of those that the CA has signed ahead (RFC 5019).
pub(super) fn request(leaf: &X509, issuer: &X509) -> Result<Vec<u8>, ErrorStack> {
    let mut request = OcspRequest::new()?;
    request.add_id(id(leaf, issuer)?)?;
    request.to_der()
}

/// Every responder knows certificates by SHA-1, which protects nothing here (RFC 5019, section 2.1.1).
fn id(leaf: &X509, issuer: &X509) -> Result<OcspCertId, ErrorStack> {
    OcspCertId::from_cert(MessageDigest::sha1(), leaf, issuer)
}

/// What `octets`, a response, says at `now` of `leaf`, which `issuer` has issued.
pub(super) fn check(
    octets: &[u8],
    leaf: &X509,
    issuer: &X509,
    now: UnixTime,
) -> Result<Answer, OcspFault> {
    let checked = read(octets, leaf, issuer, now);
    // A handshake on this thread would take errors left over as its own.
    drop(ErrorStack::get());
    checked
}

fn read(octets: &[u8], leaf: &X509, issuer: &X509, now: UnixTime) -> Result<Answer, OcspFault> {
    let response = OcspResponse::from_der(octets).map_err(|_| OcspFault::Unreadable)?;
    match response.status() {
        OcspResponseStatus::SUCCESSFUL => {}
        OcspResponseStatus::MALFORMED_REQUEST => {
            return Err(OcspFault::Refused("malformedRequest"));
        }
        OcspResponseStatus::INTERNAL_ERROR => return Err(OcspFault::Refused("internalError")),
        OcspResponseStatus::TRY_LATER => return Err(OcspFault::Refused("tryLater")),
        OcspResponseStatus::SIG_REQUIRED => return Err(OcspFault::Refused("sigRequired")),
        OcspResponseStatus::UNAUTHORIZED => return Err(OcspFault::Refused("unauthorized")),
        _ => return Err(OcspFault::Unreadable),
    }
    let basic = response.basic().map_err(|_| OcspFault::Unreadable)?;
    let mut issuers = Stack::new()?;
    issuers.push(issuer.clone())?;
    // The signer is the issuer itself, or has its certificate for signing responses from the issuer.
    let flags = OcspFlag::NO_EXPLICIT;
    let verified = basic.verify(&issuers, &*trust(issuer)?, flags);
    verified.map_err(|_| OcspFault::Signature)?;
    let id = id(leaf, issuer)?;
    let status = basic.find_status(&id).ok_or(OcspFault::Other)?;
    let this_update = unix_time(ffi::as_time(status.this_update))?;
    if this_update > now + SKEW {
        return Err(OcspFault::Early(this_update));
    }
    let next_update = status.next_update();
    let next_update = next_update.map(|end| unix_time(ffi::as_time(end)));
    let next_update = next_update.transpose()?;
    if let Some(end) = next_update.filter(|end| *end <= now) {
        return Err(OcspFault::Expired(end));
    }
    match status.status {
        OcspCertStatus::GOOD => Ok(Answer::Good(Staple {
            response: octets.into(),
            this_update,
            next_update: next_update.ok_or(OcspFault::NoEnd)?,
        })),
        OcspCertStatus::REVOKED => {
            let reason = reason(status.reason.as_raw().into());
            Ok(Answer::Revoked(reason, this_update))
        }
        _ => Err(OcspFault::Unknown),
    }
}

/// A store that trusts `issuer` as it is, whoever has issued it.
fn trust(issuer: &X509) -> Result<X509Store, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    store.add_cert(issuer.clone())?;
    Ok(store.build())
}
