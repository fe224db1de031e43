use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode};
use openssl::symm::Cipher;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509StoreContext, X509StoreContextRef};
use rcgen::{Issuer, KeyPair};

use super::finding::{describe, findings};
use super::loader::File;
use super::testing::{
    DAY, NOW, TestCa, intermediate_of, intermediate_valid, leaf_params, p256, rsa, self_signed,
};
use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::event::EventKind;
use crate::schedule::WarnFrom;

fn loader() -> Loader {
    Loader::new().expect("a loader")
}

fn load(pem: impl AsRef<[u8]>) -> Result<Loaded, CertificateError> {
    loader().load(pem.as_ref(), Source::Program)
}

fn error(pem: impl AsRef<[u8]>) -> CertificateError {
    load(pem).expect_err("must be refused")
}

#[test]
fn chain_and_key_may_come_in_any_order() {
    let ca = TestCa::new("order");
    let leaf = ca.leaf(&["a.example", "*.a.example", "192.0.2.7"]);
    let (intermediate, root) = (ca.intermediate.pem(), ca.root.pem());
    for parts in [
        [&leaf.certificate, &intermediate, &root, &leaf.key],
        [&leaf.key, &root, &intermediate, &leaf.certificate],
        [&intermediate, &leaf.certificate, &leaf.key, &root],
    ] {
        let Loaded {
            certificate,
            warnings,
        } = load(parts.map(String::as_str).concat()).expect("good");
        assert_eq!(warnings, []);
        assert_eq!(certificate.chain_len(), 2, "the root is not sent");
        let names: Vec<_> = certificate.names().iter().map(Pattern::to_string).collect();
        assert_eq!(names, ["a.example", "*.a.example", "192.0.2.7"]);
        assert!(certificate.covers_ip("192.0.2.7".parse().expect("an address")));
        assert!(!certificate.covers_ip("192.0.2.8".parse().expect("an address")));
        assert_eq!(
            (certificate.not_before(), certificate.not_after()),
            (NOW - DAY, NOW + 90 * DAY)
        );
        assert_eq!(certificate.validity(NOW), Validity::Valid);
        assert_eq!(certificate.validity(NOW + 91 * DAY), Validity::Expired);
        assert_eq!(certificate.validity(NOW - 2 * DAY), Validity::NotYet);
        assert_eq!(certificate.kind(), KeyKind::Ecdsa);
        assert_eq!(certificate.describe().issuer, "CN=order intermediate");
        assert!(certificate.covers("x.a.example") && !certificate.covers("x.y.a.example"));
    }
}

#[test]
fn keys_come_in_every_pem_form() {
    let ca = TestCa::new("forms");
    let key = p256();
    let leaf = ca.leaf_with(&["a.example"], NOW, NOW + DAY, &key);
    let pkcs8 = PKey::private_key_from_pem(leaf.key.as_bytes()).expect("a key");
    let sec1 = pkcs8
        .ec_key()
        .expect("EC")
        .private_key_to_pem()
        .expect("PEM");
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let chain = ca.chain(&leaf);
    load([chain.as_bytes(), parameters.as_bytes(), &sec1].concat()).expect("SEC 1");

    let key = rsa(2048);
    let leaf = ca.leaf_with(&["a.example"], NOW, NOW + DAY, &key);
    let pkcs8 = PKey::private_key_from_pem(leaf.key.as_bytes()).expect("a key");
    let pkcs1 = pkcs8.rsa().expect("RSA").private_key_to_pem().expect("PEM");
    let loaded = load([&pkcs1, ca.chain(&leaf).as_bytes()].concat()).expect("PKCS #1");
    assert_eq!(loaded.certificate.kind(), KeyKind::Rsa);

    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let leaf = ca.leaf_with(&["a.example"], NOW, NOW + DAY, &key);
    let loaded = load(ca.chain(&leaf) + &leaf.key).expect("Ed25519");
    assert_eq!(loaded.certificate.kind(), KeyKind::Ed25519);
}

