//! The few calls into OpenSSL for which the `openssl` crate has no safe form.
//!
//! All `unsafe` of the TLS layer is in this file; each function here is safe to call.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_uint, c_void};
use std::ptr;
use std::sync::{Arc, LazyLock};

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{SslContext, SslContextBuilder, SslOptions, SslRef, SslVersion};
use openssl::x509::store::X509StoreRef;
use openssl_sys as sys;

use super::ticket::TicketKeys;

/// The extension number of `server_name` (RFC 6066, section 3).
const EXTENSION_SERVER_NAME: c_uint = 0;

/// The extension number of `application_layer_protocol_negotiation` (RFC 7301, section 3.1).
const EXTENSION_PROTOCOLS: c_uint = 16;

/// The name type of a DNS host name in `server_name`.
const HOST_NAME: u8 = 0;

/// The host name that the client requests, as it is in the ClientHello.
///
/// Useful only in the client-hello callback: before it `server_name` has not been read, and in a
/// resumed TLS 1.2 session OpenSSL's own accessor later returns the old session's name.
pub(super) fn client_hello_server_name(ssl: &SslRef) -> Option<&[u8]> {
    parse_server_name(client_hello_extension(ssl, EXTENSION_SERVER_NAME)?)
}

/// The protocols that the client offers, as they are in the ClientHello: a list preceded by its
/// length (RFC 7301, section 3.1). Useful only in the client-hello callback.
pub(super) fn client_hello_protocols(ssl: &SslRef) -> Option<&[u8]> {
    client_hello_extension(ssl, EXTENSION_PROTOCOLS)
}

/// The content of an extension of the ClientHello, unparsed.
fn client_hello_extension(ssl: &SslRef, number: c_uint) -> Option<&[u8]> {
    let mut data: *const c_uchar = ptr::null();
    let mut len = 0;
    // SAFETY: `ssl` is a live SSL; on success OpenSSL points `data` at `len` bytes of the
    // ClientHello, which it keeps while the callback runs and so as long as this borrow. Outside of
    // the callback there is no ClientHello, and OpenSSL returns 0.
    unsafe {
        if sys::SSL_client_hello_get0_ext(ssl.as_ptr(), number, &raw mut data, &raw mut len) != 1
            || data.is_null()
        {
            return None;
        }
        Some(std::slice::from_raw_parts(data, len))
    }
}

/// Reads the one host name of a `server_name` extension.
///
/// ```text
/// u16 list length, u8 name type, u16 name length, name
/// ```
fn parse_server_name(extension: &[u8]) -> Option<&[u8]> {
    let (list_len, list) = extension.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*list_len)) != list.len() {
        return None;
    }
    let (&name_type, rest) = list.split_first()?;
    let (name_len, rest) = rest.split_first_chunk::<2>()?;
    if name_type != HOST_NAME {
        return None;
    }
    rest.get(..usize::from(u16::from_be_bytes(*name_len)))
}

/// Sets the context within which a session of this connection may be resumed.
///
/// To be called in the client-hello callback, which runs before OpenSSL looks at tickets. Returns
/// whether OpenSSL accepted it.
pub(super) fn set_session_id_context(ssl: &mut SslRef, context: &[u8; 32]) -> bool {
    unsafe extern "C" {
        fn SSL_set_session_id_context(
            ssl: *mut sys::SSL,
            context: *const c_uchar,
            len: c_uint,
        ) -> c_int;
    }
    // SAFETY: `ssl` is a live SSL that we hold exclusively; OpenSSL copies the 32 bytes, the most
    // it accepts (SSL_MAX_SID_CTX_LENGTH).
    unsafe { SSL_set_session_id_context(ssl.as_ptr(), context.as_ptr(), 32) == 1 }
}

/// Issues and accepts no ticket on this connection.
///
/// To be called in the client-hello callback, which runs before OpenSSL looks at tickets.
///
/// # Errors
/// If OpenSSL refuses, which it does not.
pub(super) fn forbid_tickets(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    unsafe extern "C" {
        fn SSL_set_options(ssl: *mut sys::SSL, options: u64) -> u64;
    }
    // SAFETY: `ssl` is a live SSL that we hold exclusively.
    unsafe { SSL_set_options(ssl.as_ptr(), SslOptions::NO_TICKET.bits()) };
    // With the option alone, TLS 1.3 issues tickets that refer to a session in a cache.
    ssl.set_num_tickets(0)
}

