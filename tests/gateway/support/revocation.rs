//! Revocation lists made on the spot, by no code of the gateway.

use std::time::Duration;

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::x509::extension::AuthorityKeyIdentifier;
use openssl::x509::{X509Builder, X509Crl, X509CrlBuilder, X509Extension, X509RevokedBuilder};

use super::{Ca, Pair};

/// The list of a CA that revokes these certificates, valid until so many days from now, which may be
/// negative.
pub fn revocation_list(ca: &Ca, revoked: &[&Pair], until: i64) -> X509Crl {
    list_with(ca, revoked, until, &[])
}

/// The same, which says that it only adds to list 1.
pub fn delta_list(ca: &Ca, revoked: &[&Pair], until: i64) -> X509Crl {
    // deltaCRLIndicator: INTEGER 1.
    list_with(ca, revoked, until, &[("2.5.29.27", b"\x02\x01\x01")])
}

fn list_with(ca: &Ca, revoked: &[&Pair], until: i64, critical: &[(&str, &[u8])]) -> X509Crl {
    let time = |days: i64| {
        let day = Duration::from_secs(86_400).as_secs().cast_signed();
        let now = jiff::Timestamp::now().as_second();
        Asn1Time::from_unix(now + days * day).unwrap()
    };
    let issuer = ca.certificate();
    let mut builder = X509CrlBuilder::new().unwrap();
    builder.set_issuer_name(issuer.subject_name()).unwrap();
    builder.set_last_update(&time(until.min(0) - 1)).unwrap();
    builder.set_next_update(&time(until)).unwrap();
    let for_context = X509Builder::new().unwrap();
    let above = AuthorityKeyIdentifier::new()
        .keyid(true)
        .build(&for_context.x509v3_context(Some(issuer), None))
        .unwrap();
    builder.append_extension(above).unwrap();
    // cRLNumber: INTEGER 1.
    let number = Asn1OctetString::new_from_bytes(b"\x02\x01\x01").unwrap();
    let name = Asn1Object::from_str("2.5.29.20").unwrap();
    let number = X509Extension::new_from_der(&name, false, &number).unwrap();
    builder.append_extension(number).unwrap();
    for (name, value) in critical {
        let value = Asn1OctetString::new_from_bytes(value).unwrap();
        let name = Asn1Object::from_str(name).unwrap();
        let extension = X509Extension::new_from_der(&name, true, &value).unwrap();
        builder.append_extension(extension).unwrap();
    }
    for pair in revoked {
        let mut entry = X509RevokedBuilder::new().unwrap();
        entry
            .set_serial_number(pair.certificate.serial_number())
            .unwrap();
        entry.set_revocation_date(&time(until.min(0) - 1)).unwrap();
        builder.add_revoked(entry.build()).unwrap();
    }
    builder.sort().unwrap();
    let key = PKey::private_key_from_pem(&ca.key_pem()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    builder.build().unwrap()
}