#[test]
fn each_fault_has_its_own_error() {
    let ca = TestCa::new("faults");
    let leaf = ca.leaf(&["a.example"]);
    let other = ca.leaf(&["b.example"]);
    let chain = ca.chain(&leaf);
    let whole = chain.clone() + &leaf.key;

    assert_eq!(error(""), CertificateError::Empty);
    assert_eq!(error(" \n"), CertificateError::Empty);
    assert_eq!(error("hello"), CertificateError::NotPem);
    assert_eq!(error("-----BEG"), CertificateError::Torn);
    // As PowerShell writes it: with or without a byte order mark.
    let text: Vec<u16> = whole.encode_utf16().collect();
    let marked: Vec<u16> = std::iter::once(0xFEFF).chain(text.clone()).collect();
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        for text in [&text, &marked] {
            let octets: Vec<u8> = text.iter().flat_map(|one| order(*one)).collect();
            assert_eq!(error(octets), CertificateError::Utf16);
        }
    }
    load("\u{feff}".to_owned() + &whole).expect("a mark before UTF-8 is none of the text's");
    for cut in [2, 20, 100] {
        assert_eq!(
            error(&whole[..whole.len() - cut]),
            CertificateError::Torn,
            "{cut}"
        );
    }
    let der = X509::from_pem(leaf.certificate.as_bytes()).expect("a certificate");
    let der = der.to_der().expect("DER");
    assert_eq!(
        error(der),
        CertificateError::Der {
            what: "certificate"
        }
    );
    assert_eq!(
        error(&chain),
        CertificateError::NoKey {
            found: Some("certificate".to_owned())
        }
    );
    assert_eq!(
        error(&leaf.key),
        CertificateError::NoCertificate {
            found: Some("private key".to_owned())
        }
    );
    assert!(matches!(
        error(chain.clone() + &other.key),
        CertificateError::KeyMismatch { certificate } if certificate == "CN=leaf"
    ));
    assert_eq!(
        error(whole.clone() + &other.key),
        CertificateError::SeveralKeys(2)
    );
    load(whole.clone() + &leaf.key).expect("the same key twice is one key");

    let key = PKey::private_key_from_pem(leaf.key.as_bytes()).expect("a key");
    let encrypted = key
        .private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret")
        .expect("PEM");
    assert_eq!(
        error([chain.as_bytes(), &encrypted].concat()),
        CertificateError::EncryptedKey
    );
    let encrypted = key
        .ec_key()
        .and_then(|key| key.private_key_to_pem_passphrase(Cipher::aes_256_cbc(), b"secret"))
        .expect("PEM");
    assert_eq!(
        error([chain.as_bytes(), &encrypted].concat()),
        CertificateError::EncryptedKey
    );

    let damaged = whole.replacen("MII", "!!!", 1);
    assert!(matches!(
        error(damaged),
        CertificateError::Unreadable { .. }
    ));
    let request = whole.replace("BEGIN CERTIFICATE-", "BEGIN CERTIFICATE REQUEST-");
    let request = request.replace("END CERTIFICATE-", "END CERTIFICATE REQUEST-");
    assert_eq!(
        loader()
            .load_pair(request.as_bytes(), leaf.key.as_bytes(), Source::Program)
            .expect_err("no certificate"),
        (
            File::Chain,
            CertificateError::NoCertificate {
                found: Some("private key".to_owned())
            }
        )
    );
}

#[test]
fn a_pair_names_the_file_at_fault() {
    let ca = TestCa::new("pair");
    let (leaf, other) = (ca.leaf(&["a.example"]), ca.leaf(&["b.example"]));
    let chain = ca.chain(&leaf);
    let pair = |chain: &str, key: &str| {
        loader().load_pair(chain.as_bytes(), key.as_bytes(), Source::Program)
    };
    pair(&chain, &leaf.key).expect("good");
    assert_eq!(
        pair(&chain, "").expect_err("empty"),
        (File::Key, CertificateError::Empty)
    );
    assert_eq!(
        pair("", &leaf.key).expect_err("empty"),
        (File::Chain, CertificateError::Empty)
    );
    let (file, error) = pair(&chain, &other.key).expect_err("mismatch");
    assert_eq!(file, File::Key);
    assert!(
        error
            .to_string()
            .contains("does not belong to the certificate (CN=leaf)"),
        "{error}"
    );
    let swapped = pair(&leaf.key, &chain).expect_err("swapped");
    assert_eq!(
        swapped,
        (
            File::Chain,
            CertificateError::NoCertificate {
                found: Some("private key".to_owned())
            }
        )
    );
}

