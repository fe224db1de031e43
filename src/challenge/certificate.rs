//! The certificate that responds to a validation over TLS (RFC 8737, section 3).
//!
//! It is self-signed, for one name, and has the digest of the key authorization. Each instance
//! makes its own: a CA looks at nothing else in it. Only clients that ask for a validation see it.

use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::x509::X509;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::certificate::{Loader, Source, TlsCertificate};
use crate::host::Identifier;
use crate::schedule::{Failure, FailureClass};

/// Makes the certificate for `domain`.
pub(super) fn make_certificate(
    domain: &Identifier,
    key_authorization: &str,
) -> Result<TlsCertificate, Failure> {
    try_make(domain, key_authorization).map_err(|error| {
        Failure::new(
            FailureClass::Internal,
            format!("cannot create the certificate that validates {domain} by TLS: {error}"),
        )
    })
}

fn try_make(
    domain: &Identifier,
    key_authorization: &str,
) -> Result<TlsCertificate, Box<dyn std::error::Error>> {
    // Anything that looks like an address becomes one (RFC 8738, section 6). The dates are rcgen's,
    // long before and after now: nobody checks them.
    let mut params = CertificateParams::new([domain.to_string()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "ACME validation");
    let digest = sha256(key_authorization.as_bytes());
    params
        .custom_extensions
        .push(CustomExtension::new_acme_identifier(&digest));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    let leaf = X509::from_der(certificate.der())?;
    let key = PKey::private_key_from_der(&key.serialize_der())?;
    Ok(Loader::self_signed(leaf, key, Source::Program)?)
}

#[cfg(test)]
mod tests {
    use openssl::ssl::{Ssl, SslContext, SslMethod};

    use super::*;

    #[test]
    fn it_is_for_one_name_and_carries_the_digest() {
        let domain: Identifier = "a.example".parse().expect("a name");
        let certificate = make_certificate(&domain, "token.thumbprint").expect("a certificate");
        assert!(certificate.covers("a.example"));
        assert_eq!(certificate.names().len(), 1);
        let pem = certificate.chain_pem().expect("PEM");
        let leaf = X509::from_pem(&pem).expect("a certificate");
        assert!(
            leaf.verify(&leaf.public_key().expect("a key"))
                .expect("verifiable")
        );
        // OID 1.3.6.1.5.5.7.1.31, critical, an OCTET STRING in the OCTET STRING of the extension.
        let extension = [
            b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20".as_slice(),
            &sha256(b"token.thumbprint"),
        ]
        .concat();
        let der = leaf.to_der().expect("DER");
        assert_eq!(memchr::memmem::find_iter(&der, &extension).count(), 1);

        let context = SslContext::builder(SslMethod::tls_server()).expect("a context");
        let mut ssl = Ssl::new(&context.build()).expect("a connection");
        certificate.apply(&mut ssl).expect("OpenSSL takes it");
    }
}
