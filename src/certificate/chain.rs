//! Intermediate certificates: held once however many chains they are in, and found for files that
//! lack them.

mod path;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Deref;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use openssl::error::ErrorStack;
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::parse::{fingerprint, name_text, unix_time};
use super::{CertificateError, Fingerprint};
use crate::clock::UnixTime;
use crate::lock::MutexExt;

pub(super) use self::path::{Chain, Given};

/// Public intermediates that files of public CAs may lack, in PEM.
const BUNDLED: &[u8] = include_bytes!("intermediates.pem");

/// All known issuing certificates.
#[derive(Default)]
pub(super) struct Intermediates(Mutex<Inner>);

/// A chain, shared by all certificates that have it.
pub(super) type ChainRef = Arc<Links>;

/// The certificates above a leaf, in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct Links {
    certificates: Box<[Arc<X509>]>,
    /// When the first of them expires, and its index. Among several with the same name and key, the
    /// one that lasts longest counts: clients find it.
    first_end: Option<(UnixTime, usize)>,
    /// The same of the one that becomes valid last.
    last_begin: Option<(UnixTime, usize)>,
    /// The issuer of the leaf, where that is not the first: a root, which is not sent, or a later one of
    /// a chain that is not in order.
    issuer: Option<Arc<X509>>,
}

impl Links {
    fn of(certificates: Vec<Arc<X509>>, issuer: Option<Arc<X509>>) -> Self {
        Self {
            first_end: path::first_end(&certificates),
            last_begin: path::last_begin(&certificates),
            certificates: certificates.into(),
            issuer,
        }
    }

    /// The certificate that issued the leaf.
    pub(super) fn issuer(&self) -> Option<&Arc<X509>> {
        self.issuer.as_ref().or_else(|| self.first())
    }

    /// The root that has issued the leaf itself, where nothing is sent above it.
    pub(super) fn root(&self) -> Option<&Arc<X509>> {
        self.issuer.as_ref().filter(|_| self.is_empty())
    }

    /// The last second at which all of them are valid, and the subject of the one that expires
    /// then.
    pub(super) fn first_end(&self) -> Option<(UnixTime, &X509Ref)> {
        let (end, at) = self.first_end?;
        Some((end, self.certificates.get(at)?))
    }

    /// The first second at which all of them are valid, and the subject of the one that becomes valid
    /// then.
    pub(super) fn last_begin(&self) -> Option<(UnixTime, &X509Ref)> {
        let (begin, at) = self.last_begin?;
        Some((begin, self.certificates.get(at)?))
    }

    /// The end without the subject.
    pub(super) fn not_after(&self) -> Option<UnixTime> {
        self.first_end.map(|(end, _)| end)
    }
}

impl Deref for Links {
    type Target = [Arc<X509>];

    fn deref(&self) -> &Self::Target {
        &self.certificates
    }
}

#[derive(Default)]
struct Inner {
    /// Chains in use, by the addresses of their certificates, which live as long as they do. With `true`
    /// the last one is the issuer of the leaf.
    chains: HashMap<(Vec<usize>, bool), Weak<Links>>,
    /// The certificates in use, so that equal ones share their memory.
    interned: HashMap<Fingerprint, Weak<X509>>,
    /// The certificates that can complete a chain, by the hash of the subject.
    known: HashMap<u32, Vec<Arc<X509>>>,
    /// Counts additions.
    generation: u64,
}

impl Intermediates {
    /// Knows the bundled intermediates.
    pub(super) fn bundled() -> Result<Self, ErrorStack> {
        let intermediates = Self::default();
        for certificate in X509::stack_from_pem(BUNDLED)? {
            intermediates.add(certificate)?;
        }
        Ok(intermediates)
    }

    /// Lets `certificate` complete chains from now on, if it is a CA's.
    pub(super) fn add(&self, certificate: X509) -> Result<(), ErrorStack> {
        self.remember_issuer(&self.intern(certificate)?);
        Ok(())
    }