#[test]
fn weak_and_unsupported_keys_are_refused() {
    let ca = TestCa::new("weak");
    let issue = |key: &PKey<Private>| {
        let pem = key.private_key_to_pem_pkcs8().expect("PEM");
        self_signed(key, &["a.example"]) + std::str::from_utf8(&pem).expect("text")
    };
    let weak = PKey::from_rsa(openssl::rsa::Rsa::generate(1024).expect("a key")).expect("a key");
    let found = error(issue(&weak)).to_string();
    assert!(found.contains("RSA of only 1024 bits"), "{found}");
    let group = EcGroup::from_curve_name(Nid::SECP256K1).expect("a curve");
    let odd = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    let found = error(issue(&odd)).to_string();
    assert!(found.contains("secp256k1"), "{found}");
    for curve in [Nid::SECP384R1, Nid::SECP521R1] {
        let group = EcGroup::from_curve_name(curve).expect("a curve");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let loaded = load(issue(&key)).expect("good");
        assert_eq!(
            (loaded.certificate.chain_len(), loaded.warnings),
            (1, Vec::new())
        );
    }
    drop(ca);
}

#[test]
fn the_common_name_is_no_name() {
    let key = p256();
    let certificate = leaf_params(&[], NOW, NOW + DAY)
        .self_signed(&key)
        .expect("a certificate");
    let found = error(certificate.pem() + &key.serialize_pem());
    assert_eq!(
        found,
        CertificateError::NoNames {
            common_name: Some("leaf".to_owned())
        }
    );
    assert!(
        found.to_string().contains(r#"only the common name "leaf""#),
        "{found}"
    );

    let leaf = TestCa::new("addresses").leaf(&["192.0.2.1"]);
    let loaded = load(leaf.certificate + &leaf.key).expect("good");
    let only = [Pattern::Ip("192.0.2.1".parse().expect("an address"))];
    assert_eq!(loaded.certificate.names(), only);
    assert_eq!(loaded.warnings.len(), 1, "that of the chain");

    let leaf = TestCa::new("odd").leaf(&["*", "a.*.example", "a.example"]);
    let loaded = load(leaf.certificate + &leaf.key).expect("good");
    assert_eq!(loaded.certificate.names().len(), 1);
    assert_eq!(
        loaded.warnings.len(),
        3,
        "two names and the chain: {:?}",
        loaded.warnings
    );
}

#[test]
fn chains_are_mended_and_shared() {
    let (ca, other) = (TestCa::new("mine"), TestCa::new("other"));
    let leaf = ca.leaf(&["a.example"]);
    let loader = loader();
    let load = |pem: String| loader.load(pem.as_bytes(), Source::Program).expect("good");

    let bare = load(leaf.certificate.clone() + &leaf.key);
    assert_eq!(
        bare.warnings,
        [CertificateWarning::UnknownIssuer {
            issuer: "CN=mine intermediate".to_owned()
        }]
    );
    assert!(loader.complete_chain(&bare.certificate).is_none());

    assert!(Loader::is_bundle(ca.intermediate.pem().as_bytes()));
    assert!(!Loader::is_bundle(leaf.certificate.as_bytes()));
    let generation = loader.generation();
    loader
        .add_intermediate(ca.intermediate.pem().as_bytes())
        .expect("a bundle");
    assert!(loader.generation() > generation);
    let completed = loader
        .complete_chain(&bare.certificate)
        .expect("a known issuer");
    assert_eq!(completed.chain_len(), 2);
    let again = load(leaf.certificate.clone() + &leaf.key);
    assert_eq!(
        (again.certificate.chain_len(), again.warnings),
        (2, Vec::new())
    );
    assert!(
        Arc::ptr_eq(&again.certificate.chain[0], &completed.chain[0]),
        "held once"
    );

    let mixed = load(ca.chain(&leaf) + &other.intermediate.pem() + &other.root.pem() + &leaf.key);
    assert_eq!(mixed.certificate.chain_len(), 2);
    assert_eq!(
        mixed.warnings,
        [CertificateWarning::Unrelated {
            subject: "CN=other intermediate".to_owned()
        }]
    );
}

#[test]
fn debug_shows_no_key() {
    let ca = TestCa::new("debug");
    let leaf = ca.leaf(&["a.example"]);
    let loaded = load(ca.chain(&leaf) + &leaf.key).expect("good");
    let text = format!("{loaded:?}");
    assert!(
        text.contains("a.example") && !text.contains("PRIVATE"),
        "{text}"
    );
    assert!(
        !text.to_lowercase().contains("pkey") && !text.contains("key:"),
        "{text}"
    );
}

#[test]
fn openssl_takes_the_certificate_that_the_client_can_use() {
    let ca = TestCa::new("both");
    let loader = loader();
    let ecdsa = ca.certificate(&loader, &["a.example"], NOW - DAY, NOW + DAY);
    let leaf = ca.leaf_with(&["a.example"], NOW - DAY, NOW + DAY, &rsa(2048));
    let rsa = loader
        .load((ca.chain(&leaf) + &leaf.key).as_bytes(), Source::Program)
        .expect("good");
    let set = sni::CertificateSet::of(vec![ecdsa, Arc::new(rsa.certificate)]);
    for (algorithms, id) in [
        ("ECDSA+SHA256", openssl::pkey::Id::EC),
        ("RSA-PSS+SHA256", openssl::pkey::Id::RSA),
    ] {
        let (leaf, length) = handshake(&ca, &set, algorithms);
        assert_eq!(leaf.public_key().expect("a key").id(), id);
        assert_eq!(length, 2, "{algorithms}");
    }
}

/// A handshake over a socket pair: what the client was sent, and how many certificates.
fn handshake(ca: &TestCa, set: &sni::CertificateSet, algorithms: &str) -> (X509, usize) {
    let (client, server) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut context = SslContext::builder(SslMethod::tls_client()).expect("a context");
    context.set_sigalgs_list(algorithms).expect("algorithms");
    let mut store = X509StoreBuilder::new().expect("a store");
    store
        .add_cert(X509::from_pem(ca.root.pem().as_bytes()).expect("PEM"))
        .expect("a root");
    context.set_cert_store(store.build());
    // The certificates of tests are valid around a fixed day.
    context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    let context = context.build();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let context = SslContext::builder(SslMethod::tls_server())
                .expect("a context")
                .build();
            let mut ssl = Ssl::new(&context).expect("SSL");
            // Twice, as when a handshake starts again after a retry request.
            for certificate in set.by_kind.iter().chain(&set.by_kind) {
                certificate.apply(&mut ssl).expect("applied");
            }
            SslStream::new(ssl, server)
                .expect("a stream")
                .accept()
                .expect("a handshake");
        });
        let ssl = Ssl::new(&context).expect("SSL");
        let mut stream = SslStream::new(ssl, client).expect("a stream");
        stream.connect().expect("a handshake");
        let length = stream.ssl().peer_cert_chain().expect("a chain").len();
        (
            stream.ssl().peer_certificate().expect("a certificate"),
            length,
        )
    })
}

