//! ZeroSSL's own API, as far as needed: it issues keys to bind an ACME account to one there.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use instant_acme::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::client::AcmeClient;
use super::error::{self, Step};
use super::json::{json, member, text, word};
use crate::clock::UnixTime;
use crate::config::model::{ExternalAccount, ZeroSsl, ZeroSslLogin};
use crate::schedule::{Failure, FailureClass, Scope};
use crate::secret::Secret;
use crate::storage::damaged;

/// A binding as stored.
#[derive(Serialize, Deserialize)]
struct Kept {
    key_id: String,
    hmac_key: String,
    /// When it was received; zero for bindings stored by earlier versions, which are old.
    #[serde(default)]
    given: UnixTime,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.hmac_key.zeroize();
    }
}

/// A reply of the API, which has status 200 for failures too.
struct Answer {
    success: bool,
    eab_kid: String,
    eab_hmac_key: String,
    error: Option<Fault>,
}

#[derive(Default)]
struct Fault {
    code: i64,
    kind: String,
}

impl Answer {
    /// Reads what can be read; `None` if it is not JSON.
    fn read(body: &[u8]) -> Option<Self> {
        let value = json(body)?;
        let members = value.as_object()?;
        let error = members.get("error").and_then(|error| match error {
            Value::Object(fault) => Some(Fault {
                code: member(fault, "code")
                    .and_then(|code| code.parse().ok())
                    .unwrap_or_default(),
                kind: member(fault, "type").unwrap_or_default(),
            }),
            other => Some(Fault {
                code: 0,
                kind: text(other)?,
            }),
        });
        Some(Self {
            // `true` and 1 mean the same.
            success: matches!(&*word(members, "success"), "true" | "1"),
            eab_kid: member(members, "eab_kid").unwrap_or_default(),
            eab_hmac_key: member(members, "eab_hmac_key").unwrap_or_default(),
            error,
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.eab_hmac_key.zeroize();
    }
}

/// Parses a stored binding and when it was received.
///
/// # Errors
/// If it is not a binding.
pub(super) fn read_binding(value: &[u8]) -> Result<(ExternalAccount, UnixTime), String> {
    let mut kept: Kept = damaged::parse_json(value)?;
    let binding = ExternalAccount {
        key_id: std::mem::take(&mut kept.key_id),
        hmac_key: Secret::new(std::mem::take(&mut kept.hmac_key)),
    };
    Ok((binding, kept.given))
}

/// The value to store for a binding.
pub(super) fn write_binding(binding: &ExternalAccount, given: UnixTime) -> Zeroizing<Vec<u8>> {
    let kept = Kept {
        given,
        key_id: binding.key_id.clone(),
        hmac_key: binding.hmac_key.expose().to_owned(),
    };
    Zeroizing::new(serde_json::to_vec_pretty(&kept).unwrap_or_default())
}

/// Requests a binding from the API.
///
/// # Errors
/// If it provides none, with the reason if it says one.
pub(super) async fn binding(
    config: &ZeroSsl,
    client: &AcmeClient,
    now: UnixTime,
) -> Result<ExternalAccount, Failure> {
    let host = host(&config.endpoint);
    let failed = |error: &Error| error::failure_of(host, Step::Binding, error, client, &[], now);
    let request = request(config).map_err(|error| failed(&error.into()))?;
    let reply = client.send(request).await.map_err(|error| failed(&error))?;
    let answer = Answer::read(reply.body());
    if let Some(fault) = answer.as_ref().and_then(|answer| answer.error.as_ref()) {
        return Err(refused(host, fault));
    }
    match answer {
        _ if client.refusal().is_some() => Err(failed(&Error::Str("a binding"))),
        Some(mut answer)
            if answer.success && !answer.eab_kid.is_empty() && !answer.eab_hmac_key.is_empty() =>
        {
            Ok(ExternalAccount {
                key_id: std::mem::take(&mut answer.eab_kid),
                hmac_key: Secret::new(std::mem::take(&mut answer.eab_hmac_key)),
            })
        }
        Some(_) => Err(refused(host, &Fault::default())),
        None => {
            let message = format!("{host} {}: its response cannot be read", Step::Binding);
            Err(Failure::new(FailureClass::Network, message))
        }
    }
}

fn request(config: &ZeroSsl) -> Result<Request<Bytes>, http::Error> {
    let endpoint = config.endpoint.trim_end_matches('/');
    let post = |url: String| {
        Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
    };
    match &config.login {
        ZeroSslLogin::ApiKey(key) => {
            let key = escaped(key.expose());
            post(format!("{endpoint}/acme/eab-credentials?access_key={key}")).body(Bytes::new())
        }
        ZeroSslLogin::Email(email) => post(format!("{endpoint}/acme/eab-credentials-email"))
            .body(Bytes::from(format!("email={}", escaped(email)))),
    }
}

/// Escapes a text for a query or a form.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(octet));
            }
            _ => escaped.push_str(&format!("%{octet:02X}")),
        }
    }
    escaped
}

