//! Revocation: a certificate is taken back before its end.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A certificate to be revoked.
pub struct Revocation {
    /// The first name, by which people know it.
    pub domain: String,
    /// The certificate itself, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PEM: whoever has it may revoke.
    pub key: Zeroizing<Vec<u8>>,
    /// Why it is revoked.
    pub reason: RevocationReason,
}

/// Why a certificate is revoked (RFC 5280, section 5.3.1): the reasons that subscribers may give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevocationReason {
    /// None is given.
    #[default]
    Unspecified,
    /// Others have, or may have, the private key.
    KeyCompromise,
    /// The holder's name or data is another.
    AffiliationChanged,
    /// Another certificate has taken its place.
    Superseded,
    /// The names are no longer served.
    CessationOfOperation,
}

impl RevocationReason {
    /// Every reason there is.
    pub const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
    ];

    /// The name of it in RFC 5280, `keyCompromise`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
        }
    }

    /// The number of it in RFC 5280.
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RevocationReason {
    type Err = String;

    /// However it is written: `keyCompromise`, `keycompromise`, `key-compromise`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
        let wanted = bare(text);
        let known = Self::ALL.into_iter();
        let found = known.clone().find(|one| bare(one.as_str()) == wanted);
        found.ok_or_else(|| {
            let names: Vec<_> = known.map(Self::as_str).collect();
            format!(
                "{text:?} is not a revocation reason: use one of {}",
                names.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_as_they_are_written() {
        for reason in RevocationReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            let json = serde_json::to_value(reason).expect("JSON");
            assert_eq!(json, reason.as_str());
        }
        assert_eq!(
            "key-compromise".parse(),
            Ok(RevocationReason::KeyCompromise)
        );
        let wrong = "lost".parse::<RevocationReason>().expect_err("no reason");
        assert!(wrong.contains("keyCompromise"), "{wrong}");
    }
}