/// RFC 9773, section 4.1 and appendix A.
#[test]
fn cas_know_a_certificate_by_its_authority_and_serial_number() {
    let authority = [
        0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE,
        0x2C, 0xDE, 0x01, 0xC8, 0xD4,
    ];
    let id = renewal_id(&authority, vec![0x87, 0x65, 0x43, 0x21]);
    assert_eq!(id, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    assert_eq!(renewal_id(&authority[..2], vec![0x7F, 0xFF]), "aYg.f_8");
    assert_eq!(renewal_id(&[], Vec::new()), ".AA");

    let ca = TestCa::new("ids");
    let of = |names: &[&str]| {
        let loaded = ca.certificate(&loader(), names, NOW, NOW + DAY);
        loaded.renewal_id().expect("an id")
    };
    let (one, other) = (of(&["a.example"]), of(&["a.example"]));
    assert_ne!(one, other);
    assert_eq!(one.split('.').next(), other.split('.').next());
    let key = PKey::from_ec_key(EcKey::generate(&p256_group()).expect("a key")).expect("a key");
    let key_pem = key.private_key_to_pem_pkcs8().expect("PEM");
    let pem = [self_signed(&key, &["a.example"]).as_bytes(), &key_pem].concat();
    let alone = load(pem).expect("good").certificate;
    assert_eq!(alone.renewal_id(), None, "it does not say who signed it");
}

fn p256_group() -> EcGroup {
    EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve")
}

#[test]
fn what_was_written_is_found_again_without_parsing() {
    let ca = TestCa::new("found");
    let certificate = ca.certificate(&loader(), &["a.example"], NOW, NOW + DAY);
    let pem = certificate.bundle_pem().expect("PEM");
    let der = pem::find_der(&pem, certificate.fingerprint()).expect("found");
    assert_eq!(der.leaf(), certificate.leaf_der().expect("DER"));
    let key = PKey::private_key_from_der(der.key()).expect("a key");
    let leaf = X509::from_der(der.leaf()).expect("a certificate");
    assert!(leaf.public_key().expect("a key").public_eq(&key));

    let other = Fingerprint([7; 32]);
    assert!(pem::find_der(&pem, other).is_none());
    assert!(pem::find_der(&certificate.chain_pem().expect("PEM"), other).is_none());
    for cut in [0, 30, 400] {
        assert!(pem::find_der(&pem[..cut], certificate.fingerprint()).is_none());
    }
}

#[test]
fn chains_are_held_once() {
    let ca = TestCa::new("once");
    let loader = loader();
    let of = |name| ca.certificate(&loader, &[name], NOW, NOW + DAY);
    let (one, other) = (of("a.example"), of("b.example"));
    assert!(Arc::ptr_eq(&one.chain, &other.chain));
}

/// A chain as a client gets it, without the leaf: for each certificate its issuer and its end.
fn sent(certificate: &TlsCertificate) -> Vec<(String, i64)> {
    let told = |one: &X509| {
        let end = parse::unix_time(one.not_after()).expect("a time");
        (parse::name_text(one.issuer_name()), (end - NOW) / DAY)
    };
    certificate.chain.iter().map(|one| told(one)).collect()
}

/// Returns true if a client that trusts only `root` accepts what is sent, at `NOW`.
fn verifies(certificate: &TlsCertificate, root: &str) -> bool {
    let mut store = X509StoreBuilder::new().expect("a store");
    let root = X509::from_pem(root.as_bytes()).expect("a root");
    store.add_cert(root).expect("a root");
    let mut param = X509VerifyParam::new().expect("parameters");
    param.set_time(NOW.as_secs());
    store.set_param(&param).expect("set");
    let material = certificate.material().expect("parsed");
    let mut chain = openssl::stack::Stack::new().expect("a stack");
    for one in material.chain() {
        chain.push(X509::clone(one)).expect("room");
    }
    let mut context = X509StoreContext::new().expect("a context");
    let leaf = material.leaf().to_owned();
    let verified = context.init(
        &store.build(),
        &leaf,
        &chain,
        X509StoreContextRef::verify_cert,
    );
    verified.expect("it was tried")
}

fn loader_at(now: UnixTime) -> (Loader, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(now));
    let loader = Loader::with_clock(Arc::clone(&clock) as _).expect("a loader");
    (loader, clock)
}

