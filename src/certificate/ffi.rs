//! The calls into OpenSSL that the `openssl` crate does not offer.

use std::ffi::{c_int, c_long};
use std::ptr;

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ssl::SslRef;

/// `SSL_CTRL_CHAIN` of `openssl/ssl.h`.
const SSL_CTRL_CHAIN: c_int = 88;

/// Empties the chain that belongs to the certificate set last (`SSL_clear_chain_certs`).
pub(super) fn clear_chain(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    const NONE: c_long = 0;
    // SAFETY: the reference is to a live SSL that nobody else uses meanwhile. SSL_CTRL_CHAIN takes
    // a null chain to free the present one, whose certificates are counted references.
    let set = unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), SSL_CTRL_CHAIN, NONE, ptr::null_mut()) };
    if set == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}
