//! Requests that instant-acme cannot make, signed here (RFC 8555, section 6.2).
//!
//! They go through the [`AcmeClient`] like its own, so a refusal is found in the same place.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};
use instant_acme::Error;
use openssl::bn::BigNumContext;
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign;
use serde_json::{Value, json};

use super::client::{AcmeClient, nonce_of};
use crate::base64url::encode;

/// How many times a request is sent if the CA rejects the nonce.
const TRIES: u32 = 10;

/// The signer of a request.
#[derive(Clone)]
pub(super) enum Signer {
    /// An account, by its URL.
    Account { key: PKey<Private>, kid: String },
    /// A key without an account, such as that of the certificate to be revoked (section 7.6).
    Certificate(PKey<Private>),
}

impl Signer {
    pub(super) fn key(&self) -> &PKey<Private> {
        match self {
            Self::Account { key, .. } | Self::Certificate(key) => key,
        }
    }
}

/// Posts `payload`, or fetches `url` if there is none (section 6.3).
///
/// # Errors
/// Those of instant-acme: if there is no reply, or the CA refuses ([`AcmeClient::refusal`] has the
/// details).
pub(super) async fn post_jws(
    client: &AcmeClient,
    signer: &Signer,
    url: &str,
    payload: Option<&Value>,
) -> Result<Response<Bytes>, Error> {
    let mut nonce = None;
    let mut left = TRIES;
    loop {
        let fresh = match nonce.take() {
            Some(nonce) => nonce,
            None => client.new_nonce().await?,
        };
        let body = jws(signer, url, Some(&fresh), payload)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/jose+json")
            .body(Bytes::from(body.to_string()))?;
        let reply = client.send(request).await?;
        let Some(refusal) = client.refusal() else {
            return Ok(reply);
        };
        left = left.saturating_sub(1);
        if left > 0 && refusal.kind() == "badNonce" {
            nonce = nonce_of(reply.headers());
            continue;
        }
        return Err(refusal.to_error());
    }
}

/// A JWS in the flattened JSON serialization (RFC 7515, section 7.2.2), without `nonce` for one
/// within another (RFC 8555, section 7.3.5).
///
/// # Errors
/// If the key cannot sign, or OpenSSL fails.
pub(super) fn jws(
    signer: &Signer,
    url: &str,
    nonce: Option<&str>,
    payload: Option<&Value>,
) -> Result<Value, Error> {
    let key = signer.key();
    let mut header = json!({ "alg": Algorithm::of(key)?.name(), "url": url });
    if let Some(members) = header.as_object_mut() {
        match signer {
            Signer::Account { kid, .. } => members.insert("kid".to_owned(), json!(kid)),
            Signer::Certificate(key) => members.insert("jwk".to_owned(), jwk(key)?),
        };
        members.extend(nonce.map(|nonce| ("nonce".to_owned(), json!(nonce))));
    }
    let protected = encode(header.to_string().as_bytes());
    let payload = payload.map_or_else(String::new, |payload| {
        encode(payload.to_string().as_bytes())
    });
    let signature = sign(key, format!("{protected}.{payload}").as_bytes())?;
    Ok(json!({
        "protected": protected, "payload": payload, "signature": encode(&signature)
    }))
}

/// The public part of a key (RFC 7517; RFC 8037 for Ed25519).
///
/// # Errors
/// As for [`jws`].
pub(super) fn jwk(key: &PKey<Private>) -> Result<Value, Error> {
    let made = || -> Result<Option<Value>, ErrorStack> {
        Ok(match Algorithm::of_kind(key) {
            Some(Algorithm::Ecdsa { curve, octets, .. }) => {
                let public = key.ec_key()?;
                let mut context = BigNumContext::new()?;
                let (mut x, mut y) = (openssl::bn::BigNum::new()?, openssl::bn::BigNum::new()?);
                let point = public.public_key();
                point.affine_coordinates(public.group(), &mut x, &mut y, &mut context)?;
                Some(json!({
                    "kty": "EC", "crv": curve,
                    "x": encode(&x.to_vec_padded(octets)?),
                    "y": encode(&y.to_vec_padded(octets)?),
                }))
            }
            Some(Algorithm::Rsa) => {
                let public = key.rsa()?;
                let (modulus, exponent) = (public.n().to_vec(), public.e().to_vec());
                Some(json!({ "kty": "RSA", "n": encode(&modulus), "e": encode(&exponent) }))
            }
            Some(Algorithm::Ed25519) => {
                let public = key.raw_public_key()?;
                Some(json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&public) }))
            }
            None => None,
        })
    };
    made().map_err(broken)?.ok_or(Error::KeyRejected)
}