#[test]
fn of_several_issuers_with_one_key_the_valid_ones_are_sent_longest_first() {
    let (ca, other) = (TestCa::new("mine"), TestCa::new("other"));
    let leaf = ca.leaf(&["a.example"]);
    let of = |root: &TestCa, days: i64| {
        intermediate_of(
            "mine intermediate",
            ca.intermediate.key(),
            &root.root,
            NOW + days * DAY,
        )
    };
    let (ended, short, long, crossed) = (of(&ca, -1), of(&ca, 20), of(&ca, 400), of(&other, 300));
    let mine = |days| ("CN=mine root".to_owned(), days);
    let cross = ("CN=other root".to_owned(), 300);
    let (loader, clock) = loader_at(NOW);
    let load = |parts: &[&String]| {
        let above: String = parts.iter().map(|part| part.as_str()).collect();
        let pem = leaf.certificate.clone() + &above + &leaf.key;
        // Each with what it contains alone.
        let (loader, _) = loader_at(NOW);
        loader.load(pem.as_bytes(), Source::Program).expect("good")
    };
    // (given, sent, reported as expired)
    for (given, expected, superseded) in [
        (vec![&ended, &long], vec![mine(400)], 1),
        (vec![&long, &ended], vec![mine(400)], 1),
        (vec![&short, &long], vec![mine(400), mine(20)], 0),
        (vec![&crossed, &long], vec![mine(400), cross.clone()], 0),
        (
            vec![&short, &crossed, &ended],
            vec![cross.clone(), mine(20)],
            1,
        ),
        (vec![&ended], vec![mine(-1)], 0),
        (vec![&long, &long], vec![mine(400)], 0),
    ] {
        let Loaded {
            certificate,
            warnings,
        } = load(&given);
        assert_eq!(sent(&certificate), expected);
        assert_eq!(warnings.len(), superseded, "{warnings:?}");
        let is_it = |one: &CertificateWarning| matches!(one, CertificateWarning::Superseded { .. });
        assert!(warnings.iter().all(is_it), "{warnings:?}");
        let is_valid = expected.first().is_some_and(|(_, days)| *days > 0);
        let root = match expected.first() {
            Some((issuer, _)) if issuer.contains("other") => other.root.pem(),
            _ => ca.root.pem(),
        };
        assert_eq!(verifies(&certificate, &root), is_valid, "{expected:?}");
    }
    // An expired certificate counts, unless another replaces it.
    let end = |given: &[&String]| load(given).certificate.served_until();
    assert_eq!(end(&[&ended]), NOW - DAY);
    assert_eq!(end(&[&short]), NOW + 20 * DAY);
    assert_eq!(end(&[&short, &long]), NOW + 90 * DAY, "that of the leaf");
    let found = load(&[&short]).certificate.chain_end();
    assert_eq!(
        found,
        Some((NOW + 20 * DAY, "CN=mine intermediate".to_owned()))
    );

    // A CA's chain is sent as it came.
    let pem = leaf.certificate.clone() + &ended + &crossed + &long + &leaf.key;
    let issuer = Source::Issuer("ca".into());
    let loaded = loader.load(pem.as_bytes(), issuer).expect("good");
    assert_eq!(sent(&loaded.certificate), [mine(-1), cross, mine(400)]);
    assert_eq!(loaded.warnings, []);

    // If the clock is wrong nothing is left out: by it everything has expired, or nothing.
    for now in [UnixTime::default(), NOW + 9_000 * DAY] {
        clock.advance(now - clock.now());
        let pem = leaf.certificate.clone() + &short + &long + &leaf.key;
        let loaded = loader.load(pem.as_bytes(), Source::Program).expect("good");
        assert_eq!(sent(&loaded.certificate), [mine(400), mine(20)], "{now}");
    }
}

