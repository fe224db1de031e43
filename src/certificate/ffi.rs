//! The calls into OpenSSL that the `openssl` crate does not offer.

use std::ffi::{c_char, c_int, c_long};
use std::ptr;

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::pkey::{HasPublic, PKeyRef};
use openssl::ssl::SslRef;
use openssl_sys::EVP_PKEY;

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