fn host(endpoint: &str) -> &str {
    let bare = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, bare)| bare);
    bare.split('/').next().unwrap_or(bare)
}

/// Classifies a refusal by its type; few of the codes are documented.
fn refused(host: &str, fault: &Fault) -> Failure {
    let Fault { code, kind } = fault;
    let says = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    let (class, advice) = match code {
        101 => (
            FailureClass::Configuration,
            "copy 'api_key' again from https://app.zerossl.com/developer",
        ),
        _ if says(&["access_key", "api_key"]) => (
            FailureClass::Configuration,
            "copy 'api_key' again from https://app.zerossl.com/developer",
        ),
        _ if says(&["limit", "quota", "too_many"]) => (
            FailureClass::RateLimited,
            "the daily limit is reached; it will be retried later",
        ),
        _ if says(&["internal", "unavailable", "timeout"]) => (
            FailureClass::Network,
            "the fault is the CA's and is usually temporary",
        ),
        _ if says(&["email", "user"]) => (
            FailureClass::Configuration,
            "give another 'email', or the 'api_key' of an account at https://app.zerossl.com",
        ),
        _ => (
            FailureClass::Configuration,
            "check that the account at https://app.zerossl.com is in good standing",
        ),
    };
    let kind = match kind.as_str() {
        "" => "no reason given",
        kind => kind,
    };
    let message = format!("{host} {}: {kind} (code {code}); {advice}", Step::Binding);
    let scope = (class == FailureClass::RateLimited).then_some(Scope::Registrations);
    Failure {
        scope,
        ..Failure::new(class, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn zerossl(login: ZeroSslLogin) -> ZeroSsl {
        ZeroSsl {
            endpoint: "https://api.zerossl.test/".to_owned(),
            login,
        }
    }

    #[test]
    fn what_is_asked_for_is_escaped() {
        let key = ZeroSslLogin::ApiKey(Secret::new("a&b=c".to_owned()));
        let asked = request(&zerossl(key)).expect("a request");
        assert_eq!(
            asked.uri(),
            "https://api.zerossl.test/acme/eab-credentials?access_key=a%26b%3Dc"
        );
        let email = ZeroSslLogin::Email("a+b@c.test".to_owned());
        let asked = request(&zerossl(email)).expect("a request");
        assert_eq!(asked.method(), Method::POST);
        assert_eq!(asked.uri().path(), "/acme/eab-credentials-email");
        assert_eq!(asked.body(), "email=a%2Bb%40c.test");
    }

    #[test]
    fn success_is_written_in_two_ways() {
        for (text, is_success) in [
            (r#"{"success":1,"eab_kid":"k","eab_hmac_key":"h"}"#, true),
            (r#"{"success":true,"eab_kid":"k","eab_hmac_key":"h"}"#, true),
            (
                r#"{"success":false,"error":{"code":2900,"type":"missing_email"}}"#,
                false,
            ),
            (r#"{"success":0}"#, false),
            ("{}", false),
        ] {
            let answer = Answer::read(text.as_bytes()).expect("an answer");
            assert_eq!(answer.success, is_success, "{text}");
        }
        let odd = br#"{"success":"false","error":{"code":"101","type":null,"details":[]}}"#;
        let fault = Answer::read(odd).and_then(|mut answer| answer.error.take());
        assert_eq!(fault.map(|fault| fault.code), Some(101));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let told = |code, kind: &str| {
            let kind = kind.to_owned();
            refused("api.zerossl.test", &Fault { code, kind })
        };
        for (code, kind, class, words) in [
            (
                101,
                "invalid_access_key",
                FailureClass::Configuration,
                "'api_key'",
            ),
            (
                2900,
                "missing_email",
                FailureClass::Configuration,
                "'email'",
            ),
            (
                2977,
                "caddy_legacy_user_removed",
                FailureClass::Configuration,
                "'email'",
            ),
            (
                2903,
                "eab_limit_reached",
                FailureClass::RateLimited,
                "daily limit",
            ),
            (
                1,
                "internal_error",
                FailureClass::Network,
                "usually temporary",
            ),
            (0, "", FailureClass::Configuration, "no reason given"),
        ] {
            let failure = told(code, kind);
            assert_eq!(failure.class, class, "{kind}");
            assert!(failure.message.contains(words), "{failure}");
            assert!(failure.message.contains("api.zerossl.test"), "{failure}");
        }
    }

    #[test]
    fn a_binding_is_kept_as_it_was_given() {
        let binding = ExternalAccount {
            key_id: "kid".to_owned(),
            hmac_key: Secret::new("secret".to_owned()),
        };
        assert_eq!(
            read_binding(&write_binding(&binding, unix(7))),
            Ok((binding.clone(), unix(7)))
        );
        let former = br#"{ "key_id": "kid", "hmac_key": "secret" }"#;
        assert_eq!(read_binding(former), Ok((binding, unix(0))), "old");
        assert!(read_binding(b"{}").is_err());
    }
}
