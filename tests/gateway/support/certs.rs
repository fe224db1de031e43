//! Certificates made on the spot, with OpenSSL, by no code of the gateway.

use std::fs;
use std::path::{Path, PathBuf};

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private, Public};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameBuilder};

const DAY: i64 = 86_400;

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Ecdsa,
    Ed25519,
    Rsa,
}

impl KeyType {
    pub fn generate(self) -> PKey<Private> {
        match self {
            Self::Ecdsa => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
                PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
            }
            Self::Ed25519 => PKey::generate_ed25519().unwrap(),
            Self::Rsa => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        }
    }
}

/// A certificate authority.
pub struct Ca {
    name: String,
    certificate: X509,
    key: PKey<Private>,
    /// From this one up to, and without, the root.
    chain: Vec<X509>,
}

impl Ca {
    /// A root.
    pub fn new(name: &str) -> Self {
        let key = KeyType::Ecdsa.generate();
        let mut builder = begin(name, &key, -DAY, 3650 * DAY);
        builder.set_issuer_name(&subject(name)).unwrap();
        authority(&mut builder, None);
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self {
            name: name.to_owned(),
            certificate: builder.build(),
            key,
            chain: Vec::new(),
        }
    }

    /// An intermediate under this one; its certificates come with it in the chain.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyType::Ecdsa.generate();
        let mut builder = begin(name, &key, -DAY, 1825 * DAY);
        builder
            .set_issuer_name(self.certificate.subject_name())
            .unwrap();
        authority(&mut builder, Some(&self.certificate));
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        let mut chain = vec![certificate.clone()];
        chain.extend(self.chain.iter().cloned());
        Self {
            name: name.to_owned(),
            certificate,
            key,
            chain,
        }
    }

    /// Its name and key in another certificate, which `issuer` signs, valid from a month before
    /// this day from now on: PEM.
    pub fn again_by(&self, issuer: &Self, until: i64) -> String {
        let mut builder = begin(&self.name, &self.key, (until - 30) * DAY, until * DAY);
        let above = &issuer.certificate;
        builder.set_issuer_name(above.subject_name()).unwrap();
        authority(&mut builder, Some(above));
        builder.sign(&issuer.key, MessageDigest::sha256()).unwrap();
        pem(&builder.build())
    }

    /// Begins a certificate for these names; an IP address becomes an address.
    pub fn leaf(&self, names: &[&str]) -> Leaf<'_> {
        Leaf {
            ca: self,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            key: Key::New(KeyType::Ecdsa),
            not_before: -DAY,
            not_after: 90 * DAY,
            serial: None,
            extensions: Vec::new(),
            purpose: "serverAuth",
        }
    }

    /// Makes certificates that all have one key, which is quicker than a key for each.
    pub fn signer(&self, key: KeyType) -> Signer<'_> {
        Signer {
            ca: self,
            key: key.generate(),
        }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        pem(&self.certificate)
    }

    /// Its private key, PKCS #8, PEM.
    pub fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().unwrap()
    }

    pub fn certificate(&self) -> &X509 {
        &self.certificate
    }

    /// Writes its certificate into `directory` and returns the file.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join(format!("{}.pem", self.name.replace(' ', "-")));
        fs::write(&path, self.pem()).unwrap();
        path
    }
}

/// An authority with one key for every certificate.
pub struct Signer<'a> {
    ca: &'a Ca,
    key: PKey<Private>,
}

impl Signer<'_> {
    /// As [`Ca::leaf`].
    pub fn leaf(&self, names: &[&str]) -> Leaf<'_> {
        Leaf {
            key: Key::Given(self.key.clone()),
            ..self.ca.leaf(names)
        }
    }
}

#[derive(Clone)]
enum Key {
    Given(PKey<Private>),
    New(KeyType),
}

/// A certificate in the making.
#[derive(Clone)]
pub struct Leaf<'a> {
    ca: &'a Ca,
    names: Vec<String>,
    key: Key,
    not_before: i64,
    not_after: i64,
    serial: Option<u32>,
    /// Identifiers of extensions, and their values in DER.
    extensions: Vec<(&'static str, Vec<u8>)>,
    purpose: &'static str,
}