    /// The same for one that is already shared.
    pub(super) fn remember_issuer(&self, certificate: &Arc<X509>) {
        let mut inner = self.lock();
        let known = inner
            .known
            .entry(certificate.subject_name_hash())
            .or_default();
        // Equal certificates are the same object.
        if !known.iter().any(|one| Arc::ptr_eq(one, certificate)) {
            known.push(Arc::clone(certificate));
            inner.generation += 1;
        }
    }

    /// Parses a certificate, unless it is already in use.
    pub(super) fn parse(&self, der: &[u8]) -> Result<X509, ErrorStack> {
        let fingerprint = Fingerprint(openssl::sha::sha256(der));
        let known = self
            .lock()
            .interned
            .get(&fingerprint)
            .and_then(Weak::upgrade);
        match known {
            Some(known) => Ok(X509::clone(&known)),
            None => X509::from_der(der),
        }
    }

    /// Grows with each addition.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// The subjects of all known certificates.
    pub(super) fn subjects(&self) -> Vec<String> {
        let inner = self.lock();
        let known = inner.known.values().flatten();
        known.map(|one| name_text(one.subject_name())).collect()
    }

    /// The known issuer of `certificate` that is best at `now`: valid, and for longest.
    ///
    /// Known certificates may come from anyone's file, so only a verified signature counts.
    fn find_issuer(&self, certificate: &X509Ref, now: UnixTime) -> Option<Arc<X509>> {
        let known = self
            .lock()
            .known
            .get(&certificate.issuer_name_hash())
            .cloned()
            .unwrap_or_default();
        known
            .into_iter()
            .filter(|issuer| issued(issuer, certificate, true))
            .max_by_key(|issuer| (!path::has_ended(issuer, now), path::end(issuer)))
    }

    /// The chain of these certificates, built before. They are known from then on. A root alone is not
    /// sent.
    pub(super) fn share_known(&self, certificates: Vec<X509>) -> Result<ChainRef, ErrorStack> {
        if let [root] = &*certificates
            && is_self_issued(root)
        {
            return self.share_root(root.clone());
        }
        let mut chain = Vec::with_capacity(certificates.len());
        for certificate in certificates {
            let certificate = self.intern(certificate)?;
            self.remember_issuer(&certificate);
            chain.push(certificate);
        }
        Ok(self.share(chain, None))
    }

    /// The chain of a leaf that `root`, which is not sent, has issued itself.
    pub(super) fn share_root(&self, root: X509) -> Result<ChainRef, ErrorStack> {
        let root = self.intern(root)?;
        Ok(self.share(Vec::new(), Some(root)))
    }

    /// The one chain of exactly these certificates. `issuer` is that of the leaf, unless that is the
    /// first.
    fn share(&self, certificates: Vec<Arc<X509>>, issuer: Option<Arc<X509>>) -> ChainRef {
        let addresses = certificates.iter().chain(&issuer);
        let addresses = addresses.map(|one| Arc::as_ptr(one).addr());
        let addresses = (addresses.collect(), issuer.is_some());
        let mut inner = self.lock();
        if let Some(known) = inner.chains.get(&addresses).and_then(Weak::upgrade) {
            return known;
        }
        if inner.chains.len() == inner.chains.capacity() {
            inner.chains.retain(|_, chain| chain.strong_count() > 0);
        }
        let chain = Arc::new(Links::of(certificates, issuer));
        inner.chains.insert(addresses, Arc::downgrade(&chain));
        chain
    }

    fn intern(&self, certificate: X509) -> Result<Arc<X509>, ErrorStack> {
        if let Some(known) = self.find_interned(&certificate) {
            return Ok(known);
        }
        let fingerprint = fingerprint(&certificate)?;
        let mut inner = self.lock();
        if let Some(known) = inner.interned.get(&fingerprint).and_then(Weak::upgrade) {
            return Ok(known);
        }
        if inner.interned.len() == inner.interned.capacity() {
            inner
                .interned
                .retain(|_, certificate| certificate.strong_count() > 0);
        }
        let certificate = Arc::new(certificate);
        inner
            .interned
            .insert(fingerprint, Arc::downgrade(&certificate));
        Ok(certificate)
    }

