//! Reads tokens and verifies them (RFC 7519, section 7.2).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Number, Value};

use super::algorithm::Algorithm;
use super::fault::Fault;
use super::keys::KeySet;
use super::object::Object;
use crate::base64url::decode_exactly;
use crate::clock::UnixTime;

/// The longest token, in octets. Verifying takes longer the more there are.
const LONGEST: usize = 8 * 1024;

/// Which tokens are accepted.
#[derive(Debug)]
pub struct Rules {
    /// How they may be signed.
    pub algorithms: Box<[Algorithm]>,
    /// Who may have issued them; anyone if there are none.
    pub issuers: Box<[Box<str>]>,
    pub audience: Audience,
    pub claims: Box<[RequiredClaim]>,
    /// How far clocks may be apart, in seconds.
    pub clock_skew: i64,
    /// No two rules have the same.
    pub id: RulesId,
}

impl Rules {
    /// Whether these accept the same tokens as others.
    pub fn are_alike(&self, other: &Self) -> bool {
        self.algorithms == other.algorithms
            && self.issuers == other.issuers
            && self.audience == other.audience
            && self.claims == other.claims
            && self.clock_skew == other.clock_skew
    }
}

/// The name of a claim that tokens have to have, and the values of which it has to be one.
pub type RequiredClaim = (Box<str>, Box<[Box<str>]>);

/// What tells rules from others.
#[derive(Debug)]
pub struct RulesId(u64);

impl Default for RulesId {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl RulesId {
    pub fn to_le_bytes(&self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

/// For whom tokens have to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Audience {
    /// For one of these. If there are none, a token must not say for whom it is.
    Of(Box<[Box<str>]>),
    Any,
}

/// What a token says whose signature is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    /// Texts, numbers and truth values among its claims, as texts.
    claims: Box<[(Box<str>, Box<str>)]>,
    expires: i64,
    not_before: i64,
}

impl Token {
    /// Verifies a token at the time `now`.
    ///
    /// # Errors
    /// If it is not to be accepted.
    pub fn verify(text: &[u8], keys: &KeySet, rules: &Rules, now: UnixTime) -> Result<Self, Fault> {
        if text.len() > LONGEST {
            return Err(Fault::TooLong);
        }
        let text = str::from_utf8(text).map_err(|_| Fault::Malformed)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Fault::Malformed)?;
        let decode = |part: &str| decode_exactly(part).ok_or(Fault::Malformed);
        let signature = decode(signature)?;
        let header = Object::parse(&decode(header)?).ok_or(Fault::Malformed)?;
        let (algorithm, key_id) = read_header(&header, rules)?;
        let mut fault = Fault::UnknownKey;
        let mut candidates = keys.candidates(key_id, algorithm);
        let is_by_one = candidates.any(|key| {
            fault = Fault::Signature;
            algorithm.verify(&key.key, signed.as_bytes(), &signature)
        });
        if !is_by_one {
            return Err(fault);
        }
        // A payload that has a dot of its own is not base64url.
        let payload = Object::parse(&decode(payload)?).ok_or(Fault::Malformed)?;
        Self::of(&payload, rules, now)
    }