#[test]
fn the_issuer_is_known_whether_it_is_sent_or_not() {
    struct Nowhere;
    impl CertSource for Nowhere {
        fn fetch(&self, _: &TlsCertificate) -> Result<material::Fetched, String> {
            Err("it is nowhere".to_owned())
        }
    }
    let (ca, key) = (TestCa::new("issuing"), p256());
    let issuer = |one: &TlsCertificate| {
        let issuer = one.issuer().expect("it is known");
        parse::name_text(issuer.subject_name())
    };
    // A root has issued it itself.
    let params = leaf_params(&["a.example"], NOW - DAY, NOW + DAY);
    let leaf = params.signed_by(&key, &ca.root).expect("a leaf");
    let pem = leaf.pem() + &ca.root.pem() + &key.serialize_pem();
    let certificate = load(pem).expect("good").certificate;
    assert_eq!(
        (certificate.chain_len(), &*issuer(&certificate)),
        (1, "CN=issuing root")
    );
    // It is known from the index of files too, and not sent either.
    let ders = certificate.shared_chain().ders().expect("DER");
    let ders: Vec<_> = ders.iter().map(Vec::as_slice).collect();
    let chain = loader().share_chain(&ders).expect("a chain");
    let (facts, source) = (certificate.facts(), Source::Program);
    let again = TlsCertificate::from_index(facts, &chain, source, Arc::new(Nowhere));
    assert_eq!(
        (again.chain_len(), &*issuer(&again)),
        (1, "CN=issuing root")
    );
    // A CA sends its chain in disorder.
    let leaf = ca.leaf(&["a.example"]);
    let pem = leaf.certificate.clone() + &ca.root.pem() + &ca.intermediate.pem() + &leaf.key;
    let of_ca = loader().load(pem.as_bytes(), Source::Issuer("ca".into()));
    let certificate = of_ca.expect("good").certificate;
    assert!(certificate.flaws().has(Flaw::ChainOrder));
    assert_eq!(issuer(&certificate), "CN=issuing intermediate");
}

