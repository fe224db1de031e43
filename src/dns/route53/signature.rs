//! AWS Signature Version 4, as far as APIs with simple paths and queries need it.

use std::fmt::Write as _;

use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::PKey;
use openssl::sign::Signer;

use crate::clock::UnixTime;
use crate::secret::Secret;

/// The signer, and the service and region.
pub(super) struct Identity {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
    pub(super) session_token: Option<Secret>,
    pub(super) region: String,
    pub(super) service: &'static str,
}

/// A request to sign. The path has only unreserved characters and `/`; the same holds for the names
/// and values of the query.
pub(super) struct Unsigned<'r> {
    pub(super) method: &'r str,
    pub(super) host: &'r str,
    pub(super) path: &'r str,
    pub(super) query: &'r str,
    pub(super) body: &'r [u8],
}

/// The header fields to send with the request.
pub(super) struct Signed {
    /// `x-amz-date`.
    pub(super) date: String,
    pub(super) authorization: String,
}

impl Identity {
    /// Signs a request.
    pub(super) fn sign(&self, request: &Unsigned<'_>, now: UnixTime) -> Result<Signed, ErrorStack> {
        let Self {
            access_key_id,
            region,
            service,
            ..
        } = self;
        let date = date(now);
        let day = date.split('T').next().unwrap_or_default();
        let mut pairs: Vec<String> = request
            .query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.contains('=') {
                true => pair.to_owned(),
                false => format!("{pair}="),
            })
            .collect();
        pairs.sort_unstable();
        let mut fields = format!("host:{}\nx-amz-date:{date}\n", request.host);
        let mut names = "host;x-amz-date".to_owned();
        if let Some(token) = &self.session_token {
            // Writing to a string does not fail.
            let _ = writeln!(fields, "x-amz-security-token:{}", token.expose());
            names.push_str(";x-amz-security-token");
        }
        let canonical = format!(
            "{}\n{}\n{}\n{fields}\n{names}\n{}",
            request.method,
            request.path,
            pairs.join("&"),
            digest(request.body)?
        );
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            digest(canonical.as_bytes())?
        );
        let secret = format!("AWS4{}", self.secret_access_key.expose());
        let mut key = hmac(secret.as_bytes(), day.as_bytes())?;
        for part in [region, *service, "aws4_request"] {
            key = hmac(&key, part.as_bytes())?;
        }
        let signature = hex(&hmac(&key, to_sign.as_bytes())?);
        Ok(Signed {
            date,
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={access_key_id}/{scope}, SignedHeaders={names}, \
                 Signature={signature}"
            ),
        })
    }
}

/// `20150830T123600Z`.
fn date(now: UnixTime) -> String {
    jiff::Timestamp::from_second(now.as_secs())
        .map(|time| time.strftime("%Y%m%dT%H%M%SZ").to_string())
        .unwrap_or_default()
}

fn digest(data: &[u8]) -> Result<String, ErrorStack> {
    hash(MessageDigest::sha256(), data).map(|digest| hex(&digest))
}

fn hmac(key: &[u8], data: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let key = PKey::hmac(key)?;
    Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(data)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z.
    const THEN: UnixTime = UnixTime::from_secs(1_440_938_160);

    /// Of `get-vanilla-with-session-token` and `post-sts-header-before`.
    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    /// Vectors of AWS's own test suite for Signature Version 4, by their names there.
    #[test]
    fn signatures_are_those_of_the_test_suite() {
        for (name, method, query, token, signature) in [
            (
                "get-vanilla",
                "GET",
                "",
                None,
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "Param2=value2&Param1=value1",
                None,
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-vanilla",
                "POST",
                "",
                None,
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-sts-header-before",
                "POST",
                "",
                Some(TOKEN),
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            let identity = Identity {
                access_key_id: "AKIDEXAMPLE".to_owned(),
                secret_access_key: Secret::new(
                    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
                ),
                session_token: token.map(|token| Secret::new(token.to_owned())),
                region: "us-east-1".to_owned(),
                service: "service",
            };
            let request = Unsigned {
                method,
                host: "example.amazonaws.com",
                path: "/",
                query,
                body: b"",
            };
            let signed = identity.sign(&request, THEN).expect("signed");
            assert_eq!(signed.date, "20150830T123600Z");
            let names = match token {
                Some(_) => "host;x-amz-date;x-amz-security-token",
                None => "host;x-amz-date",
            };
            assert_eq!(
                signed.authorization,
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/\
                     aws4_request, SignedHeaders={names}, Signature={signature}"
                ),
                "{name}"
            );
        }
    }

    /// The example of RFC 4231, section 4.3.
    #[test]
    fn octets_are_authenticated() {
        let code = hmac(b"Jefe", b"what do ya want for nothing?").expect("an HMAC");
        assert_eq!(
            hex(&code),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
