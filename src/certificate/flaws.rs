//! What clients object to in a certificate and its chain, whatever the time.
//!
//! It is found once, when a certificate is loaded, and takes two octets for each. Only what is
//! certain counts: a private CA may have a root that this machine does not know.

use std::sync::Arc;

use openssl::bn::BigNum;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKeyRef};
use openssl::x509::{X509, X509Ref};

use super::chain::{is_self_issued, issued};
use super::error::CertificateWarning;
use super::parse::{MIN_RSA_BITS, check_curve, name_text};
use super::roots::Roots;

/// The smallest public exponent of an RSA key (Baseline Requirements, section 6.1.6).
const MIN_EXPONENT: u32 = 65_537;

/// The object identifiers of the policies that only public CAs assert, in DER: domain, organization
/// and individual validated (2.23.140.1.2 and one more), extended validation (2.23.140.1.1).
const PUBLIC_POLICIES: [&[u8]; 2] = [
    b"\x06\x06\x67\x81\x0c\x01\x02",
    b"\x06\x05\x67\x81\x0c\x01\x01",
];

/// A set of [`Flaw`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flaws(u16);

/// What clients object to, or may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Flaw {
    /// The certificate of its issuer is unknown: it may be a private root, which is not sent.
    IssuerUnknown = 1,
    /// What is sent does not lead to a root that clients have.
    ChainIncomplete = 1 << 1,
    /// What is sent above it is not in the order in which each certifies the one before.
    ChainOrder = 1 << 2,
    /// Its own key is weak.
    WeakKey = 1 << 3,
    /// Its own signature is weak.
    WeakSignature = 1 << 4,
    /// The key of a certificate above it is weak.
    ChainWeakKey = 1 << 5,
    /// The signature of a certificate above it is weak.
    ChainWeakSignature = 1 << 6,
}

impl Flaws {
    /// What is wrong with `leaf`, sent with `chain`. `has_issuer` says whether the certificate of
    /// its issuer is known, and `is_of_ca` whether a CA has provided the chain as it is.
    pub(super) fn of(
        leaf: &X509Ref,
        chain: &[Arc<X509>],
        has_issuer: bool,
        is_of_ca: bool,
        roots: &Roots,
    ) -> Self {
        let mut flaws = Self::default();
        let is_self_signed = is_self_issued(leaf);
        let leads_to_root = || {
            let above = chain.iter().map(|one| &***one);
            std::iter::once(leaf)
                .chain(above)
                .any(|one| roots.lead_from(one))
        };
        if !has_issuer && !leads_to_root() {
            flaws.set(Flaw::IssuerUnknown);
            if names_place_of_issuer(leaf) {
                flaws.set(Flaw::ChainIncomplete);
            }
        }
        if !is_of_ca && !is_self_signed && roots.are_known() && is_public(leaf) && !leads_to_root()
        {
            flaws.set(Flaw::ChainIncomplete);
        }
        // A chain from a file is sent in the right order, whatever its own.
        if is_of_ca && !is_in_order(leaf, chain) {
            flaws.set(Flaw::ChainOrder);
        }
        if weak_key(leaf).is_some() {
            flaws.set(Flaw::WeakKey);
        }
        if !is_self_signed && weak_signature(leaf).is_some() {
            flaws.set(Flaw::WeakSignature);
        }
        for one in chain {
            if weak_key(one).is_some() {
                flaws.set(Flaw::ChainWeakKey);
            }
            // Nobody verifies the signature of a root.
            if !is_self_issued(one) && weak_signature(one).is_some() {
                flaws.set(Flaw::ChainWeakSignature);
            }
        }
        flaws
    }

    /// Returns true if this is one of them.
    pub fn has(self, flaw: Flaw) -> bool {
        self.0 & flaw as u16 != 0
    }

    /// Returns true if another certificate could complete the chain.
    pub(super) fn is_incomplete(self) -> bool {
        self.has(Flaw::IssuerUnknown) || self.has(Flaw::ChainIncomplete)
    }

    /// What people should know of them.
    pub(super) fn warnings(self, leaf: &X509Ref, chain: &[Arc<X509>]) -> Vec<CertificateWarning> {
        let mut warnings = Vec::new();
        if self.has(Flaw::ChainIncomplete) {
            let issuer = missing_issuer(leaf, chain);
            warnings.push(CertificateWarning::Incomplete { issuer });
        } else if self.has(Flaw::IssuerUnknown) {
            let issuer = name_text(leaf.issuer_name());
            warnings.push(CertificateWarning::UnknownIssuer { issuer });
        }
        if self.has(Flaw::ChainOrder) {
            warnings.push(CertificateWarning::Order);
        }
        let chain = chain.iter().map(|one| &***one);
        for (at, one) in std::iter::once(leaf).chain(chain).enumerate() {
            let subject = match at {
                0 => "the certificate".to_owned(),
                _ => format!("the intermediate ({})", name_text(one.subject_name())),
            };
            if let Some(why) = weak_key(one) {
                let what = format!("the key of {subject}");
                warnings.push(CertificateWarning::Weak {
                    what,
                    why,
                    is_key: true,
                });
            }
            if let Some(digest) = weak_signature(one).filter(|_| !is_self_issued(one)) {
                let (what, why) = (subject, format!("is signed over {digest}"));
                warnings.push(CertificateWarning::Weak {
                    what,
                    why,
                    is_key: false,
                });
            }
        }
        warnings
    }

