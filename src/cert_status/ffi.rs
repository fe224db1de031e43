//! The calls into OpenSSL that the `openssl` crate does not offer.

use std::ffi::{c_int, c_void};
use std::ptr;

use foreign_types_shared::ForeignTypeRef;
use openssl::asn1::{Asn1GeneralizedTimeRef, Asn1TimeRef};
use openssl::x509::{DistPointNameRef, X509CrlRef};
use openssl_sys as sys;

/// `ISSUING_DIST_POINT` of `openssl/x509v3.h`.
#[repr(C)]
struct IssuingDistPoint {
    distpoint: *mut sys::DIST_POINT_NAME,
    only_user: c_int,
    only_ca: c_int,
    only_some_reasons: *mut c_void,
    indirect: c_int,
    only_attributes: c_int,
}

unsafe extern "C" {
    fn ISSUING_DIST_POINT_free(point: *mut IssuingDistPoint);
}

/// What a revocation list covers (RFC 5280, section 5.2.5).
pub(super) enum Scope {
    /// The extension cannot be read.
    Unreadable,
    /// All certificates of its issuer, or those that name one of these URLs.
    Servers(Option<Vec<String>>),
    /// Only certificates of CAs or of attributes, or those of other issuers too.
    Others,
}

/// What `list` covers.
pub(super) fn scope(list: &X509CrlRef) -> Scope {
    let mut critical = 0;
    // SAFETY: the list is live. OpenSSL returns a new ISSUING_DIST_POINT, or null, for this extension; it
    // is freed below, after the last use.
    let found = unsafe {
        sys::X509_CRL_get_ext_d2i(
            list.as_ptr(),
            sys::NID_issuing_distribution_point,
            &mut critical,
            ptr::null_mut(),
        )
    };
    let point: *mut IssuingDistPoint = found.cast();
    if point.is_null() {
        return match critical {
            -1 => Scope::Servers(None),
            _ => Scope::Unreadable,
        };
    }
    // SAFETY: it was checked not to be null, and nobody else has it. The name belongs to it.
    unsafe {
        let is_of_others =
            (*point).only_ca != 0 || (*point).indirect != 0 || (*point).only_attributes != 0;
        let name = (*point).distpoint;
        let scope = if is_of_others {
            Scope::Others
        } else if name.is_null() {
            Scope::Servers(None)
        } else {
            match DistPointNameRef::from_ptr(name).fullname() {
                Some(names) => {
                    let urls = names.iter().filter_map(|name| name.uri());
                    Scope::Servers(Some(urls.map(str::to_owned).collect()))
                }
                None => Scope::Unreadable,
            }
        };
        ISSUING_DIST_POINT_free(point);
        scope
    }
}

/// Returns true if `list` is a delta list, or has a critical extension that is not known here.
pub(super) fn is_special(list: &X509CrlRef) -> bool {
    // SAFETY: the list is live; an extension belongs to it and is only compared.
    unsafe {
        let list = list.as_ptr();
        if sys::X509_CRL_get_ext_by_NID(list, sys::NID_delta_crl, -1) >= 0 {
            return true;
        }
        let scope = sys::X509_CRL_get_ext_by_NID(list, sys::NID_issuing_distribution_point, -1);
        let mut at = sys::X509_CRL_get_ext_by_critical(list, 1, -1);
        while at >= 0 {
            if at != scope {
                return true;
            }
            at = sys::X509_CRL_get_ext_by_critical(list, 1, at);
        }
    }
    false
}

/// The same time as the type that `openssl` can compare.
pub(super) fn as_time(time: &Asn1GeneralizedTimeRef) -> &Asn1TimeRef {
    // SAFETY: both are the same structure, ASN1_STRING; an ASN1_TIME is one of two types of it, of which
    // this is one. The reference lives as long as the one given.
    unsafe { Asn1TimeRef::from_ptr(time.as_ptr().cast()) }
}
