//! Tokens of every kind, right and wrong.

use std::sync::LazyLock;

use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use serde_json::json;

use super::*;
use crate::base64url::encode;
use crate::jwt::key::KeysError;
use openssl::bn::BigNum;

const NOW: i64 = 1_800_000_000;

/// Keys of every kind; their ids are their names in lower case.
struct Keys {
    rsa: PKey<Private>,
    p256: EcKey<Private>,
    p384: EcKey<Private>,
    p521: EcKey<Private>,
    ed25519: PKey<Private>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let ec = |curve| {
        let group = EcGroup::from_curve_name(curve).expect("a curve");
        EcKey::generate(&group).expect("a key")
    };
    Keys {
        rsa: PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key"),
        p256: ec(Nid::X9_62_PRIME256V1),
        p384: ec(Nid::SECP384R1),
        p521: ec(Nid::SECP521R1),
        ed25519: PKey::generate_ed25519().expect("a key"),
    }
});

fn ec_jwk(key: &EcKey<Private>, curve: &str, length: i32) -> Value {
    let (mut x, mut y) = (BigNum::new().expect("x"), BigNum::new().expect("y"));
    let mut ctx = openssl::bn::BigNumContext::new().expect("a context");
    key.public_key()
        .affine_coordinates(key.group(), &mut x, &mut y, &mut ctx)
        .expect("a point");
    let text = |number: BigNum| encode(&number.to_vec_padded(length).expect("octets"));
    json!({ "kty": "EC", "crv": curve, "kid": curve.to_lowercase(), "x": text(x), "y": text(y) })
}

fn rsa_jwk() -> Value {
    let rsa = KEYS.rsa.rsa().expect("a key");
    let (n, e) = (encode(&rsa.n().to_vec()), encode(&rsa.e().to_vec()));
    json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "n": n, "e": e })
}

fn ed_jwk() -> Value {
    let x = encode(&KEYS.ed25519.raw_public_key().expect("a key"));
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": x, "alg": "EdDSA" })
}

fn all_jwks() -> Vec<Value> {
    vec![
        rsa_jwk(),
        ec_jwk(&KEYS.p256, "P-256", 32),
        ec_jwk(&KEYS.p384, "P-384", 48),
        ec_jwk(&KEYS.p521, "P-521", 66),
        ed_jwk(),
    ]
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("keys")
}

fn rules() -> Rules {
    Rules {
        algorithms: Algorithm::ALL.into(),
        issuers: [].into(),
        audience: Audience::Any,
        claims: [].into(),
        clock_skew: 60,
        id: RulesId::default(),
    }
}

/// The signature of an algorithm's key.
fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    use Algorithm::{EdDsa, Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let digest = match algorithm {
        Rs256 | Ps256 | Es256 | EdDsa => MessageDigest::sha256(),
        Rs384 | Ps384 | Es384 => MessageDigest::sha384(),
        Rs512 | Ps512 | Es512 => MessageDigest::sha512(),
    };
    let ec = |key: &EcKey<Private>, length| {
        let digest = hash(digest, message).expect("a digest");
        let signature = EcdsaSig::sign(&digest, key).expect("a signature");
        let padded = |number: &openssl::bn::BigNumRef| number.to_vec_padded(length).expect("fits");
        [padded(signature.r()), padded(signature.s())].concat()
    };
    match algorithm {
        Es256 => ec(&KEYS.p256, 32),
        Es384 => ec(&KEYS.p384, 48),
        Es512 => ec(&KEYS.p521, 66),
        EdDsa => {
            let mut signer = Signer::new_without_digest(&KEYS.ed25519).expect("a signer");
            signer.sign_oneshot_to_vec(message).expect("a signature")
        }
        _ => {
            let mut signer = Signer::new(digest, &KEYS.rsa).expect("a signer");
            if matches!(algorithm, Ps256 | Ps384 | Ps512) {
                signer.set_rsa_padding(Padding::PKCS1_PSS).expect("PSS");
                signer
                    .set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
                    .expect("a length");
            }
            signer.sign_oneshot_to_vec(message).expect("a signature")
        }
    }
}

