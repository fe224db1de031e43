//! A pending order as stored.

use std::time::Duration;

use openssl::pkey::{PKey, Private};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::clock::UnixTime;
use crate::config::model::OrderTerms;
use crate::host::Pattern;
use crate::storage::damaged;

/// How long an order can be resumed. CAs keep orders for about a week, but a
/// certificate that waits there grows old.
const LASTS: Duration = Duration::from_secs(86_400);

/// An order as stored.
#[derive(Serialize, Deserialize)]
pub(super) struct OrderRecord {
    /// The URL of the order.
    pub(super) url: String,
    /// The URL of its account.
    pub(super) account: String,
    names: Vec<String>,
    #[serde(default)]
    profile: Option<String>,
    /// In seconds.
    #[serde(default)]
    lifetime: Option<u64>,
    /// The private key of its certificate, PEM.
    key: String,
    pub(super) created: UnixTime,
}

impl OrderRecord {
    /// Makes a record.
    ///
    /// # Errors
    /// If the key cannot be written as PEM.
    pub(super) fn new(
        url: &str,
        account: &str,
        names: &[Pattern],
        terms: &OrderTerms,
        key: &PKey<Private>,
        now: UnixTime,
    ) -> Result<Self, openssl::error::ErrorStack> {
        let pem = Zeroizing::new(key.private_key_to_pem_pkcs8()?);
        Ok(Self {
            url: url.to_owned(),
            account: account.to_owned(),
            names: sorted(names),
            profile: profile(terms),
            lifetime: lifetime(terms),
            key: String::from_utf8_lossy(&pem).into_owned(),
            created: now,
        })
    }

    /// Parses a stored `value`.
    ///
    /// # Errors
    /// If it is not an order.
    pub(super) fn read(value: &[u8]) -> Result<Self, String> {
        damaged::parse_json(value)
    }

    /// The value to store.
    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// The key of the order if it can be resumed for these names and terms, or why it cannot. Terms
    /// that are not part of an order may have changed.
    pub(super) fn check_resumable(
        &self,
        names: &[Pattern],
        terms: &OrderTerms,
        now: UnixTime,
    ) -> Result<PKey<Private>, &'static str> {
        if self.names != sorted(names) {
            return Err("it is for other names");
        }
        if self.profile != profile(terms) || self.lifetime != lifetime(terms) {
            return Err("it has other terms");
        }
        // If the clock was set back, the order is from the future, and its age is unknown.
        if !(self.created..self.created + LASTS).contains(&now) {
            return Err("it is too old");
        }
        PKey::private_key_from_pem(self.key.as_bytes()).map_err(|_| "its key cannot be read")
    }
}

impl Drop for OrderRecord {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn profile(terms: &OrderTerms) -> Option<String> {
    terms.profile.as_ref().map(|profile| profile.name.clone())
}

fn lifetime(terms: &OrderTerms) -> Option<u64> {
    terms.lifetime.map(|lifetime| lifetime.as_secs())
}

fn sorted(names: &[Pattern]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::key::generate;
    use crate::clock::unix;
    use crate::config::model::KeyType;

    fn names(names: &[&str]) -> Vec<Pattern> {
        names
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect()
    }

    #[test]
    fn an_order_is_gone_on_with_for_the_same_names_and_not_forever() {
        let key = generate(KeyType::P256).expect("a key");
        let both = names(&["a.test", "b.test"]);
        let terms = OrderTerms::default();
        let record = OrderRecord::new(
            "https://ca/order/1",
            "https://ca/account/1",
            &both,
            &terms,
            &key,
            unix(1000),
        );
        let value = record.expect("a record").write();
        let record = OrderRecord::read(&value).expect("a record");
        assert_eq!(record.url, "https://ca/order/1");
        let resumed = record.check_resumable(
            &names(&["b.test", "a.test"]),
            &terms,
            unix(1000) + LASTS - 1,
        );
        assert!(resumed.expect("its key").public_eq(&key));
        assert!(
            record
                .check_resumable(&names(&["a.test"]), &terms, unix(1000))
                .is_err()
        );
        assert!(
            record
                .check_resumable(&both, &terms, unix(1000) + LASTS)
                .is_err()
        );
        assert!(record.check_resumable(&both, &terms, unix(999)).is_err());
        let week = OrderTerms {
            lifetime: Some(Duration::from_secs(7 * 86_400)),
            ..OrderTerms::default()
        };
        assert!(record.check_resumable(&both, &week, unix(1000)).is_err());
        let named = OrderTerms {
            common_name: true,
            ..OrderTerms::default()
        };
        assert!(record.check_resumable(&both, &named, unix(1000)).is_ok());
        assert!(OrderRecord::read(b"{\"url\": 1}").is_err());
    }
}