#[test]
fn a_chain_that_is_not_valid_yet_is_found() {
    let (ca, key) = (TestCa::new("early"), p256());
    let begin = NOW + DAY;
    let own = ca.intermediate.key();
    let above = intermediate_valid("early intermediate", own, &ca.root, begin, NOW + 400 * DAY);
    let params = leaf_params(&["a.example"], NOW - DAY, NOW + 90 * DAY);
    let leaf = params.signed_by(&key, &ca.intermediate).expect("a leaf");
    let pem = leaf.pem() + &above + &key.serialize_pem();
    let loaded = loader_at(NOW).0.load(pem.as_bytes(), Source::Program);
    let certificate = loaded.expect("good").certificate;
    let facts = RenewalFacts::BY_HAND;
    let found = |now| findings(&certificate, &facts, WarnFrom::default(), now);
    let early = found(NOW);
    assert_eq!(early[0].kind, EventKind::CertificateNotYetValid);
    let text = describe(&early[0], &certificate, &facts);
    assert!(
        text.contains("(CN=early intermediate) that is not valid before"),
        "{text}"
    );
    assert!(found(begin).is_empty());
    // How near its end is depends on its own life.
    assert!(found(NOW + 75 * DAY).is_empty() && !found(NOW + 77 * DAY).is_empty());
}

#[test]
fn alternatives_come_with_their_own_issuers_and_within_bounds() {
    let (ca, other) = (TestCa::new("mine"), TestCa::new("other"));
    let leaf = ca.leaf(&["a.example"]);
    let of = |issuer: &Issuer<'_, KeyPair>, days: i64| {
        intermediate_of(
            "mine intermediate",
            ca.intermediate.key(),
            issuer,
            NOW + days * DAY,
        )
    };
    // Signed by the root itself, and by another CA that leads to another root.
    let (direct, crossed) = (of(&ca.root, 300), of(&other.intermediate, 200));
    let load = |above: String| {
        let pem = leaf.certificate.clone() + &above + &leaf.key;
        loader_at(NOW)
            .0
            .load(pem.as_bytes(), Source::Program)
            .expect("good")
    };
    let loaded = load(crossed + &other.intermediate.pem() + &ca.root.pem() + &direct);
    assert_eq!(loaded.warnings, []);
    let issuers: Vec<_> = sent(&loaded.certificate)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        issuers,
        ["CN=mine root", "CN=other intermediate", "CN=other root"]
    );
    assert!(verifies(&loaded.certificate, &ca.root.pem()));

    // The root as signed by itself, and as signed by another: the latter is for clients that do not
    // know it.
    let crossed_root = intermediate_of("mine root", ca.root.key(), &other.root, NOW + 50 * DAY);
    let loaded = load(ca.root.pem() + &direct + &crossed_root);
    let issuers: Vec<_> = sent(&loaded.certificate)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(issuers, ["CN=mine root", "CN=other root"]);
    for root in [&ca.root, &other.root] {
        assert!(verifies(&loaded.certificate, &root.pem()));
    }

    let many: String = (1..40).map(|days| of(&ca.root, days)).collect();
    let loaded = load(many);
    assert_eq!(loaded.certificate.chain_len(), 11);
    assert_eq!(sent(&loaded.certificate)[0].1, 39);
}

