//! Private keys of certificates, and requests for certificates with them.

use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::X509ReqBuilder;
use openssl::x509::extension::SubjectAlternativeName;

use crate::config::model::KeyType;
use crate::host::Pattern;

/// Makes a key. RSA-4096 takes seconds.
pub(super) fn generate(kind: KeyType) -> Result<PKey<Private>, ErrorStack> {
    match kind {
        KeyType::P256 => elliptic(Nid::X9_62_PRIME256V1),
        KeyType::P384 => elliptic(Nid::SECP384R1),
        KeyType::Rsa2048 => PKey::from_rsa(Rsa::generate(2048)?),
        KeyType::Rsa4096 => PKey::from_rsa(Rsa::generate(4096)?),
        KeyType::Ed25519 => PKey::generate_ed25519(),
    }
}

fn elliptic(curve: Nid) -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(curve)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

/// The key in `pem`, where there is one of this type.
pub(super) fn reuse(pem: &[u8], kind: KeyType) -> Option<PKey<Private>> {
    let key = PKey::private_key_from_pem(pem).ok()?;
    let curve = || key.ec_key().ok()?.group().curve_name();
    let fits = match kind {
        KeyType::P256 => curve() == Some(Nid::X9_62_PRIME256V1),
        KeyType::P384 => curve() == Some(Nid::SECP384R1),
        KeyType::Rsa2048 => key.id() == Id::RSA && key.bits() == 2048,
        KeyType::Rsa4096 => key.id() == Id::RSA && key.bits() == 4096,
        KeyType::Ed25519 => key.id() == Id::ED25519,
    };
    fits.then_some(key)
}

/// A certificate signing request (RFC 2986), DER: the names as alternative names, and no subject,
/// since a common name says nothing that they do not.
pub(super) fn request(key: &PKey<Private>, names: &[Pattern]) -> Result<Vec<u8>, ErrorStack> {
    let mut builder = X509ReqBuilder::new()?;
    builder.set_version(0)?;
    builder.set_pubkey(key)?;
    let mut alternative = SubjectAlternativeName::new();
    for name in names {
        alternative.dns(&name.to_string());
    }
    let mut extensions = Stack::new()?;
    extensions.push(alternative.build(&builder.x509v3_context(None))?)?;
    builder.add_extensions(&extensions)?;
    let digest = match key.id() {
        Id::ED25519 => MessageDigest::null(),
        Id::EC if key.bits() > 256 => MessageDigest::sha384(),
        _ => MessageDigest::sha256(),
    };
    builder.sign(key, digest)?;
    builder.build().to_der()
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509Req;

    use super::*;

    #[test]
    fn each_type_of_key_signs_a_request_and_is_known_again() {
        let names = ["a.example", "*.b.example"].map(|name| name.parse().expect("a name"));
        let kinds = [
            KeyType::P256,
            KeyType::P384,
            KeyType::Rsa2048,
            KeyType::Ed25519,
        ];
        for kind in kinds {
            let key = generate(kind).expect("a key");
            let request = request(&key, &names).expect("a request");
            let request = X509Req::from_der(&request).expect("a request");
            assert!(request.verify(&key).expect("verifiable"), "{kind:?}");
            assert_eq!(request.subject_name().entries().count(), 0);
            assert_eq!(request.extensions().expect("extensions").len(), 1);
            let pem = key.private_key_to_pem_pkcs8().expect("PEM");
            for other in kinds {
                assert_eq!(
                    reuse(&pem, other).is_some(),
                    kind == other,
                    "{kind:?} {other:?}"
                );
            }
        }
        assert!(reuse(b"no key", KeyType::P256).is_none());
    }
}