    /// The known certificate that is this object, as returned by [`Self::parse`]: found without a
    /// digest.
    fn find_interned(&self, certificate: &X509Ref) -> Option<Arc<X509>> {
        let inner = self.lock();
        let mut known = inner.known.get(&certificate.subject_name_hash())?.iter();
        let same = known.find(|one| ptr::eq::<X509Ref>(&****one, certificate));
        same.cloned()
    }

    /// A panic while the lock was held cannot have left a half-made entry behind.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock_unpoisoned()
    }
}

/// Splits `certificates` into the one that `belongs` accepts and the others.
///
/// If it accepts several (a renewed certificate beside the old one, for one key), the one valid
/// longest.
pub(super) fn split_leaf(
    certificates: Vec<X509>,
    belongs: impl Fn(&X509Ref) -> bool,
) -> Result<(X509, Vec<X509>), CertificateError> {
    let (mut leaves, mut others): (Vec<_>, Vec<_>) = certificates
        .into_iter()
        .partition(|certificate| belongs(certificate));
    leaves.sort_by_cached_key(|leaf| unix_time(leaf.not_after()).unwrap_or_default());
    let Some(leaf) = leaves.pop() else {
        return Err(match others.first() {
            Some(first) => CertificateError::KeyMismatch {
                certificate: name_text(first.subject_name()),
            },
            None => CertificateError::NoCertificate { found: None },
        });
    };
    others.append(&mut leaves);
    Ok((leaf, others))
}

/// Returns true if subject and issuer of `certificate` are the same.
pub(super) fn is_self_issued(certificate: &X509Ref) -> bool {
    certificate
        .subject_name()
        .try_cmp(certificate.issuer_name())
        .is_ok_and(Ordering::is_eq)
}

