//! Certificates for tests, made at run time: no key is ever in the repository.

use std::sync::Arc;
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use openssl::x509::extension::SubjectAlternativeName;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::{Loader, Source, TlsCertificate};
use crate::clock::UnixTime;

/// The time at which tests take place: 15 September 2025.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_757_894_400);

/// A day in seconds.
pub(crate) const DAY: i64 = 86_400;

/// A CA of a root and one intermediate.
pub(crate) struct TestCa {
    pub(crate) root: CertifiedIssuer<'static, KeyPair>,
    pub(crate) intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf as a CA issues it.
pub(crate) struct TestLeaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let root = CertifiedIssuer::self_signed(ca_params(&format!("{name} root")), p256())
            .expect("a root");
        let intermediate =
            CertifiedIssuer::signed_by(ca_params(&format!("{name} intermediate")), p256(), &root)
                .expect("an intermediate");
        Self { root, intermediate }
    }

    pub(crate) fn leaf(&self, names: &[&str]) -> TestLeaf {
        self.leaf_at(names, NOW - DAY, NOW + 90 * DAY)
    }

    pub(crate) fn leaf_at(
        &self,
        names: &[&str],
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> TestLeaf {
        self.leaf_with(names, not_before, not_after, &p256())
    }

    pub(crate) fn leaf_with(
        &self,
        names: &[&str],
        not_before: UnixTime,
        not_after: UnixTime,
        key: &KeyPair,
    ) -> TestLeaf {
        let params = leaf_params(names, not_before, not_after);
        let certificate = params.signed_by(key, &self.intermediate).expect("a leaf");
        TestLeaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A chain of leaf and intermediate.
    pub(crate) fn chain(&self, leaf: &TestLeaf) -> String {
        leaf.certificate.clone() + &self.intermediate.pem()
    }

    /// Loads a new certificate for `names`.
    pub(crate) fn certificate(
        &self,
        loader: &Loader,
        names: &[&str],
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Arc<TlsCertificate> {
        let leaf = self.leaf_at(names, not_before, not_after);
        let pem = self.chain(&leaf) + &leaf.key;
        let loaded = loader
            .load(pem.as_bytes(), Source::Program)
            .expect("a good certificate");
        Arc::new(loaded.certificate)
    }
}

/// An intermediate called `name` for the key of `key`, signed by `issuer`, in PEM.
pub(crate) fn intermediate_of(
    name: &str,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
    not_after: UnixTime,
) -> String {
    intermediate_valid(name, key, issuer, UnixTime::default(), not_after)
}

/// The same, valid from `not_before` on.
pub(crate) fn intermediate_valid(
    name: &str,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
    not_before: UnixTime,
    not_after: UnixTime,
) -> String {
    let mut params = ca_params(name);
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |time: UnixTime| epoch + Duration::from_secs(time.as_secs().unsigned_abs());
    (params.not_before, params.not_after) = (at(not_before), at(not_after));
    let certificate = params.signed_by(key, issuer);
    certificate.expect("an intermediate").pem()
}

pub(crate) fn p256() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key")
}

/// An RSA key of this many bits, as PKCS #8 in PEM.
pub(crate) fn rsa(bits: u32) -> KeyPair {
    let key = openssl::rsa::Rsa::generate(bits).expect("a key");
    let key = PKey::from_rsa(key).expect("a key");
    let pem = key.private_key_to_pem_pkcs8().expect("PEM");
    KeyPair::from_pem(std::str::from_utf8(&pem).expect("text")).expect("a key")
}

pub(crate) fn leaf_params(
    names: &[&str],
    not_before: UnixTime,
    not_after: UnixTime,
) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.use_authority_key_identifier_extension = true;
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |time: UnixTime| epoch + Duration::from_secs(time.as_secs().unsigned_abs());
    params.not_before = at(not_before);
    params.not_after = at(not_after);
    params.distinguished_name.push(DnType::CommonName, "leaf");
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A certificate that `key` signs for itself, without any subject.
pub(crate) fn self_signed(key: &PKey<Private>, names: &[&str]) -> String {
    let mut builder = X509::builder().expect("a builder");
    let mut sans = SubjectAlternativeName::new();
    for name in names {
        sans.dns(name);
    }
    let sans = sans
        .build(&builder.x509v3_context(None, None))
        .expect("names");
    builder.append_extension(sans).expect("names");
    builder
        .set_not_before(&Asn1Time::from_unix(NOW.as_secs()).expect("a time"))
        .expect("a time");
    builder
        .set_not_after(&Asn1Time::from_unix((NOW + DAY).as_secs()).expect("a time"))
        .expect("a time");
    builder.set_pubkey(key).expect("a key");
    builder
        .sign(key, openssl::hash::MessageDigest::sha256())
        .expect("signed");
    let pem = builder.build().to_pem().expect("PEM");
    String::from_utf8(pem).expect("text")
}
