//! A validation as stored, and the checks for one that comes from outside.

use serde::{Deserialize, Serialize};

use super::{Challenge, ChallengeType};
use crate::clock::UnixTime;
use crate::schedule::{Failure, FailureClass};
use crate::storage::{Key, keys};

/// The longest value that is read; those that are written have some hundred octets.
const MAX_VALUE: usize = 4096;

/// A validation, and how long it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChallengeRecord {
    pub(super) challenge: Challenge,
    /// The last second in which it is useful: the instance that stored it may be gone.
    pub(super) expires: UnixTime,
    /// The instance that stored it.
    pub(super) instance: Option<String>,
}

/// Its form in JSON.
#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    domain: String,
    token: String,
    key_authorization: String,
    expires: UnixTime,
    instance: Option<String>,
}

impl ChallengeRecord {
    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let challenge = &self.challenge;
        serde_json::to_vec(&Raw {
            kind: challenge.kind.as_str().to_owned(),
            domain: challenge.domain.to_string(),
            token: challenge.token.clone(),
            key_authorization: challenge.key_authorization.clone(),
            expires: self.expires,
            instance: self.instance.clone(),
        })
    }

    /// Parses the value of `key`; `None` if it is not a validation, or one of another key.
    pub(super) fn from_json(key: &Key, json: &[u8]) -> Option<Self> {
        if json.len() > MAX_VALUE {
            return None;
        }
        let raw: Raw = serde_json::from_slice(json).ok()?;
        let challenge = Challenge {
            kind: [ChallengeType::Http01, ChallengeType::TlsAlpn01]
                .into_iter()
                .find(|kind| kind.as_str() == raw.kind)?,
            domain: raw.domain.parse().ok()?,
            token: raw.token,
            key_authorization: raw.key_authorization,
            dns: None,
        };
        (challenge.check().ok()? == *key).then_some(Self {
            challenge,
            expires: raw.expires,
            instance: raw.instance,
        })
    }
}

impl Challenge {
    /// Checks what has come from a CA, and returns its storage key.
    ///
    /// The token becomes part of a path, and the key authorization is sent to whoever asks for it:
    /// both must be as RFC 8555 (section 8.1) defines them, or they are not used at all.
    pub(super) fn check(&self) -> Result<Key, Failure> {
        let thumbprint = self
            .key_authorization
            .strip_prefix(&self.token)
            .and_then(|rest| rest.strip_prefix('.'));
        let is_sound = keys::is_token(&self.token) && thumbprint.is_some_and(keys::is_token);
        match self.key() {
            Ok(key) if is_sound => Ok(key),
            _ => Err(Failure::new(
                FailureClass::Network,
                format!(
                    "the CA's {} challenge for {} has the token {:?}, which is not base64url of \
                     a sane length; is the directory's URL the right one?",
                    self.kind.as_str(),
                    self.domain,
                    self.token.chars().take(64).collect::<String>(),
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn stored(kind: ChallengeType, token: &str) -> ChallengeRecord {
        ChallengeRecord {
            challenge: Challenge {
                kind,
                domain: "a.example".parse().expect("a name"),
                token: token.to_owned(),
                key_authorization: format!("{token}.thumb-print_1"),
                dns: None,
            },
            expires: unix(1_757_894_400),
            instance: Some("1".to_owned()),
        }
    }

    #[test]
    fn what_is_stored_is_read_again() {
        for kind in [ChallengeType::Http01, ChallengeType::TlsAlpn01] {
            let one = stored(kind, "-Token_1");
            let key = one.challenge.check().expect("sound");
            let json = one.to_json().expect("JSON");
            assert_eq!(ChallengeRecord::from_json(&key, &json), Some(one));
            let elsewhere = "challenges/http-01/other.json".parse().expect("a key");
            assert_eq!(ChallengeRecord::from_json(&elsewhere, &json), None);
            assert_eq!(ChallengeRecord::from_json(&key, &json[1..]), None);
            let long = [json, vec![b' '; MAX_VALUE]].concat();
            assert_eq!(ChallengeRecord::from_json(&key, &long), None);
        }
    }

    #[test]
    fn what_no_ca_may_send_is_refused() {
        for token in [
            "",
            "../../accounts/x",
            "a/b",
            "a.b",
            "a\r\nb",
            &"a".repeat(200),
        ] {
            for kind in [ChallengeType::Http01, ChallengeType::TlsAlpn01] {
                let failure = stored(kind, token).challenge.check().expect_err(token);
                assert_eq!(failure.class, FailureClass::Network);
            }
        }
        for answer in [
            "",
            "other.thumb",
            "Token",
            "Token.",
            "Token.a b",
            "Token.a.b",
        ] {
            let mut one = stored(ChallengeType::Http01, "Token").challenge;
            one.key_authorization = answer.to_owned();
            assert!(one.check().is_err(), "{answer}");
        }
    }
}