fn token_of(algorithm: Algorithm, header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(payload.as_bytes())
    );
    let signature = encode(&sign(algorithm, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A token by the key of P-256 with this payload.
fn token(payload: &str) -> String {
    token_of(
        Algorithm::Es256,
        r#"{"alg":"ES256","kid":"p-256"}"#,
        payload,
    )
}

const GOOD: &str = r#"{"sub":"ann","exp":1800000100}"#;

fn verify(text: &str, rules: &Rules) -> Result<Token, Fault> {
    let now = UnixTime::from_secs(NOW);
    Token::verify(text.as_bytes(), &set(&all_jwks()), rules, now)
}

fn fault(text: &str) -> Option<Fault> {
    verify(text, &rules()).err()
}

#[test]
fn tokens_of_every_algorithm_are_verified() {
    for algorithm in Algorithm::ALL {
        let header = format!(r#"{{"typ":"JWT","alg":"{}"}}"#, algorithm.name());
        let text = token_of(algorithm, &header, GOOD);
        let verified = verify(&text, &rules()).expect("a good token");
        assert_eq!(verified.subject(), Some("ann"));
        let rules = Rules {
            algorithms: Algorithm::ALL
                .into_iter()
                .filter(|other| *other != algorithm)
                .collect(),
            ..rules()
        };
        assert_eq!(verify(&text, &rules), Err(Fault::Algorithm));
    }
    let text = token_of(Algorithm::EdDsa, r#"{"alg":"Ed25519"}"#, GOOD);
    assert_eq!(fault(&text), None);
}

#[test]
fn what_a_token_says_of_its_algorithm_and_key_is_not_believed() {
    let mut forged = Vec::new();
    let unsigned =
        |header: &str| format!("{}.{}", encode(header.as_bytes()), encode(GOOD.as_bytes()));
    for name in ["none", "None", "NONE", "nOnE"] {
        let signed = unsigned(&format!(r#"{{"alg":"{name}"}}"#));
        forged.push((format!("{signed}."), Fault::Malformed));
        forged.push((format!("{signed}.AA"), Fault::Algorithm));
    }
    // The public key as the secret of an HMAC, in the forms in which it is published.
    let pem = KEYS.rsa.public_key_to_pem().expect("PEM");
    let jwk = rsa_jwk().to_string();
    for secret in [pem.as_slice(), jwk.as_bytes(), &sign(Algorithm::Rs256, b"")] {
        let signed = unsigned(r#"{"alg":"HS256","kid":"rsa"}"#);
        let key = PKey::hmac(secret).expect("a key");
        let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
        let mac = signer
            .sign_oneshot_to_vec(signed.as_bytes())
            .expect("a MAC");
        forged.push((format!("{signed}.{}", encode(&mac)), Fault::Algorithm));
        let signed = unsigned(r#"{"alg":"RS256","kid":"rsa"}"#);
        forged.push((format!("{signed}.{}", encode(&mac)), Fault::Signature));
    }
    // A key of its own, which is ignored.
    let other = EcKey::generate(KEYS.p256.group()).expect("a key");
    let own = ec_jwk(&other, "P-256", 32);
    for member in [
        format!(r#""jwk":{own}"#),
        r#""jku":"https://evil.test/keys""#.to_owned(),
        r#""x5u":"https://evil.test/chain","x5c":["AA=="]"#.to_owned(),
    ] {
        let signed = unsigned(&format!(r#"{{"alg":"ES256",{member}}}"#));
        let digest = hash(MessageDigest::sha256(), signed.as_bytes()).expect("a digest");
        let signature = EcdsaSig::sign(&digest, &other).expect("a signature");
        let part = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).expect("fits");
        let signature = [part(signature.r()), part(signature.s())].concat();
        let text = format!("{signed}.{}", encode(&signature));
        forged.push((text, Fault::Signature));
    }
    // A key that is for something else.
    let of = |name: &str, id: &str| format!(r#"{{"alg":"{name}","kid":"{id}"}}"#);
    for (name, id, fault) in [
        ("ES256", "rsa", Fault::UnknownKey),
        ("ES256", "p-384", Fault::UnknownKey),
        ("ES256", "nobody", Fault::UnknownKey),
        ("ES384", "p-256", Fault::UnknownKey),
        ("EdDSA", "p-256", Fault::UnknownKey),
        ("RS256", "rsa", Fault::Signature),
        ("PS256", "rsa", Fault::Signature),
        ("ES256", "p-256\\u0000", Fault::UnknownKey),
        ("ES512", "p-521", Fault::Signature),
    ] {
        forged.push((token_of(Algorithm::Es256, &of(name, id), GOOD), fault));
    }
    for (text, expected) in forged {
        assert_eq!(fault(&text), Some(expected), "{text}");
    }
}

#[test]
fn a_key_is_used_for_its_own_algorithm_alone() {
    let mut key = rsa_jwk();
    key["alg"] = json!("PS256");
    let keys = set(&[key]);
    let token = |algorithm: Algorithm| {
        let header = format!(r#"{{"alg":"{}"}}"#, algorithm.name());
        Token::verify(
            token_of(algorithm, &header, GOOD).as_bytes(),
            &keys,
            &rules(),
            UnixTime::from_secs(NOW),
        )
    };
    assert!(token(Algorithm::Ps256).is_ok());
    assert_eq!(token(Algorithm::Rs256), Err(Fault::UnknownKey));
    assert_eq!(token(Algorithm::Ps384), Err(Fault::UnknownKey));
}

#[test]
fn what_was_changed_after_signing_is_refused() {
    let good = token(GOOD);
    assert_eq!(fault(&good), None);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts");
    };
    let root = encode(br#"{"sub":"root","exp":1800000100}"#);
    let zero = encode(&[0; 64]);
    // The other form of the same signature, with a zero in front of each number.
    let octets = decode_exactly(signature).expect("base64url");
    let longer = [&[0], &octets[..32], &[0], &octets[32..]].concat();
    let mut last = signature.to_owned();
    // The same octets in another text.
    let other = match last.pop() {
        Some('A') => 'B',
        Some('Q') => 'R',
        Some('g') => 'h',
        _ => 'x',
    };
    last.push(other);
    for (text, expected) in [
        (format!("{header}.{root}.{signature}"), Fault::Signature),
        (format!("{header}.{payload}.{zero}"), Fault::Signature),
        (
            format!("{header}.{payload}.{}", encode(&longer)),
            Fault::Signature,
        ),
        (
            format!("{header}.{payload}.{}", encode(&octets[..63])),
            Fault::Signature,
        ),
        (format!("{header}.{payload}.{last}"), Fault::Malformed),
        (format!("{header}.{payload}.{signature}="), Fault::Malformed),
        (format!("{header}.{payload}. {signature}"), Fault::Malformed),
        (format!("{header}.{payload}"), Fault::Malformed),
        (
            format!("{header}.{payload}.{signature}.{signature}"),
            Fault::Signature,
        ),
        (
            format!("{header}.{payload}.{signature}.a.b"),
            Fault::Malformed,
        ),
        (format!("{payload}.{payload}.{signature}"), Fault::Malformed),
        (format!(".{payload}.{signature}"), Fault::Malformed),
        ("..".to_owned(), Fault::Malformed),
        ("a".to_owned(), Fault::Malformed),
        ("a.b.c".repeat(4096), Fault::TooLong),
    ] {
        assert_eq!(fault(&text), Some(expected), "{text}");
    }
    let mut binary = good.into_bytes();
    binary[3] = 0xff;
    let refused = Token::verify(
        &binary,
        &set(&all_jwks()),
        &rules(),
        UnixTime::from_secs(NOW),
    );
    assert_eq!(refused, Err(Fault::Malformed));
}

#[test]
fn headers_and_payloads_say_each_thing_once() {
    for (header, expected) in [
        (r#"{"alg":"ES256","crit":["exp"],"exp":1}"#, Fault::Critical),
        (r#"{"alg":"ES256","crit":[]}"#, Fault::Critical),
        (
            r#"{"alg":"ES256","b64":false,"crit":["b64"]}"#,
            Fault::Critical,
        ),
        (r#"{"alg":"none","alg":"ES256"}"#, Fault::Malformed),
        (
            r#"{"alg":"ES256","kid":"rsa","kid":"p-256"}"#,
            Fault::Malformed,
        ),
        (r#"{"alg":"ES256","kid":1}"#, Fault::Malformed),
        (r#"{"alg":["ES256"]}"#, Fault::Malformed),
        (r#"{"kid":"p-256"}"#, Fault::Malformed),
        (r#"["ES256"]"#, Fault::Malformed),
        ("", Fault::Malformed),
    ] {
        let text = token_of(Algorithm::Es256, header, GOOD);
        assert_eq!(fault(&text), Some(expected), "{header}");
    }
    for payload in [
        r#"{"exp":1,"exp":1800000100}"#,
        r#"{"exp":1800000100,"sub":"ann","sub":"root"}"#,
        r#"{"exp":1800000100,"sub":["root"]}"#,
        r#"{"exp":"1800000100"}"#,
        r#"{"exp":1800000100,"nbf":"0"}"#,
        r#"{"exp":1800000100,"iss":1}"#,
        r#"{"exp":1800000100,"aud":["a",1]}"#,
        r#"{"exp":1e999}"#,
        r#"[1800000100]"#,
        "1800000100",
        "",
    ] {
        assert_eq!(fault(&token(payload)), Some(Fault::Malformed), "{payload}");
    }
}

#[test]
fn tokens_are_valid_within_their_times() {
    for (payload, expected) in [
        ("{}", Some(Fault::NoExpiry)),
        (r#"{"exp":0}"#, Some(Fault::Expired)),
        (r#"{"exp":-1}"#, Some(Fault::Expired)),
        (r#"{"exp":-1.5}"#, Some(Fault::Expired)),
        (r#"{"exp":1799999940}"#, Some(Fault::Expired)),
        (r#"{"exp":1799999941}"#, None),
        (r#"{"exp":1799999941.5}"#, None),
        (r#"{"exp":1e300}"#, None),
        (r#"{"exp":18446744073709551615}"#, None),
        (r#"{"exp":1800000100,"nbf":1800000060}"#, None),
        (
            r#"{"exp":1800000100,"nbf":1800000061}"#,
            Some(Fault::NotYetValid),
        ),
        (
            r#"{"exp":1800000100,"nbf":1e300}"#,
            Some(Fault::NotYetValid),
        ),
        (r#"{"exp":1800000100,"iat":1900000000}"#, None),
    ] {
        assert_eq!(fault(&token(payload)), expected, "{payload}");
    }
}

#[test]
fn a_token_that_has_expired_is_not_asked_for_its_claims() {
    let rules = Rules {
        claims: [(Box::from("scope"), [Box::from("read")].into())].into(),
        ..rules()
    };
    for (payload, expected) in [
        (r#"{"exp":1000}"#, Fault::Expired),
        (r#"{"exp":1800090000,"nbf":1800080000}"#, Fault::NotYetValid),
        (GOOD, Fault::Claims),
    ] {
        assert_eq!(verify(&token(payload), &rules), Err(expected), "{payload}");
    }
}

#[test]
fn tokens_are_of_an_issuer_and_for_an_audience() {
    let boxed = |texts: &[&str]| texts.iter().map(|text| Box::from(*text)).collect();
    let check = |issuers: &[&str], audience: Audience, claims: &str| {
        let rules = Rules {
            issuers: boxed(issuers),
            audience,
            ..rules()
        };
        verify(&token(&format!(r#"{{"exp":1800000100{claims}}}"#)), &rules).err()
    };
    for (issuers, claims, expected) in [
        (&["https://a.test"][..], r#","iss":"https://a.test""#, None),
        (&["b", "https://a.test"], r#","iss":"https://a.test""#, None),
        (
            &["https://a.test"],
            r#","iss":"https://a.test/""#,
            Some(Fault::Issuer),
        ),
        (&["https://a.test"], "", Some(Fault::Issuer)),
        (&[], r#","iss":"anyone""#, None),
    ] {
        assert_eq!(check(issuers, Audience::Any, claims), expected, "{claims}");
    }
    for (own, claims, expected) in [
        (&["api"][..], r#","aud":"api""#, None),
        (&["api"], r#","aud":["web","api"]"#, None),
        (&["web", "api"], r#","aud":"api""#, None),
        (&["api"], r#","aud":"ap""#, Some(Fault::Audience)),
        (&["api"], r#","aud":[]"#, Some(Fault::Audience)),
        (&["api"], "", Some(Fault::Audience)),
        (&[], "", None),
        (&[], r#","aud":"api""#, Some(Fault::Audience)),
    ] {
        let audience = Audience::Of(boxed(own));
        assert_eq!(check(&[], audience, claims), expected, "{own:?} {claims}");
    }
    assert_eq!(check(&[], Audience::Any, r#","aud":"other""#), None);
}

#[test]
fn tokens_say_what_is_demanded() {
    let check = |name: &str, values: &[&str], claims: &str| {
        let values = values.iter().map(|text| Box::from(*text)).collect();
        let rules = Rules {
            claims: [(Box::from(name), values)].into(),
            ..rules()
        };
        let text = token(&format!(r#"{{"exp":1800000100{claims}}}"#));
        match verify(&text, &rules) {
            Ok(_) => true,
            Err(Fault::Claims) => false,
            Err(other) => panic!("{other:?}"),
        }
    };
    for (name, values, claims, is_accepted) in [
        ("role", &["admin"][..], r#","role":"admin""#, true),
        ("role", &["admin", "ops"], r#","role":"ops""#, true),
        ("role", &["admin"], r#","role":["user","admin"]"#, true),
        ("role", &["admin"], r#","role":"user admin""#, false),
        ("role", &["admin"], r#","role":{"admin":true}"#, false),
        ("role", &["admin"], "", false),
        ("level", &["3"], r#","level":3"#, true),
        ("level", &["3"], r#","level":4"#, false),
        ("staff", &["true"], r#","staff":true"#, true),
        ("staff", &["true"], r#","staff":null"#, false),
        ("scope", &["read"], r#","scope":"write read""#, true),
        ("scope", &["read"], r#","scope":"readers""#, false),
        ("scp", &["read"], r#","scp":["read"]"#, true),
    ] {
        assert_eq!(check(name, values, claims), is_accepted, "{name} {claims}");
    }
}

#[test]
fn claims_are_texts_numbers_and_truth_values() {
    let text = token(
        r#"{"exp":1800000100,"sub":"","a":"b","n":42,"f":1.5,"t":true,"l":["x"],"o":{"p":"q"},"z":null}"#,
    );
    let verified = verify(&text, &rules()).expect("a good token");
    assert_eq!(verified.subject(), None);
    for (name, value) in [
        ("a", "b"),
        ("n", "42"),
        ("f", "1.5"),
        ("t", "true"),
        ("l", ""),
        ("o", ""),
        ("z", ""),
        ("none", ""),
        ("exp", "1800000100"),
    ] {
        assert_eq!(verified.claim(name), value, "{name}");
    }
}

#[test]
fn a_token_is_compared_with_few_keys() {
    let mut others = Vec::new();
    for _ in 0..9 {
        let key = EcKey::generate(KEYS.p256.group()).expect("a key");
        let mut key = ec_jwk(&key, "P-256", 32);
        key.as_object_mut().expect("an object").remove("kid");
        others.push(key);
    }
    others.push(ec_jwk(&KEYS.p256, "P-256", 32));
    let keys = set(&others);
    let anonymous = token_of(Algorithm::Es256, r#"{"alg":"ES256"}"#, GOOD);
    let refused = Token::verify(
        anonymous.as_bytes(),
        &keys,
        &rules(),
        UnixTime::from_secs(NOW),
    );
    assert_eq!(refused, Err(Fault::Signature));
    // One of the id that the token names comes first.
    assert!(
        Token::verify(
            token(GOOD).as_bytes(),
            &keys,
            &rules(),
            UnixTime::from_secs(NOW)
        )
        .is_ok()
    );
    others.rotate_right(1);
    let keys = set(&others);
    assert!(
        Token::verify(
            anonymous.as_bytes(),
            &keys,
            &rules(),
            UnixTime::from_secs(NOW)
        )
        .is_ok()
    );
}

#[test]
fn keys_of_other_kinds_are_left_out() {
    let with = |mut key: Value, name: &str, value: Value| {
        key[name] = value;
        key
    };
    let p256 = || ec_jwk(&KEYS.p256, "P-256", 32);
    let small = Rsa::generate(1024).expect("a key");
    let small = json!({
        "kty": "RSA", "n": encode(&small.n().to_vec()), "e": encode(&small.e().to_vec()),
    });
    let keys = [
        with(p256(), "use", json!("enc")),
        with(p256(), "key_ops", json!(["sign"])),
        with(p256(), "alg", json!("ES384")),
        with(p256(), "alg", json!("HS256")),
        with(p256(), "x", json!(encode(&[1; 32]))),
        with(p256(), "x", json!(encode(&[1; 31]))),
        with(p256(), "kid", json!("k".repeat(2000))),
        with(p256(), "kid", json!(7)),
        with(p256(), "crv", json!("secp256k1")),
        with(rsa_jwk(), "n", json!("AQAB")),
        with(ed_jwk(), "crv", json!("Ed448")),
        with(ed_jwk(), "x", json!("AA")),
        json!({ "kty": "oct", "k": encode(&[1; 32]) }),
        json!({ "kty": "new" }),
        json!({}),
        small,
        p256(),
    ];
    let keys = set(&keys);
    assert_eq!((keys.count(), keys.skipped()), (1, 16));
    let parse = |text: &str| KeySet::parse(text.as_bytes()).err();
    assert_eq!(parse(r#"{"keys":[]}"#), Some(KeysError::NoKey));
    for text in [
        "",
        "hello",
        "{",
        r#"{"key":[]}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[],"keys":[]}"#,
    ] {
        assert_eq!(parse(text), Some(KeysError::Unknown), "{text}");
    }
    let private = with(p256(), "d", json!("AA"));
    assert_eq!(
        parse(&json!({ "keys": [private] }).to_string()),
        Some(KeysError::Private)
    );
    let many = vec![p256(); 257];
    assert_eq!(
        parse(&json!({ "keys": many }).to_string()),
        Some(KeysError::TooMany)
    );
}

#[test]
fn keys_in_pem_are_for_tokens_with_any_id() {
    let mut pem = KEYS.rsa.public_key_to_pem().expect("PEM");
    let rsa = KEYS.rsa.rsa().expect("a key");
    pem.extend(rsa.public_key_to_pem_pkcs1().expect("PEM"));
    pem.extend(KEYS.p256.public_key_to_pem().expect("PEM"));
    pem.extend(KEYS.ed25519.public_key_to_pem().expect("PEM"));
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
    pem.extend(made.cert.pem().into_bytes());
    let keys = KeySet::parse(&pem).expect("keys");
    assert_eq!(keys.count(), 5);
    for (algorithm, is_accepted) in [
        (Algorithm::Rs256, true),
        (Algorithm::Es256, true),
        (Algorithm::EdDsa, true),
        (Algorithm::Es384, false),
    ] {
        let header = format!(r#"{{"alg":"{}","kid":"x"}}"#, algorithm.name());
        let text = token_of(algorithm, &header, GOOD);
        let verified = Token::verify(text.as_bytes(), &keys, &rules(), UnixTime::from_secs(NOW));
        assert_eq!(verified.is_ok(), is_accepted, "{header}");
    }
    assert_eq!((keys.skipped(), keys.expired(), keys.issuing()), (0, 0, 0));
    let private = KEYS.rsa.private_key_to_pem_pkcs8().expect("PEM");
    assert_eq!(KeySet::parse(&private).err(), Some(KeysError::Private));
    let broken = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    assert_eq!(KeySet::parse(broken).err(), Some(KeysError::Unknown));
}

#[test]
fn doubtful_keys_in_pem_are_counted() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let small = Rsa::generate(1024).expect("a key");
    let small = small.public_key_to_pem().expect("PEM");
    assert_eq!(KeySet::parse(&small).err(), Some(KeysError::NoKey));
    let params = || CertificateParams::new(["a.test".to_owned()]).expect("parameters");
    let key = || KeyPair::generate().expect("a key");
    let (mut ca, ca_key) = (params(), key());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "Test CA");
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = Issuer::new(ca, ca_key);
    let mut leaf = params();
    leaf.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let leaf = leaf.signed_by(&key(), &issuer).expect("a certificate");
    let mut pem = small;
    pem.extend(format!("{}{ca_pem}", leaf.pem()).into_bytes());
    let keys = KeySet::parse(&pem).expect("keys");
    assert_eq!((keys.count(), keys.skipped()), (2, 1));
    assert_eq!((keys.expired(), keys.issuing()), (1, 1));
    let keys = KeySet::parse(ca_pem.as_bytes()).expect("keys");
    assert_eq!((keys.expired(), keys.issuing()), (0, 0));
}

#[test]
fn an_issuer_may_publish_no_keys() {
    for published in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        let keys = KeySet::parse_published(published.as_bytes()).expect("an answer");
        assert_eq!(keys.count(), 0);
        let refused = Token::verify(
            token(GOOD).as_bytes(),
            &keys,
            &rules(),
            UnixTime::from_secs(NOW),
        );
        assert_eq!(refused, Err(Fault::UnknownKey));
    }
}
