//! Private keys of certificates, and certificate signing requests.

use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509Extension, X509NameBuilder, X509ReqBuilder};

use crate::config::model::{KeyType, OrderTerms};
use crate::host::Pattern;

/// The maximum length of a common name (RFC 5280, appendix A.1: ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// The extension that says what a TLS server promises (RFC 7633), and its value for a stapled OCSP
/// response: a list with the number of `status_request`.
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";
const STATUS_REQUEST: &[u8] = b"\x30\x03\x02\x01\x05";

/// Generates a key. RSA-4096 takes seconds.
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

/// The key in `pem`, if it is of this type.
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

/// A certificate signing request (RFC 2986) in DER, with the names as alternative names. It has no
/// subject unless the terms ask for one: a common name adds nothing.
pub(super) fn request(
    key: &PKey<Private>,
    names: &[Pattern],
    terms: &OrderTerms,
) -> Result<Vec<u8>, ErrorStack> {
    let mut builder = X509ReqBuilder::new()?;
    builder.set_version(0)?;
    builder.set_pubkey(key)?;
    let mut fitting = names.iter().map(ToString::to_string);
    if terms.common_name
        && let Some(name) = fitting.find(|name| name.len() <= MAX_COMMON_NAME)
    {
        let mut subject = X509NameBuilder::new()?;
        subject.append_entry_by_nid(Nid::COMMONNAME, &name)?;
        builder.set_subject_name(&subject.build())?;
    }
    let mut alternative = SubjectAlternativeName::new();
    for name in names {
        match name {
            Pattern::Ip(address) => alternative.ip(&address.to_string()),
            name => alternative.dns(&name.to_string()),
        };
    }
    let mut extensions = Stack::new()?;
    extensions.push(alternative.build(&builder.x509v3_context(None))?)?;
    if terms.must_staple {
        let feature = Asn1Object::from_str(TLS_FEATURE)?;
        let status_request = Asn1OctetString::new_from_bytes(STATUS_REQUEST)?;
        let feature = X509Extension::new_from_der(&feature, false, &status_request)?;
        extensions.push(feature)?;
    }
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
            let terms = OrderTerms::default();
            let request = request(&key, &names, &terms).expect("a request");
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

    #[test]
    fn a_request_says_what_the_terms_want() {
        let long = format!("{0}.{0}.example", "a".repeat(40));
        let names = [&*long, "192.0.2.7", "2001:db8::1", "*.b.example"];
        let names = names.map(|name| name.parse().expect("a name"));
        let key = generate(KeyType::P256).expect("a key");
        let terms = OrderTerms {
            common_name: true,
            must_staple: true,
            ..OrderTerms::default()
        };
        let request = request(&key, &names, &terms).expect("a request");
        let request = X509Req::from_der(&request).expect("a request");
        let subject: Vec<_> = request
            .subject_name()
            .entries()
            .map(|entry| entry.data().to_string().expect("text"))
            .collect();
        assert_eq!(subject, ["192.0.2.7"], "the first that fits");
        let text = String::from_utf8(request.to_text().expect("text")).expect("UTF-8");
        for part in [
            "IP Address:192.0.2.7",
            "IP Address:2001:DB8:0:0:0:0:0:1",
            "DNS:*.b.example",
            "status_request",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
