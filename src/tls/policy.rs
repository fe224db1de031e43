//! Makes what a site demands part of a handshake: client certificates, versions, cipher suites. The
//! protocols are selected in `alpn`.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{SslRef, SslVerifyMode, SslVersion};

use super::ffi;
use super::handshake::Handshake;
use crate::config::model::{ClientAuth, TlsPolicy, TlsVersion};

/// Makes `policy` part of a handshake. To be called while its ClientHello is read: the version has
/// not been negotiated then, and no session resumed.
///
/// # Errors
/// If OpenSSL refuses. The handshake must not continue.
pub(super) fn impose(
    policy: &Arc<TlsPolicy>,
    ssl: &mut SslRef,
    handshake: &Handshake,
) -> Result<(), ErrorStack> {
    handshake.record_policy(Arc::clone(policy));
    if let Some(versions) = &policy.versions {
        ssl.set_min_proto_version(Some(to_openssl(*versions.start())))?;
        ssl.set_max_proto_version(Some(to_openssl(*versions.end())))?;
    }
    if let Some(ciphers) = &policy.ciphers {
        if !ciphers.tls12.is_empty() {
            ssl.set_cipher_list(&ciphers.tls12.join(":"))?;
        }
        if !ciphers.tls13.is_empty() {
            ssl.set_ciphersuites(&ciphers.tls13.join(":"))?;
        }
    }
    if let Some(client_auth) = &policy.client_auth {
        ask_for_certificate(client_auth, ssl, handshake)?;
    }
    Ok(())
}

/// The same where the version has been negotiated already. Refuses one that the policy excludes.
///
/// # Errors
/// If OpenSSL or the policy refuses. The handshake must not continue.
pub(super) fn impose_late(
    policy: &Arc<TlsPolicy>,
    ssl: &mut SslRef,
    handshake: &Handshake,
) -> Result<(), ErrorStack> {
    if let Some(versions) = &policy.versions {
        let mut allowed = [TlsVersion::Tls12, TlsVersion::Tls13].into_iter();
        let is_allowed =
            |one: TlsVersion| versions.contains(&one) && ssl.version2() == Some(to_openssl(one));
        if !allowed.any(is_allowed) {
            return Err(ErrorStack::get());
        }
    }
    impose(policy, ssl, handshake)
}

/// The version in OpenSSL's form.
pub(super) fn to_openssl(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls12 => SslVersion::TLS1_2,
        TlsVersion::Tls13 => SslVersion::TLS1_3,
    }
}

/// Has OpenSSL ask the client for a certificate and verify it.
fn ask_for_certificate(
    client_auth: &ClientAuth,
    ssl: &mut SslRef,
    handshake: &Handshake,
) -> Result<(), ErrorStack> {
    let mut mode = SslVerifyMode::PEER;
    if client_auth.is_required {
        mode |= SslVerifyMode::FAIL_IF_NO_PEER_CERT;
    }
    // The connection keeps the callback for its life, hence not the whole record.
    let fault = handshake.record_verification();
    ssl.set_verify_callback(mode, move |is_good, context| {
        if !is_good {
            fault.record(context.error());
        }
        is_good
    });
    ffi::set_verify_store(ssl, &client_auth.store)?;
    ssl.param_mut().set_depth(i32::from(client_auth.depth));
    for root in &client_auth.roots {
        ssl.add_client_ca(root)?;
    }
    Ok(())
}
