//! The record that a DNS challenge asks for.

use openssl::sha::sha256;

use super::super::{Challenge, ChallengeType, DnsContext};
use crate::host::HostName;
use crate::schedule::{Failure, FailureClass};

/// RFC 4648, section 6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The name of the record.
///
/// # Errors
/// If it would be too long.
pub(super) fn record_name(challenge: &Challenge) -> Result<HostName, Failure> {
    let (domain, nothing) = (&challenge.domain, DnsContext::default());
    let dns = challenge.dns.as_ref().unwrap_or(&nothing);
    let name = match challenge.kind {
        ChallengeType::DnsAccount01 => {
            format!("_{}._acme-challenge.{domain}", label(&dns.account))
        }
        ChallengeType::DnsPersist01 => format!("_validation-persist.{domain}"),
        _ => format!("_acme-challenge.{domain}"),
    };
    name.parse().map_err(|error| {
        let message = format!(
            "{domain} cannot be validated by {}: the name of the record, {name}, {error}; use \
             another of 'challenges'",
            challenge.kind.as_str()
        );
        Failure::new(FailureClass::Configuration, message)
    })
}

/// The value of the record for `dns-01` (RFC 8555, section 8.4) and `dns-account-01`
/// (draft-ietf-acme-dns-account-label, section 3.2).
pub(super) fn record_value(challenge: &Challenge) -> String {
    let digest = sha256(challenge.key_authorization.as_bytes());
    let base64 = openssl::base64::encode_block(&digest);
    let base64 = base64.trim_end_matches('=');
    base64.replace('+', "-").replace('/', "_")
}

/// The label of an account (draft-ietf-acme-dns-account-label, section 3.2), without its `_`:
/// base32 of the first ten octets of the digest of its URL.
fn label(account: &str) -> String {
    let digest = sha256(account.as_bytes());
    let first = digest.iter().take(10);
    let bits = first.fold(0_u128, |bits, octet| bits << 8 | u128::from(*octet));
    let places = (0..16_u32).rev();
    places
        .filter_map(|place| {
            let five = usize::try_from(bits >> (5 * place) & 31).ok()?;
            BASE32.get(five).map(|letter| char::from(*letter))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(kind: ChallengeType, domain: &str) -> Challenge {
        Challenge {
            kind,
            domain: domain.parse().expect("a name"),
            token: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA".to_owned(),
            key_authorization: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.\
                                9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
                .to_owned(),
            dns: Some(DnsContext {
                account: "https://example.com/acme/acct/ExampleAccount".to_owned(),
                ..DnsContext::default()
            }),
        }
    }

    #[test]
    fn each_type_has_its_record() {
        for (kind, expected) in [
            (ChallengeType::Dns01, "_acme-challenge.www.example.org"),
            // The example of draft-ietf-acme-dns-account-label, section 3.2.
            (
                ChallengeType::DnsAccount01,
                "_ujmmovf2vn55tgye._acme-challenge.www.example.org",
            ),
            (
                ChallengeType::DnsPersist01,
                "_validation-persist.www.example.org",
            ),
        ] {
            let name = record_name(&challenge(kind, "www.example.org")).expect("a name");
            assert_eq!(name.as_str(), expected);
        }
        let value = record_value(&challenge(ChallengeType::Dns01, "a.example"));
        // By `printf %s KEY_AUTHORIZATION | openssl dgst -sha256 -binary | basenc --base64url`.
        assert_eq!(value, "lCM7cZyQXcVHK2nnW3jjAhNT3Fvm18UN-kWZZknKoYM");
    }

    #[test]
    fn a_name_that_leaves_no_room_is_refused() {
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(60));
        let failure = record_name(&challenge(ChallengeType::Dns01, &long)).expect_err("too long");
        assert_eq!(failure.class, FailureClass::Configuration);
        assert!(failure.message.contains("dns-01"), "{failure}");
    }
}
