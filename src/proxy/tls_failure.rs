//! What a failure of TLS to a server means, and what to do about it.

use std::io;

use openssl::error::ErrorStack;
use openssl::ssl;
use openssl::x509::X509VerifyResult;
use pingora_core::{Error, ErrorType};

/// OpenSSL's reasons for alerts that the peer has sent are their numbers (RFC 8446, section 6) after
/// this one.
const ALERTS: libc::c_int = 1000;

/// OpenSSL's reasons for what is not TLS at all.
const WRONG_VERSION_NUMBER: libc::c_int = 267;
const HTTP_REQUEST: libc::c_int = 156;
const PACKET_LENGTH_TOO_LONG: libc::c_int = 198;

/// The error of a handshake that failed. The certificate had to cover `name`, and `verified` says
/// whether it is trusted, if that was asked.
pub(super) fn explain_handshake(
    error: &ssl::Error,
    verified: Option<X509VerifyResult>,
    name: &str,
) -> Box<Error> {
    let fault = verified.filter(|verified| {
        // Of a certificate that has not come yet, nothing is known.
        !matches!(
            verified.as_raw(),
            openssl_sys::X509_V_OK | openssl_sys::X509_V_ERR_UNSPECIFIED
        )
    });
    if let Some(verified) = fault {
        let why = format!(
            "the server's certificate cannot be trusted: {}; {}",
            verified.error_string(),
            advise(verified, name)
        );
        return Error::explain(ErrorType::InvalidCert, why).into_up();
    }
    let why = match (error.ssl_error(), error.io_error()) {
        (Some(errors), _) => explain_errors(errors)
            .unwrap_or_else(|| format!("the TLS handshake failed: {}", first_reason(errors))),
        (None, Some(error)) => format!("the connection ended during the TLS handshake: {error}"),
        (None, None) => "the server closed the connection during the TLS handshake".to_owned(),
    };
    Error::explain(ErrorType::TLSHandshakeFailure, why).into_up()
}

/// An error of a read, in words if it is the server's about the client certificate.
pub(super) fn explain_read(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let errors = inner.and_then(ssl::Error::ssl_error);
    match errors.and_then(explain_errors) {
        Some(why) => io::Error::other(why),
        None => error,
    }
}

/// What to do about a certificate that is not trusted.
fn advise(verified: X509VerifyResult, name: &str) -> String {
    let root = "give the root of its CA as 'ca_file' in the upstream's 'tls', and have the server \
                send its intermediates";
    match verified.as_raw() {
        openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        | openssl_sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        | openssl_sys::X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        | openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        | openssl_sys::X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE => root.to_owned(),
        openssl_sys::X509_V_ERR_CERT_HAS_EXPIRED => {
            "renew it at the server, and check the clock of this machine".to_owned()
        }
        openssl_sys::X509_V_ERR_CERT_NOT_YET_VALID => {
            "check the clocks of both machines".to_owned()
        }
        openssl_sys::X509_V_ERR_HOSTNAME_MISMATCH => format!(
            "it is not for {name}: give a name that it is for as 'server_name' in the upstream's \
             'tls'"
        ),
        openssl_sys::X509_V_ERR_IP_ADDRESS_MISMATCH => format!(
            "it is not for the address {name}: give a name that it is for as 'server_name' in the \
             upstream's 'tls', or have it issued for the address"
        ),
        _ => "see what the server sends with 'openssl s_client -connect ADDRESS:PORT'".to_owned(),
    }
}

/// What the first error says, if something can be done about it.
fn explain_errors(errors: &ErrorStack) -> Option<String> {
    let reason = errors.errors().first()?.reason_code();
    let said = first_reason(errors);
    let advice = match reason - ALERTS {
        // Any of these may be about the client certificate.
        116 => {
            "the server requires a client certificate: give 'cert' and 'key' in the upstream's \
             'tls'"
        }
        42..=46 | 48 | 49 => {
            "the server does not accept the client certificate: check 'cert' in the upstream's \
             'tls', and which CA the server trusts for clients"
        }
        40 => {
            "the server refuses the handshake: it may require a client certificate ('cert' and \
             'key' in the upstream's 'tls'), or have no cipher in common"
        }
        70 => "the server has no TLS version in common: it needs TLS 1.2 or newer",
        112 => {
            "the server does not know the name: give the one that it serves as 'server_name' in \
             the upstream's 'tls'"
        }
        120 => {
            "the server speaks none of the protocols that it was offered (ALPN): set the upstream's \
             'protocol' to what it speaks, h2 or http1, or to auto"
        }
        _ if matches!(
            reason,
            WRONG_VERSION_NUMBER | HTTP_REQUEST | PACKET_LENGTH_TOO_LONG
        ) =>
        {
            "the server does not speak TLS: check its port, or set the upstream's 'tls' to off"
        }
        _ => return None,
    };
    Some(format!("{advice} ({said})"))
}

fn first_reason(errors: &ErrorStack) -> &'static str {
    let first = errors.errors().first();
    first
        .and_then(openssl::error::Error::reason)
        .unwrap_or("unknown error")
}
