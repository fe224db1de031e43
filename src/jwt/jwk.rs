//! JSON Web Keys (RFC 7517), of which only public ones are of use here.

use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::Rsa;
use serde::Deserialize;

use super::algorithm::Algorithm;
use super::key::{Found, Key, KeysError};
use super::object::Object;
use crate::base64url::decode_exactly;

/// The longest id of a key, in octets.
const LONGEST_ID: usize = 1024;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Object>,
}

/// The keys of a set.
pub(super) fn read_keys(text: &[u8], most: usize) -> Result<Found, KeysError> {
    let set: Set = serde_json::from_slice(text).map_err(|_| KeysError::Unknown)?;
    if set.keys.len() > most {
        return Err(KeysError::TooMany);
    }
    // Of all kinds but that of shared secrets.
    if set.keys.iter().any(|key| key.get("d").is_some()) {
        return Err(KeysError::Private);
    }
    let all = set.keys.len();
    let keys: Vec<Key> = set.keys.iter().filter_map(read_key).collect();
    let skipped = all - keys.len();
    Ok(Found {
        keys,
        skipped,
        ..Found::default()
    })
}

/// One key; `None` if it is not for signatures, or of a kind that is not known here.
fn read_key(raw: &Object) -> Option<Key> {
    let text = |name: &str| match raw.get(name) {
        None => Some(None),
        Some(value) => value.as_str().map(Some),
    };
    if text("use")?.is_some_and(|of| of != "sig") {
        return None;
    }
    if let Some(operations) = raw.get("key_ops") {
        let mut operations = operations.as_array()?.iter();
        if !operations.any(|one| one.as_str() == Some("verify")) {
            return None;
        }
    }
    let octets = |name: &str| decode_exactly(raw.get(name)?.as_str()?);
    let number = |name: &str| BigNum::from_slice(&octets(name)?).ok();
    let key = match text("kty")?? {
        "RSA" => PKey::from_rsa(Rsa::from_public_components(number("n")?, number("e")?).ok()?),
        "EC" => {
            let (curve, length) = match text("crv")?? {
                "P-256" => (Nid::X9_62_PRIME256V1, 32),
                "P-384" => (Nid::SECP384R1, 48),
                "P-521" => (Nid::SECP521R1, 66),
                _ => return None,
            };
            let (x, y) = (octets("x")?, octets("y")?);
            if x.len() != length || y.len() != length {
                return None;
            }
            let (x, y) = (BigNum::from_slice(&x).ok()?, BigNum::from_slice(&y).ok()?);
            let group = EcGroup::from_curve_name(curve).ok()?;
            PKey::from_ec_key(EcKey::from_public_key_affine_coordinates(&group, &x, &y).ok()?)
        }
        "OKP" if text("crv")? == Some("Ed25519") => {
            PKey::<Public>::public_key_from_raw_bytes(&octets("x")?, Id::ED25519)
        }
        _ => return None,
    };
    let mut key = Key::of(key.ok()?)?;
    if let Some(name) = text("alg")? {
        let algorithm = Algorithm::named(name).filter(|one| one.fits(key.kind));
        key.algorithm = Some(algorithm?);
    }
    let id = text("kid")?;
    if id.is_some_and(|id| id.len() > LONGEST_ID) {
        return None;
    }
    key.id = id.map(Box::from);
    Some(key)
}
