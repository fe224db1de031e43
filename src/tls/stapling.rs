//! Staples OCSP responses (RFC 6066, section 8; RFC 8446, section 4.4.2.1).
//!
//! OpenSSL asks once it has chosen the certificate, and only if the client wants a response. Nothing is
//! fetched here.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::SslRef;

use crate::certificate::TlsCertificate;
use crate::certificate::sni::CertificateSet;
use crate::certificate::status::Staple;
use crate::clock::{Clock as _, SystemClock, UnixTime};

/// Has the response of the presented certificate, one of `set`, sent to the client. Returns whether
/// there is one.
pub(super) fn staple(ssl: &mut SslRef, set: &CertificateSet) -> bool {
    let now = SystemClock.now();
    let has_one = |one: &Arc<TlsCertificate>| response(one, now).is_some();
    if !set.by_kind.iter().any(has_one) {
        return false;
    }
    let presented = find_presented(ssl, &set.by_kind);
    let Some(staple) = presented.and_then(|one| response(one, now)) else {
        return false;
    };
    // Out of memory: the handshake goes through without the response.
    let is_set = ssl.set_ocsp_status(&staple.response).is_ok();
    drop(ErrorStack::get());
    is_set
}

fn response(certificate: &TlsCertificate, now: UnixTime) -> Option<Arc<Staple>> {
    certificate.status()?.staple(now)
}

/// The one of several that OpenSSL has chosen. It may be none of them: where one is in its file alone, a
/// newer one may have taken its place there.
fn find_presented<'s>(
    ssl: &SslRef,
    several: &'s [Arc<TlsCertificate>],
) -> Option<&'s Arc<TlsCertificate>> {
    let digest = ssl.certificate()?.digest(MessageDigest::sha256()).ok()?;
    several.iter().find(|one| one.fingerprint().0 == *digest)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, StatusType};
    use rcgen::CustomExtension;

    use super::*;
    use crate::certificate::testing::{DAY, NOW, TestCa, leaf_params, p256};
    use crate::certificate::{Loader, Source};

    /// The identifier and the value of the extension that names a responder.
    const ACCESS: (&[u64], &[u8]) = (
        &[1, 3, 6, 1, 5, 5, 7, 1, 1],
        b"\x30\x1c\x30\x1a\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01\x86\x0ehttp://o.test/",
    );

    /// The shortest response there is: `unauthorized`.
    const REFUSAL: &[u8] = b"\x30\x03\x0a\x01\x06";

    fn certificate(ca: &TestCa) -> Arc<TlsCertificate> {
        let key = p256();
        let mut params = leaf_params(&["a.test"], NOW - DAY, NOW + DAY);
        let access = CustomExtension::from_oid_content(ACCESS.0, ACCESS.1.to_vec());
        params.custom_extensions.push(access);
        let leaf = params.signed_by(&key, &ca.intermediate).expect("a leaf");
        let pem = leaf.pem() + &ca.intermediate.pem() + &key.serialize_pem();
        let loader = Loader::new().expect("a loader");
        let loaded = loader.load(pem.as_bytes(), Source::Program);
        Arc::new(loaded.expect("good").certificate)
    }

    /// The response that a client gets with `presented`, where `set` was selected.
    fn sent(presented: &TlsCertificate, set: &CertificateSet) -> Option<Vec<u8>> {
        let set = CertificateSet::of(set.by_kind.clone());
        let mut server = SslContext::builder(SslMethod::tls_server()).expect("a context");
        let callback = move |ssl: &mut SslRef| Ok(staple(ssl, &set));
        server.set_status_callback(callback).expect("set");
        let mut server = Ssl::new(&server.build()).expect("a connection");
        presented.apply(&mut server).expect("presented");
        let mut client = SslContext::builder(SslMethod::tls_client()).expect("a context");
        client.set_verify(SslVerifyMode::NONE);
        let mut client = Ssl::new(&client.build()).expect("a connection");
        client.set_status_type(StatusType::OCSP).expect("set");
        let (one, other) = UnixStream::pair().expect("a pair");
        let accepting = thread::spawn(move || server.accept(one).map(drop));
        let connected = client.connect(other).expect("a handshake");
        let status = connected.ssl().ocsp_status().map(<[u8]>::to_vec);
        assert!(accepting.join().expect("no panic").is_ok());
        status
    }

    #[test]
    fn a_response_comes_with_its_own_certificate_alone() {
        let ca = TestCa::new("stapling");
        let (one, newer) = (certificate(&ca), certificate(&ca));
        let now = SystemClock.now();
        let response = Arc::new(Staple {
            response: REFUSAL.into(),
            this_update: now - 60,
            next_update: now + 3600,
        });
        let status = one.status().expect("it names a responder");
        status.update(|known| known.staple = Some(response));
        let set = CertificateSet::single(Arc::clone(&one));
        assert_eq!(sent(&one, &set).as_deref(), Some(REFUSAL));
        // The file has another one by now.
        assert_eq!(sent(&newer, &set), None);
    }
}