/// Has the client's certificate verified by what is in `store`, which is shared.
///
/// # Errors
/// If OpenSSL refuses, which it does not.
pub(super) fn set_verify_store(ssl: &mut SslRef, store: &X509StoreRef) -> Result<(), ErrorStack> {
    const SHARED: c_long = 1;
    // SAFETY: both are live; the connection takes a reference of its own to the store.
    let done = unsafe {
        sys::SSL_ctrl(
            ssl.as_ptr(),
            sys::SSL_CTRL_SET_VERIFY_CERT_STORE,
            SHARED,
            store.as_ptr().cast(),
        )
    };
    if done == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// The key exchange group of a finished handshake by OpenSSL's name, `X25519MLKEM768`.
pub(super) fn group_name(ssl: &SslRef) -> &str {
    // SAFETY: `ssl` is a live SSL; the result is null or a C string in OpenSSL's table of groups,
    // which outlives every connection.
    let name = unsafe {
        let name = sys::SSL_get0_group_name(ssl.as_ptr());
        if name.is_null() {
            return "none";
        }
        CStr::from_ptr(name)
    };
    name.to_str().unwrap_or("none")
}

/// The name of a group as text that needs no connection; `other` for one that is not common.
pub(super) fn known_group(name: &str) -> &'static str {
    const KNOWN: [&str; 16] = [
        "X25519MLKEM768",
        "x25519",
        "X25519",
        "secp256r1",
        "secp384r1",
        "secp521r1",
        "SecP256r1MLKEM768",
        "SecP384r1MLKEM1024",
        "MLKEM512",
        "MLKEM768",
        "MLKEM1024",
        "x448",
        "ffdhe2048",
        "ffdhe3072",
        "ffdhe4096",
        "none",
    ];
    let known = KNOWN.into_iter().find(|known| *known == name);
    known.unwrap_or("other")
}

/// Sets for how many seconds a session may be resumed.
pub(super) fn set_session_timeout(builder: &mut SslContextBuilder, seconds: u64) {
    unsafe extern "C" {
        fn SSL_CTX_set_timeout(ctx: *mut sys::SSL_CTX, seconds: c_long) -> c_long;
    }
    let seconds = c_long::try_from(seconds).unwrap_or(c_long::MAX);
    // SAFETY: the context is live and ours.
    unsafe { SSL_CTX_set_timeout(builder.as_ptr(), seconds) };
}

/// Lets `keys` seal and open the session tickets of a context.
///
/// # Errors
/// If OpenSSL has no more room for data beside a context.
pub(super) fn use_ticket_keys(
    builder: &mut SslContextBuilder,
    keys: Arc<TicketKeys>,
) -> Result<(), ErrorStack> {
    unsafe extern "C" {
        fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
            ctx: *mut sys::SSL_CTX,
            callback: TicketCallback,
        ) -> c_int;
    }
    let index = INDEX.as_ref().map_err(Clone::clone)?;
    builder.set_ex_data(*index, keys);
    // SAFETY: the context is live and ours; the callback has the signature that OpenSSL asks for
    // and does not unwind.
    unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(builder.as_ptr(), ticket_callback) };
    Ok(())
}

/// Where every context keeps its ticket keys: a C callback has no argument for them.
static INDEX: LazyLock<Result<Index<SslContext, Arc<TicketKeys>>, ErrorStack>> =
    LazyLock::new(SslContext::new_ex_index);

type TicketCallback = unsafe extern "C" fn(
    *mut sys::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut sys::EVP_CIPHER_CTX,
    *mut EvpMacCtx,
    c_int,
) -> c_int;

/// OpenSSL's `EVP_MAC_CTX`, opaque.
#[repr(C)]
struct EvpMacCtx {
    _opaque: [u8; 0],
}

/// OpenSSL's `OSSL_PARAM`.
#[repr(C)]
struct OsslParam {
    key: *const c_char,
    data_type: c_uint,
    data: *mut c_void,
    data_size: usize,
    return_size: usize,
}

/// The callback's results: the ticket cannot be used, it can, or it can and should be replaced.
const TICKET_ERROR: c_int = -1;
const TICKET_NONE: c_int = 0;
const TICKET_SUCCESS: c_int = 1;
const TICKET_RENEW: c_int = 2;

const KEY_NAME_LEN: usize = 16;
const IV_LEN: usize = 16;