/// How a key signs (RFC 7518, section 3.1; RFC 8037, section 3.1).
enum Algorithm {
    Ecdsa {
        name: &'static str,
        curve: &'static str,
        /// The length of a coordinate, and of each of the two numbers of a signature.
        octets: i32,
        digest: MessageDigest,
    },
    Rsa,
    Ed25519,
}

impl Algorithm {
    fn of(key: &PKey<Private>) -> Result<Self, Error> {
        Self::of_kind(key).ok_or(Error::KeyRejected)
    }

    fn of_kind(key: &PKey<Private>) -> Option<Self> {
        match key.id() {
            Id::RSA => Some(Self::Rsa),
            Id::ED25519 => Some(Self::Ed25519),
            Id::EC => match key.ec_key().ok()?.group().curve_name()? {
                Nid::X9_62_PRIME256V1 => Some(Self::Ecdsa {
                    name: "ES256",
                    curve: "P-256",
                    octets: 32,
                    digest: MessageDigest::sha256(),
                }),
                Nid::SECP384R1 => Some(Self::Ecdsa {
                    name: "ES384",
                    curve: "P-384",
                    octets: 48,
                    digest: MessageDigest::sha384(),
                }),
                _ => None,
            },
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ecdsa { name, .. } => name,
            Self::Rsa => "RS256",
            Self::Ed25519 => "EdDSA",
        }
    }
}

fn sign(key: &PKey<Private>, text: &[u8]) -> Result<Vec<u8>, Error> {
    let algorithm = Algorithm::of(key)?;
    let made = || -> Result<Vec<u8>, ErrorStack> {
        match algorithm {
            Algorithm::Ecdsa { octets, digest, .. } => {
                let der = sign::Signer::new(digest, key)?.sign_oneshot_to_vec(text)?;
                // JWS concatenates the two numbers (RFC 7518, section 3.4).
                let numbers = EcdsaSig::from_der(&der)?;
                let mut signature = numbers.r().to_vec_padded(octets)?;
                signature.extend(numbers.s().to_vec_padded(octets)?);
                Ok(signature)
            }
            Algorithm::Rsa => {
                sign::Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(text)
            }
            Algorithm::Ed25519 => sign::Signer::new_without_digest(key)?.sign_oneshot_to_vec(text),
        }
    };
    made().map_err(broken)
}

fn broken(error: ErrorStack) -> Error {
    Error::Other(Box::new(error))
}

#[cfg(test)]
mod tests {
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::pkey::Public;
    use openssl::rsa::Rsa;

    use super::*;
    use crate::acme::key::generate;
    use crate::base64url::decode;
    use crate::config::model::KeyType;

    const URL: &str = "https://ca.test/revoke";

    /// Verifies a JWS with the key that it contains, as a CA would, and returns its header and
    /// payload.
    fn verified(jws: &Value, key: Option<&PKey<Public>>) -> (Value, Vec<u8>) {
        let part = |name: &str| jws[name].as_str().expect("a text").to_owned();
        let (protected, payload) = (part("protected"), part("payload"));
        let header = decode(&protected).expect("base64url");
        let header: Value = serde_json::from_slice(&header).expect("JSON");
        let signature = decode(&part("signature")).expect("base64url");
        let own = header.get("jwk").map(public);
        let key = key.or(own.as_ref()).expect("a key");
        let text = format!("{protected}.{payload}");
        let (digest, signature) = match header["alg"].as_str().expect("an algorithm") {
            "RS256" => (Some(MessageDigest::sha256()), signature.to_vec()),
            "EdDSA" => (None, signature.to_vec()),
            name => {
                let digest = match name {
                    "ES256" => MessageDigest::sha256(),
                    "ES384" => MessageDigest::sha384(),
                    other => panic!("{other}"),
                };
                let (r, s) = signature.split_at(signature.len() / 2);
                let number = |bytes| BigNum::from_slice(bytes).expect("a number");
                let both = EcdsaSig::from_private_components(number(r), number(s));
                (Some(digest), both.expect("both").to_der().expect("DER"))
            }
        };
        let verifier = match digest {
            Some(digest) => sign::Verifier::new(digest, key),
            None => sign::Verifier::new_without_digest(key),
        };
        let is_good = verifier
            .expect("a verifier")
            .verify_oneshot(&signature, text.as_bytes())
            .expect("verifiable");
        assert!(is_good, "{header}");
        let payload = decode(&payload).map(|bytes| bytes.to_vec());
        (header, payload.unwrap_or_default())
    }