/// Returns true if `issuer` issued `subject`, by names and key identifiers, and by the signature if
/// there are no key identifiers to compare or `verify` asks for it.
pub(super) fn issued(issuer: &X509Ref, subject: &X509Ref, verify: bool) -> bool {
    if issuer.issued(subject) != X509VerifyResult::OK {
        return false;
    }
    let identified = issuer.subject_key_id().is_some() && subject.authority_key_id().is_some();
    if identified && !verify {
        return true;
    }
    issuer
        .public_key()
        .and_then(|key| subject.verify(&key))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use openssl::ec::EcKey;
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;

    use super::*;

    /// The public roots that bundled certificates lead to.
    const ROOTS: [&str; 2] = ["CN=ISRG Root X1", "CN=ISRG Root X2"];

    /// What Let's Encrypt issues from, keeps in reserve, or has retired while its leaves may still
    /// be valid.
    const ISSUING: [&str; 16] = [
        "E5", "E6", "E7", "E8", "E9", "R10", "R11", "R12", "R13", "R14", "YE1", "YE2", "YE3",
        "YR1", "YR2", "YR3",
    ];

    /// The day of the bundle, 21 August 2026.
    const COLLECTED: UnixTime = UnixTime::from_secs(1_787_270_400);

    /// A certificate with nothing but its issuer's name and key identifier.
    fn leaf_of(issuer: &X509Ref) -> X509 {
        let mut leaf = X509::builder().expect("a builder");
        leaf.set_version(2).expect("set");
        leaf.set_issuer_name(issuer.subject_name()).expect("set");
        let key_id = openssl::x509::extension::AuthorityKeyIdentifier::new()
            .keyid(true)
            .build(&leaf.x509v3_context(Some(issuer), None));
        leaf.append_extension(key_id.expect("an identifier"))
            .expect("set");
        // An incomplete certificate has no issuer.
        let like = issuer.public_key().expect("a key");
        let key = match like.ec_key() {
            Ok(like) => EcKey::generate(like.group()).and_then(PKey::from_ec_key),
            Err(_) => Rsa::generate(2048).and_then(PKey::from_rsa),
        };
        let key = key.expect("a key");
        leaf.set_pubkey(&key).expect("set");
        for set in [
            openssl::x509::X509Builder::set_not_before,
            openssl::x509::X509Builder::set_not_after,
        ] {
            let now = openssl::asn1::Asn1Time::days_from_now(0).expect("a time");
            set(&mut leaf, &now).expect("set");
        }
        leaf.sign(&key, openssl::hash::MessageDigest::sha256())
            .expect("signed");
        X509::from_der(&leaf.build().to_der().expect("DER")).expect("a certificate")
    }

    #[test]
    fn every_intermediate_of_lets_encrypt_is_found_from_its_leaves() {
        let bundled = Intermediates::bundled().expect("the bundle is PEM");
        let all = X509::stack_from_pem(BUNDLED).expect("the bundle is PEM");
        for name in ISSUING {
            let common_name = format!("CN={name},");
            let is_it = |one: &&X509| name_text(one.subject_name()).starts_with(&common_name);
            let found: Vec<_> = all.iter().filter(is_it).collect();
            assert_eq!(found.len(), 1, "{name}");
            let leaf = leaf_of(found[0]);
            assert!(leaf.authority_key_id().is_some());
            let inner = bundled.lock();
            let known = inner.known.get(&leaf.issuer_name_hash());
            let fit: Vec<_> = known
                .into_iter()
                .flatten()
                .filter(|issuer| issued(issuer, &leaf, false))
                .collect();
            assert_eq!(fit, [&Arc::new(found[0].clone())], "{name}");
        }
    }

    #[test]
    fn every_bundled_certificate_is_completed_up_to_a_public_root() {
        let bundled = Intermediates::bundled().expect("the bundle is PEM");
        let all = X509::stack_from_pem(BUNDLED).expect("the bundle is PEM");
        assert!(all.len() > ISSUING.len());
        for certificate in &all {
            let not_after = unix_time(certificate.not_after()).expect("a time");
            let name = name_text(certificate.subject_name());
            assert!(not_after > COLLECTED, "{name} has ended");
            let chain = bundled
                .build(certificate, Given::default(), COLLECTED)
                .expect("built");
            let top = chain.certificates.last().map_or(certificate, |top| top);
            let root = name_text(top.issuer_name());
            assert!(ROOTS.iter().any(|known| root.contains(known)), "{root}");
        }
    }

    #[test]
    fn a_chain_of_lets_encrypt_is_completed_through_its_cross_signed_root() {
        let bundled = Intermediates::bundled().expect("the bundle is PEM");
        let issuer = X509::stack_from_pem(BUNDLED)
            .expect("the bundle is PEM")
            .into_iter()
            .find(|one| name_text(one.subject_name()).contains("CN=YE2"))
            .expect("bundled");
        let build = |given| bundled.build(&issuer, given, COLLECTED).expect("built");
        let chain = build(Given::default());
        let names: Vec<_> = chain
            .certificates
            .iter()
            .map(|certificate| name_text(certificate.subject_name()))
            .collect();
        assert!(!chain.incomplete);
        assert_eq!(names.len(), 2, "{names:?}");
        // A certificate whose own chain is preferred keeps it even if it expires sooner.
        let given = vec![X509::clone(&chain.certificates[0])];
        let chosen = build(Given::ByCa(given.clone()));
        assert_eq!(chosen.certificates.len(), 1);
        let longer = build(Given::InFile(given));
        assert_eq!(longer.certificates.len(), 2);
        assert!(names[0].contains("CN=Root YE") && names[1].contains("CN=ISRG Root X2"));
    }
}