    /// As a number, for the index of files.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    /// The flaws that [`Self::bits`] stands for.
    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    fn set(&mut self, flaw: Flaw) {
        self.0 |= flaw as u16;
    }
}

/// Why the key of `certificate` is weak by the rules for public CAs (Baseline Requirements, section
/// 6.1.5 and 6.1.6); `None` if it is not.
fn weak_key(certificate: &X509Ref) -> Option<String> {
    let key = certificate.public_key().ok()?;
    weakness(&key)
}

fn weakness<T: HasPublic>(key: &PKeyRef<T>) -> Option<String> {
    match key.id() {
        Id::RSA | Id::RSA_PSS => {
            let bits = key.bits();
            if bits < MIN_RSA_BITS {
                return Some(format!("is RSA of only {bits} bits"));
            }
            if !bits.is_multiple_of(8) {
                return Some(format!("is RSA of {bits} bits, which is no multiple of 8"));
            }
            let exponent = key.rsa().ok()?.e().to_owned().ok()?;
            let least = BigNum::from_u32(MIN_EXPONENT).ok()?;
            (exponent < least || !exponent.is_bit_set(0))
                .then(|| format!("is RSA with the public exponent {exponent}"))
        }
        Id::EC => match check_curve(key) {
            Ok(()) => None,
            Err(curve) => Some(format!("is ECDSA on the curve {curve}")),
        },
        Id::DSA => Some("is DSA".to_owned()),
        _ => None,
    }
}

/// Why the signature of `certificate` is weak: made over a digest for which others can be found.
/// `None` if it is not.
fn weak_signature(certificate: &X509Ref) -> Option<&'static str> {
    let algorithm = certificate.signature_algorithm().object().nid();
    let digest = algorithm.signature_algorithms()?.digest;
    [
        (Nid::SHA1, "SHA-1"),
        (Nid::MD5, "MD5"),
        (Nid::MD5_SHA1, "MD5 and SHA-1"),
        (Nid::MD4, "MD4"),
        (Nid::MDC2, "MDC-2"),
        (Nid::RIPEMD160, "RIPEMD-160"),
    ]
    .into_iter()
    .find_map(|(weak, name)| (digest == weak).then_some(name))
}

/// Returns true if each certificate of `chain` certifies the leaf or one before itself.
fn is_in_order(leaf: &X509Ref, chain: &[Arc<X509>]) -> bool {
    chain.iter().enumerate().all(|(at, one)| {
        let before = chain.iter().take(at).map(|before| &***before);
        std::iter::once(leaf)
            .chain(before)
            .any(|below| issued(one, below, false))
    })
}

/// Returns true if `leaf` asserts a policy that is reserved to public CAs.
fn is_public(leaf: &X509Ref) -> bool {
    let Ok(der) = leaf.to_der() else {
        return false;
    };
    PUBLIC_POLICIES
        .iter()
        .any(|policy| memchr::memmem::find(&der, policy).is_some())
}

/// Returns true if `leaf` says where its issuer's certificate is available (RFC 5280, section
/// 4.2.2.1), as those of public CAs do. Otherwise it may be from a private root, which needs no
/// other certificate to be sent.
fn names_place_of_issuer(leaf: &X509Ref) -> bool {
    let access = leaf.authority_info();
    let mut ways = access.iter().flatten();
    ways.any(|way| way.method().nid() == Nid::AD_CA_ISSUERS)
}