/// Prepares cipher and MAC for a ticket that is to be sealed (`enc`) or opened.
///
/// # Safety
/// Called by OpenSSL with a live SSL, 16 bytes at `key_name`, room for an initialisation vector
/// (at least 16 bytes) at `iv`, and live cipher and MAC contexts.
unsafe extern "C" fn ticket_callback(
    ssl: *mut sys::SSL,
    key_name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut sys::EVP_CIPHER_CTX,
    mac: *mut EvpMacCtx,
    enc: c_int,
) -> c_int {
    // SAFETY: OpenSSL passes a live SSL for the time of the call.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let keys = INDEX
        .as_ref()
        .ok()
        .and_then(|index| ssl.ssl_context().ex_data(*index));
    let Some(keys) = keys else {
        return TICKET_ERROR;
    };
    // SAFETY: OpenSSL passes 16 bytes for the key's name and EVP_MAX_IV_LENGTH (16) for the
    // vector, and touches neither during the call.
    let (key_name, iv) = unsafe {
        (
            std::slice::from_raw_parts_mut(key_name, KEY_NAME_LEN),
            std::slice::from_raw_parts_mut(iv, IV_LEN),
        )
    };
    let (key, answer) = if enc == 1 {
        // A resumed session would skip the verification of the client's certificate, which may have
        // expired or been revoked by then.
        if ssl.peer_certificate().is_some() {
            return TICKET_NONE;
        }
        let Some(key) = keys.current_key() else {
            return TICKET_ERROR;
        };
        key_name.copy_from_slice(key.name());
        if openssl::rand::rand_bytes(iv).is_err() {
            return TICKET_ERROR;
        }
        (key, TICKET_SUCCESS)
    } else {
        // A ticket of TLS 1.3 should be used once (RFC 8446, appendix C.4). Without a new one, the
        // client's next connection would take a full handshake.
        let once = ssl.version2() == Some(SslVersion::TLS1_3);
        match keys.find_key(key_name) {
            None => return TICKET_NONE,
            Some((key, true)) if !once => (key, TICKET_SUCCESS),
            Some((key, _)) => (key, TICKET_RENEW),
        }
    };
    // SAFETY: both contexts are live for the call. `key` is 32 bytes for AES-256 and 32 bytes for
    // HMAC, `iv` 16; OpenSSL copies what the parameters point at before it returns.
    let ready = unsafe {
        sys::EVP_CipherInit_ex(
            cipher,
            sys::EVP_aes_256_cbc(),
            ptr::null_mut(),
            key.cipher_key().as_ptr().cast_mut(),
            iv.as_mut_ptr(),
            enc,
        ) == 1
            && set_mac_key(mac, key.mac_key())
    };
    if ready { answer } else { TICKET_ERROR }
}

/// Keys a MAC context with HMAC-SHA-256.
///
/// # Safety
/// `mac` is a live `EVP_MAC_CTX` of HMAC.
unsafe fn set_mac_key(mac: *mut EvpMacCtx, key: &[u8; 32]) -> bool {
    unsafe extern "C" {
        fn OSSL_PARAM_construct_octet_string(
            key: *const c_char,
            data: *mut c_void,
            len: usize,
        ) -> OsslParam;
        fn OSSL_PARAM_construct_utf8_string(
            key: *const c_char,
            data: *mut c_char,
            len: usize,
        ) -> OsslParam;
        fn OSSL_PARAM_construct_end() -> OsslParam;
        fn EVP_MAC_CTX_set_params(ctx: *mut EvpMacCtx, params: *const OsslParam) -> c_int;
    }
    // SAFETY: the strings are static C strings (a length of 0 makes OpenSSL measure), the key is
    // 32 readable bytes, the list ends with an end mark, and OpenSSL only reads through it.
    unsafe {
        let params = [
            OSSL_PARAM_construct_octet_string(
                c"key".as_ptr(),
                key.as_ptr().cast_mut().cast(),
                key.len(),
            ),
            OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), c"sha256".as_ptr().cast_mut(), 0),
            OSSL_PARAM_construct_end(),
        ];
        EVP_MAC_CTX_set_params(mac, params.as_ptr()) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_read_with_bounds_checked() {
        let whole = b"\x00\x0e\x00\x00\x0bexample.com";
        assert_eq!(parse_server_name(whole), Some(&b"example.com"[..]));
        for end in 0..whole.len() {
            assert_eq!(parse_server_name(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(parse_server_name(b"\x00\x04\x01\x00\x01a"), None);
        assert_eq!(parse_server_name(b"\x00\x04\x00\x00\x09a"), None);
    }
}