impl Leaf<'_> {
    pub fn key(mut self, key: KeyType) -> Self {
        self.key = Key::New(key);
        self
    }

    /// Valid between these times, in days from now.
    pub fn valid(mut self, from: i64, to: i64) -> Self {
        (self.not_before, self.not_after) = (from * DAY, to * DAY);
        self
    }

    /// Valid between these times, in seconds from now.
    pub fn valid_seconds(mut self, from: i64, to: i64) -> Self {
        (self.not_before, self.not_after) = (from, to);
        self
    }

    /// With this serial number instead of a random one.
    pub fn serial(mut self, serial: u32) -> Self {
        self.serial = Some(serial);
        self
    }

    /// Says where its issuer's certificate is to be had, as public CAs do.
    pub fn with_place_of_issuer(self) -> Self {
        // SEQUENCE of one caIssuers (1.3.6.1.5.5.7.48.2) at a URI.
        let access = b"\x30\x17\x30\x15\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x09http://ca";
        self.extension("1.3.6.1.5.5.7.1.1", access)
    }

    /// With this extension, given in DER.
    pub fn extension(mut self, identifier: &'static str, value: &[u8]) -> Self {
        self.extensions.push((identifier, value.to_vec()));
        self
    }

    /// For a client instead of a server.
    pub fn for_client(self) -> Self {
        self.purpose("clientAuth")
    }

    /// For this purpose instead of a server.
    pub fn purpose(mut self, purpose: &'static str) -> Self {
        self.purpose = purpose;
        self
    }

    /// Ended a day ago.
    pub fn expired(self) -> Self {
        self.valid(-30, -1)
    }

    /// Begins tomorrow.
    pub fn not_yet_valid(self) -> Self {
        self.valid(1, 30)
    }

    /// Makes and signs it.
    pub fn make(self) -> Pair {
        let key = match &self.key {
            Key::Given(key) => key.clone(),
            Key::New(kind) => kind.generate(),
        };
        let public = PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap();
        let (chain, certificate) = self.sign(&public);
        Pair {
            chain,
            key: String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap(),
            certificate,
        }
    }

    /// Signs it for a key whose private part somebody else has: its chain, and the certificate.
    pub fn sign(&self, key: &PKeyRef<Public>) -> (String, X509) {
        let first = self.names.first().map_or("", String::as_str);
        let mut builder = begin(first, key, self.not_before, self.not_after);
        if let Some(serial) = self.serial {
            let serial = BigNum::from_u32(serial).unwrap().to_asn1_integer();
            builder.set_serial_number(&serial.unwrap()).unwrap();
        }
        let issuer = &self.ca.certificate;
        builder.set_issuer_name(issuer.subject_name()).unwrap();
        builder
            .append_extension(BasicConstraints::new().critical().build().unwrap())
            .unwrap();
        let usage = KeyUsage::new()
            .critical()
            .digital_signature()
            .build()
            .unwrap();
        builder.append_extension(usage).unwrap();
        let purpose = ExtendedKeyUsage::new().other(self.purpose).build();
        builder.append_extension(purpose.unwrap()).unwrap();
        let above = AuthorityKeyIdentifier::new()
            .keyid(true)
            .build(&builder.x509v3_context(Some(issuer), None))
            .unwrap();
        builder.append_extension(above).unwrap();
        let mut names = SubjectAlternativeName::new();
        for name in &self.names {
            if name.parse::<std::net::IpAddr>().is_ok() {
                names.ip(name);
            } else {
                names.dns(name);
            }
        }
        if !self.names.is_empty() {
            let names = names
                .build(&builder.x509v3_context(Some(issuer), None))
                .unwrap();
            builder.append_extension(names).unwrap();
        }
        for (identifier, value) in &self.extensions {
            let value = Asn1OctetString::new_from_bytes(value).unwrap();
            let name = Asn1Object::from_str(identifier).unwrap();
            let extension = X509Extension::new_from_der(&name, false, &value).unwrap();
            builder.append_extension(extension).unwrap();
        }
        builder.sign(&self.ca.key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        let mut chain = pem(&certificate);
        chain.extend(self.ca.chain.iter().map(pem));
        (chain, certificate)
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    /// The certificate and its intermediates, PEM.
    pub chain: String,
    /// PKCS #8, PEM.
    pub key: String,
    pub certificate: X509,
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key` into `directory` and returns both paths.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        fs::create_dir_all(directory).unwrap();
        let chain = directory.join(format!("{name}.pem"));
        let key = directory.join(format!("{name}.key"));
        fs::write(&key, &self.key).unwrap();
        fs::write(&chain, &self.chain).unwrap();
        (chain, key)
    }

    /// This certificate with a key that is not its own.
    pub fn with_key_of(&self, other: &Self) -> Self {
        Self {
            key: other.key.clone(),
            ..self.clone()
        }
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let digest = self.certificate.digest(MessageDigest::sha256()).unwrap();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn begin<K: HasPublic>(name: &str, key: &PKeyRef<K>, from: i64, to: i64) -> X509Builder {
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(127, MsbOption::MAYBE_ZERO, false).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(&subject(name)).unwrap();
    builder.set_pubkey(key).unwrap();
    let now = jiff::Timestamp::now().as_second();
    builder
        .set_not_before(&Asn1Time::from_unix(now + from).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(now + to).unwrap())
        .unwrap();
    builder
}

fn authority(builder: &mut X509Builder, issuer: Option<&X509>) {
    builder
        .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
        .unwrap();
    let usage = KeyUsage::new()
        .critical()
        .key_cert_sign()
        .crl_sign()
        .build()
        .unwrap();
    builder.append_extension(usage).unwrap();
    let own = SubjectKeyIdentifier::new()
        .build(&builder.x509v3_context(None, None))
        .unwrap();
    builder.append_extension(own).unwrap();
    if let Some(issuer) = issuer {
        let context = builder.x509v3_context(Some(issuer), None);
        let above = AuthorityKeyIdentifier::new()
            .keyid(false)
            .build(&context)
            .unwrap();
        builder.append_extension(above).unwrap();
    }
}

fn subject(name: &str) -> X509Name {
    let mut subject = X509NameBuilder::new().unwrap();
    // A common name has at most 64 characters.
    let short: String = name.chars().take(64).collect();
    if !short.is_empty() {
        subject
            .append_entry_by_nid(Nid::COMMONNAME, &short)
            .unwrap();
    }
    subject.build()
}

fn pem(certificate: &X509) -> String {
    String::from_utf8(certificate.to_pem().unwrap()).unwrap()
}
