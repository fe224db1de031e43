//! Makes certificates by the hundred thousand, for measurements alone.
//!
//! A root and an intermediate are made once in a directory and used again there, so that one
//! certificate can be made anew later.

use std::error::Error;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509Ref};
use snigate::clock::{Clock, SystemClock};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A directory with the root (`root.pem`), what signs (`intermediate.pem`, `intermediate.key`) and
/// the certificates (`certs/`).
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) directory: PathBuf,
    /// The names are `s000001.DOMAIN` and on.
    pub(crate) domain: String,
    /// The number of the first.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Whether each has a key of its own, which takes longer to make.
    pub(crate) own_keys: bool,
    /// Whether the key is in `NAME.key` beside `NAME.pem`, instead of in it.
    pub(crate) pairs: bool,
    /// In days from now; negative is in the past.
    pub(crate) days: i32,
}

/// The name of a certificate's host.
pub(crate) fn name(number: u32, domain: &str) -> String {
    format!("s{number:06}.{domain}")
}

/// Makes what `plan` says, on all cores.
pub(crate) fn make(plan: &Plan) -> Result<()> {
    let certs = plan.directory.join("certs");
    fs::create_dir_all(&certs)?;
    let ca = Ca::open(&plan.directory)?;
    let shared = key()?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let numbers: Vec<u32> = (plan.first..plan.first.saturating_add(plan.count)).collect();
    let part = numbers.len().div_ceil(cores).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = numbers
            .chunks(part)
            .map(|part| {
                let (ca, shared, certs) = (&ca, &shared, &certs);
                scope.spawn(move || {
                    part.iter()
                        .try_for_each(|number| leaf(plan, *number, ca, shared, certs))
                })
            })
            .collect();
        parts
            .into_iter()
            .try_for_each(|part| part.join().map_err(|_| "a thread broke off")?)
    })
}

fn leaf(plan: &Plan, number: u32, ca: &Ca, shared: &PKey<Private>, certs: &Path) -> Result<()> {
    let name = name(number, &plan.domain);
    let own;
    let key = if plan.own_keys {
        own = key()?;
        &own
    } else {
        shared
    };
    let mut builder = builder(key)?;
    builder.set_issuer_name(ca.intermediate.subject_name())?;
    let mut subject = X509Name::builder()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, &name)?;
    builder.set_subject_name(&subject.build())?;
    let now = SystemClock.now();
    let (from, to) = (now - 86_400, now + i64::from(plan.days) * 86_400);
    builder.set_not_before(&*Asn1Time::from_unix(from.min(to - 86_400).as_secs())?)?;
    builder.set_not_after(&*Asn1Time::from_unix(to.as_secs())?)?;
    let usage = KeyUsage::new().critical().digital_signature().build()?;
    builder.append_extension(usage)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    identify(&mut builder, Some(&ca.intermediate))?;
    let names = {
        let context = builder.x509v3_context(Some(&ca.intermediate), None);
        SubjectAlternativeName::new().dns(&name).build(&context)?
    };
    builder.append_extension(names)?;
    builder.sign(&ca.key, MessageDigest::sha256())?;
    let mut chain = builder.build().to_pem()?;
    chain.extend_from_slice(&ca.intermediate_pem);
    let key = key.private_key_to_pem_pkcs8()?;
    if plan.pairs {
        replace(&certs.join(format!("{name}.key")), &key)?;
    } else {
        chain.extend_from_slice(&key);
    }
    replace(&certs.join(format!("{name}.pem")), &chain)
}

/// Writes a file anew, or replaces it at once.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() {
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, bytes)?;
        fs::rename(&fresh, path)?;
    } else {
        fs::write(path, bytes)?;
    }
    Ok(())
}

struct Ca {
    intermediate: X509,
    intermediate_pem: Vec<u8>,
    key: PKey<Private>,
}

impl Ca {
    fn open(directory: &Path) -> Result<Self> {
        let at = |name: &str| directory.join(name);
        let (pem, secret) = (at("intermediate.pem"), at("intermediate.key"));
        if !secret.exists() {
            let (root_key, key) = (key()?, key()?);
            let root = authority("Measurement Root", &root_key, None)?;
            let intermediate = authority("Measurement CA 1", &key, Some((&root, &root_key)))?;
            fs::write(at("root.pem"), root.to_pem()?)?;
            fs::write(&pem, intermediate.to_pem()?)?;
            fs::write(&secret, key.private_key_to_pem_pkcs8()?)?;
        }
        let intermediate_pem = fs::read(pem)?;
        Ok(Self {
            intermediate: X509::from_pem(&intermediate_pem)?,
            intermediate_pem,
            key: PKey::private_key_from_pem(&fs::read(secret)?)?,
        })
    }
}

/// A certificate of a CA, signed by itself where there is no `issuer`.
fn authority(
    name: &str,
    key: &PKey<Private>,
    issuer: Option<(&X509Ref, &PKey<Private>)>,
) -> Result<X509> {
    let mut builder = builder(key)?;
    let mut subject = X509Name::builder()?;
    subject.append_entry_by_nid(Nid::ORGANIZATIONNAME, "Measurements")?;
    subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
    let subject = subject.build();
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(issuer.map_or(&*subject, |(issuer, _)| issuer.subject_name()))?;
    builder.set_not_before(&*Asn1Time::from_unix(
        (SystemClock.now() - 86_400).as_secs(),
    )?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(3650)?)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    let mut usage = KeyUsage::new();
    let usage = usage.critical().key_cert_sign().crl_sign().build()?;
    builder.append_extension(usage)?;
    identify(&mut builder, issuer.map(|(issuer, _)| issuer))?;
    builder.sign(issuer.map_or(key, |(_, key)| key), MessageDigest::sha256())?;
    Ok(builder.build())
}

fn builder(key: &PKey<Private>) -> Result<X509Builder> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let mut serial = [0; 16];
    openssl::rand::rand_bytes(&mut serial)?;
    // Positive, and of the same length everywhere.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    let serial = BigNum::from_slice(&serial)?;
    builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

/// Says which key is certified and which one signs.
fn identify(builder: &mut X509Builder, issuer: Option<&X509Ref>) -> Result<()> {
    let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(issuer, None))?;
    builder.append_extension(own)?;
    if issuer.is_some() {
        let context = builder.x509v3_context(issuer, None);
        let of_issuer = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        builder.append_extension(of_issuer)?;
    }
    Ok(())
}

fn key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}
