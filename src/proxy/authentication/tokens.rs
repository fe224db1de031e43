//! Tokens in requests (RFC 6750).
//!
//! Verifying a signature takes less time than to hand it over to another thread. A verified token is
//! cached as long as its keys are known, so that a client pays for it once.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use moka::sync::Cache;
use openssl::sha::Sha256;

use crate::clock::{Clock as _, SystemClock};
use crate::config::model::{Jwt, TokenKeys, TokenPlace};
use crate::jwt::{Fault, KeySet, Token};
use crate::proxy::request::Request;
use crate::throttle::Throttle;

/// How long a token is remembered, and how many octets of tokens are.
const REMEMBERED: Duration = Duration::from_secs(300);
const MOST_REMEMBERED: u64 = 16 * 1024 * 1024;

/// What a remembered token takes beyond its own octets.
const OVERHEAD: usize = 256;

/// Verifies tokens.
pub(super) struct Tokens {
    /// By digests of the rules, the keys and the token.
    remembered: Cache<[u8; 32], (Arc<Token>, u32)>,
    refused: Throttle,
    /// Part of each digest, so that they are of no use elsewhere.
    key: [u8; 32],
}

impl Tokens {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self {
            remembered: Cache::builder()
                .weigher(|_, (_, octets): &(Arc<Token>, u32)| *octets)
                .max_capacity(MOST_REMEMBERED)
                .time_to_live(REMEMBERED)
                .build(),
            refused: Throttle::default(),
            key,
        }
    }

    /// Verifies the token of a request.
    ///
    /// # Errors
    /// If there is none that is accepted.
    pub(super) async fn verify(
        &self,
        jwt: &Arc<Jwt>,
        request: &Request<'_>,
    ) -> Result<Arc<Token>, Fault> {
        let token = find_token(&jwt.place, request)?;
        let keys = jwt.keys.known();
        let known = keys.as_ref().ok().map(|keys| keys.id());
        let verified = keys.and_then(|keys| self.verify_with(&keys, jwt, token));
        match (verified, &jwt.keys) {
            // A wrong signature may be by a new key too: tokens and keys need no id, and may keep it.
            (
                Err(fault @ (Fault::NoKeys | Fault::UnknownKey | Fault::Signature)),
                TokenKeys::Server(server),
            ) => {
                // In a box, since few requests wait.
                match Box::pin(server.newer_keys(known)).await {
                    Some(keys) => self.verify_with(&keys, jwt, token),
                    None => Err(fault),
                }
            }
            (verified, _) => verified,
        }
    }

    /// Says why a token is not accepted, to those who look for it.
    pub(super) fn log_refused(&self, fault: Fault, request: &Request<'_>) {
        if let Some(reason) = fault.description()
            && tracing::enabled!(tracing::Level::DEBUG)
            && let Some(held_back) = self.refused.admit()
        {
            let client = request.addresses().map(|addresses| addresses.source.ip());
            tracing::debug!(
                client = client.map(tracing::field::display),
                reason,
                held_back,
                "refused a token"
            );
        }
    }

    fn verify_with(
        &self,
        keys: &KeySet,
        jwt: &Arc<Jwt>,
        token: &[u8],
    ) -> Result<Arc<Token>, Fault> {
        let now = SystemClock.now();
        let digest = self.digest(keys, jwt, token);
        if let Some((known, _)) = self.remembered.get(&digest) {
            known.check_time(now, &jwt.rules)?;
            return Ok(known);
        }
        let verified = Arc::new(Token::verify(token, keys, &jwt.rules, now)?);
        let octets = u32::try_from(token.len() + OVERHEAD).unwrap_or(u32::MAX);
        let remembered = (Arc::clone(&verified), octets);
        self.remembered.insert(digest, remembered);
        Ok(verified)
    }

    fn digest(&self, keys: &KeySet, jwt: &Jwt, token: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(&self.key);
        digest.update(&jwt.rules.id.to_le_bytes());
        digest.update(&keys.id().to_le_bytes());
        digest.update(token);
        digest.finish()
    }
}

/// The token of a request. Two of them are as bad as none: a server may read the other one.
fn find_token<'a>(place: &TokenPlace, request: &Request<'a>) -> Result<&'a [u8], Fault> {
    let of_field = |name: &HeaderName| {
        let is = |other: &[u8]| other.eq_ignore_ascii_case(name.as_str().as_bytes());
        let mut values = request.fields.iter().filter(|(other, _)| is(other));
        let first = values.next().map(|(_, value)| value);
        (first, values.next().is_some())
    };
    let (value, has_more) = match place {
        TokenPlace::Authorization => of_field(&AUTHORIZATION),
        TokenPlace::Field(name) => of_field(name),
        TokenPlace::Cookie(name) => {
            let mut cookies = request.cookies(name);
            (cookies.next(), cookies.next().is_some())
        }
    };
    if has_more {
        return Err(Fault::Several);
    }
    let value = value.ok_or(Fault::Missing)?;
    let bearer = value.split_at_checked("Bearer ".len());
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let token = match (place, bearer) {
        (TokenPlace::Authorization | TokenPlace::Field(_), Some((_, token))) => token.trim_ascii(),
        // Credentials of another scheme.
        (TokenPlace::Authorization, None) => return Err(Fault::Missing),
        (TokenPlace::Field(_) | TokenPlace::Cookie(_), _) => value.trim_ascii(),
    };
    match token {
        b"" => Err(Fault::Missing),
        token => Ok(token),
    }
}