#[test]
fn an_issuer_that_has_ended_completes_no_chain_while_a_valid_one_is_known() {
    let ca = TestCa::new("mine");
    let leaf = ca.leaf(&["a.example"]);
    let of = |days: i64| {
        intermediate_of(
            "mine intermediate",
            ca.intermediate.key(),
            &ca.root,
            NOW + days * DAY,
        )
    };
    let (ended, valid) = (of(-1), of(100));
    let bare = leaf.certificate.clone() + &leaf.key;
    for learned in [[&ended, &valid], [&valid, &ended]] {
        let (loader, _) = loader_at(NOW);
        for one in learned {
            loader.add_intermediate(one.as_bytes()).expect("a bundle");
        }
        let loaded = loader.load(bare.as_bytes(), Source::Program).expect("good");
        assert_eq!(sent(&loaded.certificate)[0].1, 100);
        // Nor is one from a file.
        let pem = bare.clone() + &ended;
        let loaded = loader.load(pem.as_bytes(), Source::Program).expect("good");
        assert_eq!(
            sent(&loaded.certificate),
            [("CN=mine root".to_owned(), 100)]
        );
        let told = loaded.warnings.iter().map(ToString::to_string);
        let told: Vec<_> = told.collect();
        assert!(
            told.len() == 1 && told[0].contains("expired on"),
            "{told:?}"
        );
    }
    // If there is no other, it is better than none, until another is known.
    let (loader, _) = loader_at(NOW);
    loader.add_intermediate(ended.as_bytes()).expect("a bundle");
    let loaded = loader.load(bare.as_bytes(), Source::Program).expect("good");
    assert_eq!(sent(&loaded.certificate)[0].1, -1);
    assert!(loader.complete_chain(&loaded.certificate).is_none());
    loader.add_intermediate(valid.as_bytes()).expect("a bundle");
    let mended = loader.complete_chain(&loaded.certificate).expect("mended");
    assert_eq!(sent(&mended), [("CN=mine root".to_owned(), 100)]);
    assert!(loader.complete_chain(&mended).is_none());
}

#[test]
fn an_unknown_issuer_is_told_where_its_certificate_is_to_be_had() {
    let ca = TestCa::new("mine");
    let key = p256();
    for (has_place, is_told) in [(true, true), (false, false)] {
        let mut params = leaf_params(&["a.example"], NOW, NOW + DAY);
        if has_place {
            // SEQUENCE of one caIssuers (1.3.6.1.5.5.7.48.2) at a URI.
            let access =
                b"\x30\x17\x30\x15\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x09http://ca";
            let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
            let access = rcgen::CustomExtension::from_oid_content(&oid, access.to_vec());
            params.custom_extensions.push(access);
        }
        let leaf = params.signed_by(&key, &ca.intermediate).expect("a leaf");
        let loaded = load(leaf.pem() + &key.serialize_pem()).expect("good");
        let told: Vec<_> = loaded.warnings.iter().filter(|one| one.is_told()).collect();
        assert_eq!(told.len(), usize::from(is_told), "{told:?}");
        assert_eq!(
            loaded
                .warnings
                .first()
                .and_then(CertificateWarning::missing_issuer),
            Some("CN=mine intermediate")
        );
    }
}

#[test]
fn authorities_that_have_signed_each_other_make_no_circle() {
    let (one, other) = (TestCa::new("one"), TestCa::new("other"));
    let leaf = one.leaf(&["a.example"]);
    let of = |name: &str, key: &KeyPair, issuer: &Issuer<'_, KeyPair>| {
        intermediate_of(name, key, issuer, NOW + 100 * DAY)
    };
    let first = of(
        "one intermediate",
        one.intermediate.key(),
        &other.intermediate,
    );
    let second = of(
        "other intermediate",
        other.intermediate.key(),
        &one.intermediate,
    );
    let pem = leaf.certificate.clone() + &first + &second + &leaf.key;
    let (loader, _) = loader_at(NOW);
    for _ in 0..2 {
        let loaded = loader.load(pem.as_bytes(), Source::Program).expect("good");
        assert_eq!(loaded.certificate.chain_len(), 3);
    }
}
