//! The calls into OpenSSL that the `openssl` crate does not offer.

use std::ffi::{c_char, c_int, c_long};
use std::ptr;

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::pkey::{HasPublic, PKeyRef};
use openssl::ssl::SslRef;
use openssl::x509::X509Ref;
use openssl_sys::{self as sys, EVP_PKEY};

unsafe extern "C" {
    /// From `openssl/evp.h`, since OpenSSL 3.0.
    fn EVP_PKEY_get_group_name(
        key: *const EVP_PKEY,
        name: *mut c_char,
        size: usize,
        length: *mut usize,
    ) -> c_int;
}

/// The name of the curve of `key`, as OpenSSL calls it (`prime256v1`); `None` if it has none.
pub(super) fn group_name<T: HasPublic>(key: &PKeyRef<T>) -> Option<String> {
    let mut name = [0_u8; 64];
    let mut length = 0;
    // SAFETY: the key is live; only `name` is written to, and `length` excludes the final zero.
    let found = unsafe {
        let to = name.as_mut_ptr().cast();
        EVP_PKEY_get_group_name(key.as_ptr(), to, name.len(), &mut length)
    };
    let name = name.get(..length).filter(|_| found == 1)?;
    String::from_utf8(name.to_vec()).ok()
}

/// `SSL_CTRL_CHAIN` of `openssl/ssl.h`.
const SSL_CTRL_CHAIN: c_int = 88;

/// Empties the chain that belongs to the certificate set last (`SSL_clear_chain_certs`).
pub(super) fn clear_chain(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    const NONE: c_long = 0;
    // SAFETY: the reference is to a live SSL that nobody else uses meanwhile. SSL_CTRL_CHAIN
    // accepts a null chain to free the present one, whose certificates are counted references.
    let set = unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), SSL_CTRL_CHAIN, NONE, ptr::null_mut()) };
    if set == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// `NID_tlsfeature` of `openssl/obj_mac.h`.
const TLS_FEATURE: c_int = 1020;

/// The feature `status_request` (RFC 7633), an INTEGER.
const STATUS_REQUEST: [u8; 3] = [2, 1, 5];

/// The longest list of features that is read: its length is one octet.
const LONGEST_LIST: usize = 127;

/// Returns true if `certificate` lists the TLS feature `status_request`.
pub(super) fn requires_staple(certificate: &X509Ref) -> bool {
    // SAFETY: the certificate is live, and what is returned belongs to it. The value is read within its
    // own length.
    let value = unsafe {
        let at = sys::X509_get_ext_by_NID(certificate.as_ptr(), TLS_FEATURE, -1);
        if at < 0 {
            return false;
        }
        let extension = sys::X509_get_ext(certificate.as_ptr(), at);
        if extension.is_null() {
            return false;
        }
        let value = sys::X509_EXTENSION_get_data(extension);
        if value.is_null() {
            return false;
        }
        let string: *const sys::ASN1_STRING = value.cast();
        let data = sys::ASN1_STRING_get0_data(string);
        let Ok(length) = usize::try_from(sys::ASN1_STRING_length(string)) else {
            return false;
        };
        if data.is_null() || length > LONGEST_LIST {
            return false;
        }
        std::slice::from_raw_parts(data, length)
    };
    // SEQUENCE OF INTEGER, all of them short.
    let Some(([0x30, length], mut features)) = value.split_first_chunk::<2>() else {
        return false;
    };
    if usize::from(*length) != features.len() {
        return false;
    }
    while let Some(([2, length], rest)) = features.split_first_chunk::<2>() {
        if features.starts_with(&STATUS_REQUEST) {
            return true;
        }
        features = rest.get(usize::from(*length)..).unwrap_or_default();
    }
    false
}