    fn of(payload: &Object, rules: &Rules, now: UnixTime) -> Result<Self, Fault> {
        let time = |name| match payload.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(seconds(number))),
            Some(_) => Err(Fault::Malformed),
        };
        let text = |name| match payload.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(&**text)),
            Some(_) => Err(Fault::Malformed),
        };
        let (expires, not_before) = (time("exp")?, time("nbf")?);
        let (issuer, _) = (text("iss")?, text("sub")?);
        let is_by_one = |issuer: &str| rules.issuers.iter().any(|one| **one == *issuer);
        if !rules.issuers.is_empty() && !issuer.is_some_and(is_by_one) {
            return Err(Fault::Issuer);
        }
        rules.audience.check(payload.get("aud"))?;
        let claims = payload
            .iter()
            .filter_map(|(name, value)| Some((name.into(), scalar(value)?)));
        let token = Self {
            claims: claims.collect(),
            expires: expires.ok_or(Fault::NoExpiry)?,
            not_before: not_before.unwrap_or(i64::MIN),
        };
        // Before the claims: a client gets another token once this one has expired, and the other may
        // say more.
        token.check_time(now, rules)?;
        for (name, wanted) in &rules.claims {
            let claim = payload.get(name).ok_or(Fault::Claims)?;
            if !wanted.iter().any(|one| says(name, claim, one)) {
                return Err(Fault::Claims);
            }
        }
        Ok(token)
    }

    /// Checks the times within which it is valid.
    ///
    /// # Errors
    /// If it is not valid at this time.
    pub fn check_time(&self, now: UnixTime, rules: &Rules) -> Result<(), Fault> {
        let now = now.as_secs();
        if now.saturating_sub(rules.clock_skew) >= self.expires {
            return Err(Fault::Expired);
        }
        if now.saturating_add(rules.clock_skew) < self.not_before {
            return Err(Fault::NotYetValid);
        }
        Ok(())
    }

    /// Whose request it is, if it says so.
    pub fn subject(&self) -> Option<&str> {
        Some(self.claim("sub")).filter(|subject| !subject.is_empty())
    }

    /// What it says under a name; empty if that is nothing, or neither a text, a number nor a truth
    /// value.
    pub fn claim(&self, name: &str) -> &str {
        let mut claims = self.claims.iter();
        let found = claims.find(|(other, _)| **other == *name);
        found.map_or("", |(_, value)| value)
    }
}

impl Audience {
    fn check(&self, claim: Option<&Value>) -> Result<(), Fault> {
        let claimed = match claim {
            None => &[],
            Some(Value::Array(all)) => &**all,
            Some(one) => std::slice::from_ref(one),
        };
        if !claimed.iter().all(Value::is_string) {
            return Err(Fault::Malformed);
        }
        let is_for = |own: &str| claimed.iter().any(|one| one.as_str() == Some(own));
        let is_accepted = match self {
            Self::Any => true,
            // Whoever is not among those that a token names must not accept it (RFC 7519,
            // section 4.1.3).
            Self::Of(own) if own.is_empty() => claimed.is_empty(),
            Self::Of(own) => own.iter().any(|own| is_for(own)),
        };
        is_accepted.then_some(()).ok_or(Fault::Audience)
    }
}

/// How a token is signed, and the id of its key if it says so.
fn read_header<'a>(
    header: &'a Object,
    rules: &Rules,
) -> Result<(Algorithm, Option<&'a str>), Fault> {
    if header.get("crit").is_some() {
        return Err(Fault::Critical);
    }
    let algorithm = header.get("alg").and_then(Value::as_str);
    let algorithm = algorithm.ok_or(Fault::Malformed)?;
    let algorithm = Algorithm::named(algorithm).ok_or(Fault::Algorithm)?;
    if !rules.algorithms.contains(&algorithm) {
        return Err(Fault::Algorithm);
    }
    match header.get("kid") {
        None => Ok((algorithm, None)),
        Some(Value::String(id)) => Ok((algorithm, Some(id))),
        Some(_) => Err(Fault::Malformed),
    }
}

/// A `NumericDate` in whole seconds; the latest time for one beyond it.
fn seconds(number: &Number) -> i64 {
    if let Some(whole) = number.as_i64() {
        return whole;
    }
    match number.as_f64() {
        Some(time) if time < 0.0 => 0,
        Some(time) => Duration::try_from_secs_f64(time)
            .ok()
            .and_then(|time| i64::try_from(time.as_secs()).ok())
            .unwrap_or(i64::MAX),
        None => i64::MAX,
    }
}

/// Whether a claim is a value, or has it among its values. Those of a scope are words
/// (RFC 8693, section 4.2).
fn says(name: &str, claim: &Value, wanted: &str) -> bool {
    match claim {
        Value::Array(all) => all.iter().any(|one| is_value(one, wanted)),
        Value::String(words) if matches!(name, "scope" | "scp") => {
            words.split(' ').any(|word| word == wanted)
        }
        one => is_value(one, wanted),
    }
}

fn is_value(claim: &Value, wanted: &str) -> bool {
    scalar(claim).is_some_and(|text| *text == *wanted)
}

/// A text, a number or a truth value as a text.
fn scalar(value: &Value) -> Option<Box<str>> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(truth.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