/// The issuer that is missing above `leaf` and `chain`: that of the last one on the path.
fn missing_issuer(leaf: &X509Ref, chain: &[Arc<X509>]) -> String {
    let mut top = leaf;
    for one in chain {
        if issued(one, top, false) {
            top = one;
        }
    }
    name_text(top.issuer_name())
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::x509::X509Name;

    use super::*;
    use crate::certificate::testing::TestCa;

    fn rsa(bits: u32, exponent: u32) -> PKey<Private> {
        let exponent = BigNum::from_u32(exponent).expect("a number");
        let key = Rsa::generate_with_e(bits, &exponent).expect("a key");
        PKey::from_rsa(key).expect("a key")
    }

    /// A certificate for `key` and `name`, signed with `signer`'s as `issuer`.
    fn certificate(
        key: &PKey<Private>,
        (name, issuer): (&str, &str),
        signer: &PKey<Private>,
        digest: MessageDigest,
    ) -> X509 {
        let named = |name: &str| {
            let mut built = X509Name::builder().expect("a builder");
            built.append_entry_by_text("CN", name).expect("a name");
            built.build()
        };
        let mut builder = X509::builder().expect("a builder");
        builder.set_version(2).expect("set");
        builder.set_subject_name(&named(name)).expect("set");
        builder.set_issuer_name(&named(issuer)).expect("set");
        builder.set_pubkey(key).expect("set");
        let now = openssl::asn1::Asn1Time::days_from_now(0).expect("a time");
        builder.set_not_before(&now).expect("set");
        builder.set_not_after(&now).expect("set");
        builder.sign(signer, digest).expect("signed");
        builder.build()
    }

    #[test]
    fn keys_are_weak_by_the_rules_for_public_cas() {
        let curve = |name| {
            let group = openssl::ec::EcGroup::from_curve_name(name).expect("a curve");
            let key = openssl::ec::EcKey::generate(&group).expect("a key");
            PKey::from_ec_key(key).expect("a key")
        };
        let why = |key: &PKey<Private>| weakness(key);
        assert_eq!(why(&rsa(2048, 65_537)), None);
        assert_eq!(why(&curve(Nid::X9_62_PRIME256V1)), None);
        assert_eq!(why(&PKey::generate_ed25519().expect("a key")), None);
        for (key, part) in [
            (rsa(1024, 65_537), "only 1024 bits"),
            (rsa(2050, 65_537), "no multiple of 8"),
            (rsa(2048, 3), "the public exponent 3"),
            (curve(Nid::SECP256K1), "the curve secp256k1"),
        ] {
            let why = why(&key).unwrap_or_default();
            assert!(why.contains(part), "{part}: {why}");
        }
    }

    #[test]
    fn signatures_over_broken_digests_are_weak_but_not_those_of_roots() {
        let key = rsa(2048, 65_537);
        let roots = Roots::default();
        for (digest, is_weak) in [
            (MessageDigest::sha1(), true),
            (MessageDigest::md5(), true),
            (MessageDigest::sha256(), false),
            (MessageDigest::sha512(), false),
        ] {
            let leaf = certificate(&key, ("leaf", "above"), &key, digest);
            assert_eq!(weak_signature(&leaf).is_some(), is_weak);
            let flaws = Flaws::of(&leaf, &[], true, false, &roots);
            assert_eq!(flaws.has(Flaw::WeakSignature), is_weak);
            let above = Arc::new(certificate(&key, ("above", "root"), &key, digest));
            let root = Arc::new(certificate(&key, ("root", "root"), &key, digest));
            let good = MessageDigest::sha256();
            let leaf = certificate(&key, ("leaf", "above"), &key, good);
            let flaws = Flaws::of(&leaf, &[above, root], true, false, &roots);
            assert_eq!(flaws.has(Flaw::ChainWeakSignature), is_weak);
            let root = certificate(&key, ("root", "root"), &key, digest);
            let flaws = Flaws::of(&root, &[], true, false, &roots);
            assert_eq!(flaws, Flaws::default());
        }
    }

    #[test]
    fn a_chain_of_a_ca_is_in_order_where_each_certifies_one_before() {
        let (key, good) = (rsa(2048, 65_537), MessageDigest::sha256());
        let make = |name, issuer| Arc::new(certificate(&key, (name, issuer), &key, good));
        let leaf = make("leaf", "one");
        let (one, two, other) = (make("one", "two"), make("two", "root"), make("x", "y"));
        let cross = make("one", "elsewhere");
        for (chain, is_good) in [
            (vec![&one, &two], true),
            (vec![&one, &two, &cross], true),
            (vec![&two, &one], false),
            (vec![&one, &other], false),
        ] {
            let chain: Vec<_> = chain.into_iter().cloned().collect();
            let is_flawed = |is_of_ca| {
                let flaws = Flaws::of(&leaf, &chain, true, is_of_ca, &Roots::default());
                flaws.has(Flaw::ChainOrder)
            };
            assert_eq!(is_flawed(true), !is_good);
            assert!(!is_flawed(false), "the gateway orders those of files");
        }
    }

    #[test]
    fn a_certificate_of_the_test_ca_has_no_flaw() {
        let ca = TestCa::new("flawless");
        let leaf = ca.leaf(&["a.test"]);
        let parse = |pem: &str| X509::from_pem(pem.as_bytes()).expect("PEM");
        let chain = [Arc::new(parse(&ca.intermediate.pem()))];
        let leaf = parse(&leaf.certificate);
        let flaws = Flaws::of(&leaf, &chain, true, false, &Roots::default());
        assert_eq!(flaws, Flaws::default());
    }
}