    fn public(jwk: &Value) -> PKey<Public> {
        let member = |name: &str| {
            let text = jwk[name].as_str().expect("a text");
            decode(text).expect("base64url")
        };
        let number = |name: &str| BigNum::from_slice(&member(name)).expect("a number");
        let key = match jwk["kty"].as_str() {
            Some("EC") => {
                let curve = match jwk["crv"].as_str() {
                    Some("P-256") => Nid::X9_62_PRIME256V1,
                    Some("P-384") => Nid::SECP384R1,
                    other => panic!("{other:?}"),
                };
                let group = EcGroup::from_curve_name(curve).expect("a curve");
                let key =
                    EcKey::from_public_key_affine_coordinates(&group, &number("x"), &number("y"));
                PKey::from_ec_key(key.expect("a point"))
            }
            Some("RSA") => {
                let key = Rsa::from_public_components(number("n"), number("e"));
                PKey::from_rsa(key.expect("a key"))
            }
            Some("OKP") => PKey::public_key_from_raw_bytes(&member("x"), Id::ED25519),
            other => panic!("{other:?}"),
        };
        key.expect("a key")
    }

    #[test]
    fn each_kind_of_key_signs_what_its_public_part_verifies() {
        for (kind, algorithm) in [
            (KeyType::P256, "ES256"),
            (KeyType::P384, "ES384"),
            (KeyType::Rsa2048, "RS256"),
            (KeyType::Ed25519, "EdDSA"),
        ] {
            let key = generate(kind).expect("a key");
            let signer = Signer::Certificate(key.clone());
            // The numbers of a signature can be short: once in 256 times.
            for turn in 0..if kind == KeyType::Rsa2048 { 1 } else { 300 } {
                let payload = json!({ "turn": turn });
                let made = jws(&signer, URL, Some("nonce-1"), Some(&payload)).expect("a JWS");
                let (header, told) = verified(&made, None);
                assert_eq!(header["alg"], algorithm);
                assert_eq!(header["url"], URL);
                assert_eq!(header["nonce"], "nonce-1");
                assert!(header.get("kid").is_none());
                assert_eq!(told, payload.to_string().into_bytes());
                assert!(public(&header["jwk"]).public_eq(&key));
            }
        }
    }

    #[test]
    fn an_account_signs_by_its_url_and_brings_no_key() {
        let key = generate(KeyType::P256).expect("a key");
        let pem = key.public_key_to_pem().expect("PEM");
        let kid = "https://ca.test/account/1".to_owned();
        let signer = Signer::Account {
            key,
            kid: kid.clone(),
        };
        let made = jws(&signer, URL, None, None).expect("a JWS");
        let key = PKey::public_key_from_pem(&pem).expect("a key");
        let (header, payload) = verified(&made, Some(&key));
        assert_eq!(header["kid"], kid);
        assert!(header.get("jwk").is_none() && header.get("nonce").is_none());
        assert!(payload.is_empty(), "what is asked for is not posted");
    }

    #[test]
    fn a_key_that_acme_has_no_algorithm_for_is_refused() {
        let group = EcGroup::from_curve_name(Nid::SECP256K1).expect("a curve");
        let key = EcKey::generate(&group).and_then(PKey::from_ec_key);
        let signer = Signer::Certificate(key.expect("a key"));
        let made = jws(&signer, URL, None, None);
        assert!(matches!(made, Err(Error::KeyRejected)), "{made:?}");
    }
}
